//! The photographs, and which Debian packages carry them.

/// The Debian packages.
pub(crate) const PACKAGES: [&str; 6] = [
    "plasma-workspace-wallpapers",
    "mate-backgrounds",
    "gnome-backgrounds",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "ukui-wallpapers",
];

/// The photographs, by their paths under `usr/share`: a class each, in this order.
pub(crate) const PHOTOS: [&str; 39] = [
    "backgrounds/Bridge_by_Sander_Klootwijk.jpg",
    "backgrounds/Dragonfly_by_Bolly.jpg",
    "backgrounds/Kleiber_by_Lukas_Baubkus.jpg",
    "backgrounds/Picture_0B_by_freespace.jpg",
    "backgrounds/Picture_1A_by_freespace.jpg",
    "backgrounds/Wine_by_Jakkub_Mede.jpg",
    "backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg",
    "backgrounds/analogpattern_by_Peter_Nerlich.jpg",
    "backgrounds/friends_by_Aitzol_Berasategi.jpg",
    "backgrounds/gnome/grid-d.webp",
    "backgrounds/gnome/licorice-d.webp",
    "backgrounds/gnome/pixels-d.webp",
    "backgrounds/gnome/truchet-d.webp",
    "backgrounds/gnome/wood-d.webp",
    "backgrounds/greentock_by_Peter_Nerlich.jpg",
    "backgrounds/life_by_Aitzol_Berasategi.jpg",
    "backgrounds/mate/abstract/Elephants.jpg",
    "backgrounds/mate/nature/Blinds.jpg",
    "backgrounds/mate/nature/Dune.jpg",
    "backgrounds/mate/nature/FreshFlower.jpg",
    "backgrounds/mate/nature/Garden.jpg",
    "backgrounds/mate/nature/GreenMeadow.jpg",
    "backgrounds/mate/nature/LadyBird.jpg",
    "backgrounds/mate/nature/RainDrops.jpg",
    "backgrounds/mate/nature/TwoWings.jpg",
    "backgrounds/mate/nature/YellowFlower.jpg",
    "backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "backgrounds/seeding_by_Clements_Engelhardt.jpg",
    "backgrounds/sunset_by_Aitzol_Berasategi.jpg",
    "wallpapers/Autumn/contents/images/1920x1080.jpg",
    "wallpapers/BytheWater/contents/images/1920x1080.jpg",
    "wallpapers/ColdRipple/contents/images/1920x1080.jpg",
    "wallpapers/ColorfulCups/contents/images/2560x1600.jpg",
    "wallpapers/EveningGlow/contents/images/1920x1080.jpg",
    "wallpapers/FallenLeaf/contents/images/1920x1080.jpg",
    "wallpapers/Grey/contents/images/1920x1080.jpg",
    "wallpapers/Path/contents/images/1920x1080.jpg",
    "wallpapers/SafeLanding/contents/images/1622x2880.jpg",
    "wallpapers/Shell/contents/images/5120x2880.jpg",
];

/// The class of a photograph: its name in small letters, without its author.
pub(crate) fn class(photo: &str) -> String {
    let stem = match photo.strip_prefix("wallpapers/") {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => photo.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or(photo),
    };
    stem.split("_by_").next().unwrap_or(stem).to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_short_names() {
        assert_eq!(class(PHOTOS[4]), "picture-1a");
        assert_eq!(class(PHOTOS[9]), "grid-d");
        assert_eq!(class(PHOTOS[32]), "colorfulcups");
    }
}
