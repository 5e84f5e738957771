//! Color changes of a patch, computed in 8 bits like Pillow. Brightness, contrast, saturation and
//! hue match Pillow to one level; flip, grey and solarization match exactly.

use std::sync::LazyLock;

use crate::image::{Image, luma};

type Pixel = [u8; 3];

fn pixels(patch: &mut Image) -> &mut [Pixel] {
    patch.rgb_mut().as_chunks_mut::<3>().0
}

/// Flips a patch horizontally.
pub(crate) fn flip(patch: &mut Image) {
    let width = patch.size().width as usize;
    pixels(patch).chunks_exact_mut(width).for_each(<[Pixel]>::reverse);
}

/// Interpolates between `nothing` (factor 0) and `value` (factor 1), and truncates the fraction
/// like Pillow's `blend`.
fn blend(nothing: u8, value: u8, factor: f32) -> u8 {
    let nothing = f32::from(nothing);
    // Rust's conversion saturates, which matches Pillow's clipping.
    (nothing + factor * (f32::from(value) - nothing)) as u8
}

/// Scales the brightness: blends with black.
pub(crate) fn brightness(patch: &mut Image, factor: f32) {
    patch.rgb_mut().iter_mut().for_each(|value| *value = blend(0, *value, factor));
}

/// Scales the contrast: blends with the patch's mean grey level.
pub(crate) fn contrast(patch: &mut Image, factor: f32) {
    let pixels = pixels(patch);
    let sum: u64 = pixels.iter().map(|pixel| u64::from(luma(*pixel))).sum();
    let mean = (sum as f64 / pixels.len() as f64 + 0.5) as u8;
    patch.rgb_mut().iter_mut().for_each(|value| *value = blend(mean, *value, factor));
}

/// Scales the saturation: blends each pixel with its grey level.
pub(crate) fn saturation(patch: &mut Image, factor: f32) {
    for pixel in pixels(patch) {
        let grey = luma(*pixel);
        *pixel = pixel.map(|value| blend(grey, value, factor));
    }
}

/// Rotates the hue, in steps of 1/255 turn.
pub(crate) fn hue(patch: &mut Image, turns: f32) {
    let shift = (turns * 255.0) as i32 as u8;
    let (sectors, shares) = (&*SECTORS, &*SHARES);
    for pixel in pixels(patch) {
        let [hue, saturation, value] = to_hsv(*pixel);
        let sector = sectors[usize::from(hue.wrapping_add(shift))];
        *pixel = from_hsv(sector, shares[usize::from(saturation)], value);
    }
}

/// Converts to hue, saturation and value, each in 0 to 255 (Pillow's "HSV"). Uses single and double
/// precision where Pillow does, because the fraction is truncated.
fn to_hsv([red, green, blue]: Pixel) -> Pixel {
    let (highest, lowest) = (red.max(green).max(blue), red.min(green).min(blue));
    if highest == lowest {
        return [0, 0, highest];
    }
    let range = f32::from(highest - lowest);
    let below = |value: u8| f64::from(f32::from(highest - value) / range);
    let sixth = if red == highest {
        below(blue) - below(green)
    } else if green == highest {
        2.0 + below(red) - below(blue)
    } else {
        4.0 + below(green) - below(red)
    };
    // Wrap around at one turn. Written as a branch, because a call to `fract` would take longer
    // than everything else here.
    let turns = f64::from(sixth as f32) / 6.0 + 1.0;
    let hue = if turns >= 1.0 { turns - 1.0 } else { turns } as f32;
    let saturation = range / f32::from(highest);
    [whole(f64::from(hue) * 255.0), whole(f64::from(saturation) * 255.0), highest]
}

/// Truncates a number in 0 to 255. The detour over 32 bits takes one instruction.
fn whole(number: f64) -> u8 {
    number as i32 as u8
}

/// For each hue: its sector of the color wheel (one sixth), and the position in the sector.
static SECTORS: LazyLock<[(u8, f32); 256]> = LazyLock::new(|| {
    std::array::from_fn(|hue| {
        let sixth = (hue as f64 * 6.0 / 255.0) as f32;
        (sixth as u8 % 6, sixth.fract())
    })
});

/// Each saturation level as a fraction of 255.
static SHARES: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|level| (level as f64 / 255.0) as f32));

fn from_hsv((sector, within): (u8, f32), share: f32, value: u8) -> Pixel {
    let level = |less: f64| whole(f64::from(value) * (1.0 - less) + 0.5);
    let p = level(share.into());
    let q = level((share * within).into());
    let t = level(f64::from(share) * (1.0 - f64::from(within)));
    match sector {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}

/// Inverts all values at or above the threshold.
pub(crate) fn solarise(patch: &mut Image, threshold: u8) {
    patch.rgb_mut().iter_mut().filter(|value| **value >= threshold).for_each(|value| *value = 255 - *value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::reference::{self, bytes};
    use bagssl_core::color::Color;
    use bagssl_core::patch::ImageSize;
    use std::hash::Hasher as _;

    #[test]
    fn colors_are_those_of_pillow() {
        let (values, image) = reference::pillow();
        let mut grey = image.clone();
        grey.set_color(Color::Grey);
        assert_eq!(grey.rgb(), bytes(&values["grey"]));
        type Change = fn(&mut Image, f32);
        let changes: [(&str, Change); 5] = [
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
            ("hue", hue),
            ("solarise", |image, threshold| solarise(image, threshold as u8)),
        ];
        for (name, change) in changes {
            for case in values["colour"][name].as_array().unwrap() {
                let factor = case["factor"].as_f64().unwrap() as f32;
                let mut changed = image.clone();
                change(&mut changed, factor);
                reference::within_a_level(&format!("{name} {factor}"), changed.rgb(), &case["rgb"]);
            }
        }
    }

    /// A hash over all 16.8 million colors under two rotations (FNV-1a, 64 bits, over the pixels).
    /// The expected value is from the same calculation without tables and with the functions
    /// `floor`, `fract` and `round`.
    #[test]
    fn no_color_is_turned_otherwise() {
        let mut hash = fnv::FnvHasher::default();
        for (red, turns) in (0..=255).flat_map(|red| [-0.1, 0.37].map(|turns| (red, turns))) {
            let rgb = (0..=u16::MAX).flat_map(|rest| [red, (rest >> 8) as u8, rest as u8]).collect();
            let mut image = Image::new(ImageSize { height: 256, width: 256 }, rgb);
            hue(&mut image, turns);
            hash.write(image.rgb());
        }
        assert_eq!(hash.finish(), 0x8544_9513_3a80_6d35);
    }

    #[test]
    fn a_flip_keeps_the_rows() {
        let mut image = Image::new(ImageSize { height: 2, width: 3 }, (0..18).collect());
        flip(&mut image);
        assert_eq!(image.rgb()[..9], [6, 7, 8, 3, 4, 5, 0, 1, 2]);
        assert_eq!(image.rgb()[9..12], [15, 16, 17]);
    }
}
