//! The tiles of photographs: which there are, and which are chosen.

use image::RgbImage;
use image::imageops::crop_imm;

use super::lanczos::resized;
use super::python::Random;

/// The side of a tile, in pixels.
pub(crate) const TILE: u32 = 64;
/// The lengths to which a photograph's short side is brought before it is cut.
const SCALES: [u32; 2] = [1280, 768];
/// The least contrast of a tile, as the deviation of its grey levels.
const MIN_DEVIATION: f64 = 10.0;
/// The regions of a photograph are 4 rows of 4; validation tiles come from so many of them, training tiles from the others.
const HELD_OUT: usize = 4;
/// Tiles of a class that are kept for training and for validation.
const KEPT: [usize; 2] = [400, 100];

/// A tile, and where it comes from.
#[derive(Clone)]
pub(crate) struct Tile {
    pub(crate) label: usize,
    pub(crate) pixels: RgbImage,
    pub(crate) scale: u32,
    pub(crate) row: u32,
    pub(crate) column: u32,
}

/// The tiles for training and for validation that are chosen of some photographs, in the order of CIFAR's files.
pub(crate) fn choose(
    photos: impl Iterator<Item = anyhow::Result<RgbImage>>,
    seed: u32,
) -> anyhow::Result<[Vec<Tile>; 2]> {
    let mut random = Random::new(seed);
    let mut chosen = [Vec::new(), Vec::new()];
    for (label, photo) in photos.enumerate() {
        let mut tiles = tiles(&photo?, label, seed + label as u32);
        for ((half, tiles), most) in chosen.iter_mut().zip(&mut tiles).zip(KEPT) {
            random.shuffle(tiles);
            half.extend(tiles.drain(..).take(most));
        }
    }
    chosen.iter_mut().for_each(|half| random.shuffle(half));
    Ok(chosen)
}

/// All tiles of a photograph with enough contrast, for training and for validation. Those that lie on a border between held-out
/// regions and others are neither.
fn tiles(photo: &RgbImage, label: usize, seed: u32) -> [Vec<Tile>; 2] {
    let held = Random::new(seed).sample(16, HELD_OUT);
    let mut found = [Vec::new(), Vec::new()];
    for scale in SCALES {
        let factor = f64::from(scale) / f64::from(photo.width().min(photo.height()));
        let side = |side: u32| (f64::from(side) * factor).round_ties_even() as u32;
        let image = resized(photo, side(photo.width()), side(photo.height()));
        let (columns, rows) = (image.width() / TILE, image.height() / TILE);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let pixels = crop_imm(&image, column * TILE, row * TILE, TILE, TILE).to_image();
            if deviation(&pixels) < MIN_DEVIATION {
                continue;
            }
            let inside = regions(row, rows, column, columns).map(|region| held.contains(&region));
            let tile = Tile { label, pixels, scale, row, column };
            match inside {
                [true, true, true, true] => found[1].push(tile),
                [false, false, false, false] => found[0].push(tile),
                _ => {}
            }
        }
    }
    found
}

/// The regions that a tile's corners lie in.
fn regions(row: u32, rows: u32, column: u32, columns: u32) -> [usize; 4] {
    let of = |at: u32, end: f64, count: u32| (4.0 * (f64::from(at) + end) / f64::from(count)) as usize;
    let last = 1.0 - 1e-9;
    [(0.0, 0.0), (0.0, last), (last, 0.0), (last, last)]
        .map(|(down, right)| of(row, down, rows) * 4 + of(column, right, columns))
}

/// The deviation of the grey levels, as Pillow makes them.
fn deviation(tile: &RgbImage) -> f64 {
    let grey = |pixel: &image::Rgb<u8>| {
        let [red, green, blue] = pixel.0.map(u32::from);
        f64::from((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)
    };
    let count = f64::from(tile.width() * tile.height());
    let mean = tile.pixels().map(grey).sum::<f64>() / count;
    (tile.pixels().map(|pixel| (grey(pixel) - mean).powi(2)).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_on_a_border_has_more_regions_than_one() {
        // Eight rows of tiles and twelve columns: regions are two tiles high and three wide.
        assert_eq!(regions(3, 8, 4, 12), [5; 4]);
        assert_eq!(regions(7, 8, 11, 12), [15; 4]);
        // Ten columns: two and a half for a region.
        assert_eq!(regions(0, 8, 2, 10), [0, 1, 0, 1]);
    }

    /// No pixel of the photograph is in tiles of both halves, at either scale.
    #[test]
    fn splits_do_not_overlap() {
        let photo = RgbImage::from_fn(1600, 1280, |x, y| {
            image::Rgb([(x * y % 251) as u8, (x * 3 % 256) as u8, (y * 5 % 256) as u8])
        });
        let [train, validation] = tiles(&photo, 0, 3);
        assert!(train.len() > 100 && validation.len() > 20, "{} {}", train.len(), validation.len());
        let places = |tile: &Tile| {
            let side = f64::from(TILE) / f64::from(tile.scale);
            [tile.row, tile.column].map(|at| (f64::from(at) * side, f64::from(at + 1) * side))
        };
        let apart = |one: (f64, f64), other: (f64, f64)| one.1 <= other.0 + 1e-9 || other.1 <= one.0 + 1e-9;
        for (one, other) in train.iter().flat_map(|one| validation.iter().map(move |other| (one, other))) {
            let (one, other) = (places(one), places(other));
            assert!(apart(one[0], other[0]) || apart(one[1], other[1]));
        }
    }

    #[test]
    fn single_color_tiles_are_skipped() {
        let flat = RgbImage::from_pixel(1280, 1280, image::Rgb([9, 90, 200]));
        assert_eq!(tiles(&flat, 0, 3).map(|half| half.len()), [0, 0]);
    }
}
