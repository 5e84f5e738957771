//! Groups of dependent images, which the bootstrap draws as a unit.

use std::collections::BTreeMap;

use bagssl_data::Dataset;

use crate::error::{Error, Result};

/// The criterion that groups images. A confidence interval is too narrow if it treats dependent
/// images as independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Groups {
    /// Groups of touching tiles if all image names are names of tiles, else each image on its own.
    #[default]
    Auto,
    /// Each image on its own.
    Image,
    /// All images of a class, such as when each class is one photograph.
    Class,
    /// Tiles that touch or overlap in their photograph, identified by names such as
    /// `s768-x04-y10.jpg`: column 4 and row 10 of a photograph whose short side has 768 pixels.
    Tiles,
}

impl Groups {
    /// Returns the group of each image, and a name for the groups. Groups are numbered from 0, or by the class.
    ///
    /// # Errors
    /// [`Error::NotTiles`] if tiles are asked for, and an image has another name.
    pub fn group_ids(self, dataset: &Dataset) -> Result<(Vec<u32>, &'static str)> {
        let images = 0..dataset.len();
        let classes = || images.clone().map(|image| dataset.label(image)).collect();
        match self {
            Groups::Image => Ok((images.map(|image| image as u32).collect(), "images")),
            Groups::Class => Ok((classes(), "classes")),
            Groups::Tiles | Groups::Auto => {
                let tiles: Vec<Option<TileName>> =
                    images.clone().map(|image| TileName::from_name(dataset.name(image))).collect();
                match tiles.iter().position(Option::is_none) {
                    None => {
                        Ok((regions(&tiles.into_iter().flatten().collect::<Vec<_>>()), "regions of touching tiles"))
                    }
                    Some(_) if self == Groups::Auto => Groups::Image.group_ids(dataset),
                    Some(image) => Err(Error::NotTiles { image: dataset.name(image).into() }),
                }
            }
        }
    }
}

/// A square tile of a photograph that was scaled so that its short side has `s` pixels, where `s`
/// is the number in the tile's name. `square` is `[left, top, side]` relative to the photograph, up
/// to a constant factor.
struct TileName {
    folder: String,
    square: [f64; 3],
}

impl TileName {
    fn from_name(name: &str) -> Option<Self> {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        let mut parts = stem.split('-');
        let mut number = |letter: char| parts.next()?.strip_prefix(letter)?.parse::<u32>().ok();
        let (scale, column, row) = (number('s')?, number('x')?, number('y')?);
        if parts.next().is_some() || scale == 0 {
            return None;
        }
        let share = |value: u32| f64::from(value) / f64::from(scale);
        // Positions count tiles. All tiles have the same size in pixels, which is the constant
        // factor.
        Some(TileName { folder: folder.into(), square: [share(column), share(row), share(1)] })
    }

    fn touches(&self, other: &TileName) -> bool {
        const ROUNDING: f64 = 1e-9;
        let ([left, top, side], [other_left, other_top, other_side]) = (self.square, other.square);
        let meet = |a: f64, b: f64| a <= b + other_side + ROUNDING && b <= a + side + ROUNDING;
        meet(left, other_left) && meet(top, other_top)
    }
}

/// Returns the connected region of each tile. Tiles in the same folder are connected if they touch.
fn regions(tiles: &[TileName]) -> Vec<u32> {
    let mut folders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    tiles.iter().enumerate().for_each(|(index, tile)| folders.entry(&tile.folder).or_default().push(index));
    let mut groups = vec![u32::MAX; tiles.len()];
    let mut next = 0;
    for indices in folders.values() {
        for &index in indices {
            if groups[index] != u32::MAX {
                continue;
            }
            let mut open = vec![index];
            while let Some(tile) = open.pop() {
                if groups[tile] != u32::MAX {
                    continue;
                }
                groups[tile] = next;
                let near = |&&other: &&usize| groups[other] == u32::MAX && tiles[tile].touches(&tiles[other]);
                open.extend(indices.iter().filter(near));
            }
            next += 1;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions_of(names: &[&str]) -> Vec<u32> {
        regions(&names.iter().map(|name| TileName::from_name(name).unwrap()).collect::<Vec<_>>())
    }

    /// Tiles in a row, one that touches at a corner, one apart, and one of another photograph. The
    /// last tile has a larger scale and lies in the one apart (row 6 of 12 starts at one half, as
    /// row 3 of 6 does).
    #[test]
    fn tiles_that_touch_are_one_group() {
        let names = [
            "a/s6-x00-y00.jpg",
            "a/s6-x01-y00.jpg",
            "a/s6-x02-y01.jpg",
            "a/s6-x04-y03.png",
            "b/s6-x00-y00.jpg",
            "a/s12-x08-y06.jpg",
        ];
        assert_eq!(regions_of(&names), [0, 0, 0, 1, 2, 1]);
        assert_eq!(regions_of(&["a/s6-x00-y00.jpg", "a/s6-x02-y00.jpg"]), [0, 1], "a tile lies between them");
        assert_eq!(regions_of(&["a/s6-x00-y02.jpg", "a/s6-x02-y00.jpg"]), [0, 1]);
    }

    #[test]
    fn other_names_are_no_tiles() {
        for name in ["a/b.jpg", "s6-x1.jpg", "s0-x1-y1.jpg", "s6-x1-y1-z1.jpg", "x1-y1-s6.jpg", "s6-x-y1.jpg"] {
            assert!(TileName::from_name(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_embedded_tiles_have_regions() {
        let dataset = Dataset::embedded(bagssl_data::Split::Validation).unwrap();
        let count = |groups: Groups| {
            let (mut groups, _) = groups.group_ids(&dataset).unwrap();
            groups.sort_unstable();
            groups.dedup();
            groups.len()
        };
        assert_eq!((count(Groups::Image), count(Groups::Class)), (270, 9));
        let regions = count(Groups::Auto);
        // There are 30 tiles per photograph, with gaps between them. A script counted the same
        // number of regions.
        assert_eq!(regions, 100);
    }
}
