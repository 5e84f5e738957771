//! Heat maps: the evidence of a grid's patches, drawn as colors over the image.

use std::prelude::v1::*;

use crate::bag::Grid;
use crate::error::{Error, Result};
use crate::patch::ImageSize;

/// The evidence at each pixel of an image: the mean over the patches that cover the pixel.
///
/// # Example
/// ```
/// use bagssl_core::bag::Grid;
/// use bagssl_core::heat::HeatMap;
/// use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
/// // Two patches of 2x2 pixels over an image of 2 rows and 3 columns: both patches cover the
/// // middle column.
/// let size = ImageSize { height: 2, width: 3 };
/// let grid = Grid::new(PatchSpec::new(PatchSide::Pixels(2), 2)?, size, 1)?;
/// let heat = HeatMap::new(&[4.0, -2.0], grid, size)?;
/// assert_eq!(heat.values()[..3], [Some(4.0), Some(1.0), Some(-2.0)]);
/// let picture = heat.overlay(&[128; 2 * 3 * 3], heat.max_abs(), 1.0)?;
/// assert_eq!(picture[..3], [180, 4, 38]);
/// # Ok::<(), bagssl_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    size: ImageSize,
    values: Vec<Option<f64>>,
}

impl HeatMap {
    /// Maps the evidence of a grid's patches, `[patch]`, to the pixels of the image that the grid
    /// was made for.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of values is not the number of patches. [`Error::Setting`]
    /// if a value is not finite. [`Error::PatchTooLarge`] if the grid does not lie inside the
    /// image.
    pub fn new(evidence: &[f64], grid: Grid, image: ImageSize) -> Result<Self> {
        if evidence.len() != grid.patches() {
            return Err(Error::Length { name: "grid evidence", expected: grid.patches(), got: evidence.len() });
        }
        if let Some(value) = evidence.iter().find(|value| !value.is_finite()) {
            return Err(Error::Setting { name: "evidence", expected: "finite numbers", got: format!("{value}") });
        }
        let last = grid.crop(grid.patches() - 1);
        if !last.fits(image) {
            return Err(Error::PatchTooLarge { patch: last.height, height: image.height, width: image.width });
        }
        let mut sums = vec![(0.0, 0u32); image.height as usize * image.width as usize];
        for (crop, value) in grid.crops().zip(evidence) {
            for row in crop.top..crop.top + crop.height {
                let first = row as usize * image.width as usize + crop.left as usize;
                for (sum, count) in &mut sums[first..first + crop.width as usize] {
                    *sum += value;
                    *count += 1;
                }
            }
        }
        let mean = |(sum, count)| (count > 0).then(|| sum / f64::from(count));
        Ok(HeatMap { size: image, values: sums.into_iter().map(mean).collect() })
    }

    /// Returns the values, `[height, width]`; `None` where no patch covers the pixel.
    pub fn values(&self) -> &[Option<f64>] {
        &self.values
    }

    /// Returns the greatest absolute value.
    pub fn max_abs(&self) -> f64 {
        self.values.iter().flatten().fold(0.0, |max, value| value.abs().max(max))
    }

    /// Blends the map's colors over an image: red for positive evidence, light grey for 0, blue for
    /// negative. Pixels without a patch stay unchanged.
    ///
    /// # Shapes
    /// - `rgb`: `[height, width, 3]`
    /// - `limit`: the absolute value at which the colors saturate, positive. Use the same limit for
    ///   maps that are to be compared, and [`HeatMap::max_abs`] for a single map
    /// - `opacity`: the weight of the colors, in `[0, 1]`; 0.5 leaves the image visible
    /// - returns: `[height, width, 3]`
    ///
    /// # Errors
    /// [`Error::Length`] if the image has a different size. [`Error::Setting`] if the limit or the
    /// opacity is out of range.
    pub fn overlay(&self, rgb: &[u8], limit: f64, opacity: f64) -> Result<Vec<u8>> {
        let ImageSize { height, width } = self.size;
        let expected = height as usize * width as usize * 3;
        if rgb.len() != expected {
            return Err(Error::Length { name: "image bytes", expected, got: rgb.len() });
        }
        if !(limit > 0.0 && limit.is_finite()) {
            return Err(Error::Setting { name: "limit", expected: "a positive number", got: format!("{limit}") });
        }
        if !(0.0..=1.0).contains(&opacity) {
            return Err(Error::Setting { name: "opacity", expected: "0 to 1", got: format!("{opacity}") });
        }
        let blend = |under: u8, over: u8| mix(f64::from(under), f64::from(over), opacity);
        let mut picture = rgb.to_vec();
        for (pixel, value) in picture.as_chunks_mut::<3>().0.iter_mut().zip(&self.values) {
            if let Some(value) = value {
                let color = diverging_color(value / limit);
                *pixel = core::array::from_fn(|channel| blend(pixel[channel], color[channel]));
            }
        }
        Ok(picture)
    }
}

/// The published color table, from blue to red.
const COOL_WARM: [u32; 33] = [
    0x3b4cc0, 0x445acc, 0x4d68d7, 0x5775e1, 0x6282ea, 0x6c8ef1, 0x779af7, 0x82a5fb, 0x8db0fe, 0x98b9ff, 0xa3c2ff,
    0xaec9fd, 0xb8d0f9, 0xc2d5f4, 0xccd9ee, 0xd5dbe6, 0xdddddd, 0xe5d8d1, 0xecd3c5, 0xf1ccb9, 0xf5c4ad, 0xf7bba0,
    0xf7b194, 0xf7a687, 0xf49a7b, 0xf18d6f, 0xec7f63, 0xe57058, 0xde604d, 0xd55042, 0xcb3e38, 0xc0282f, 0xb40426,
];

/// Returns the color (red, green, blue) of a value, clamped to `[-1, 1]`: blue at -1, light grey at
/// 0, red at 1. Blue and red remain distinct for readers with red-green color blindness.
///
/// # Source
/// Moreland, *Diverging color maps for scientific visualization*, ISVC 2009 ("cool to warm").
fn diverging_color(value: f64) -> [u8; 3] {
    let place = (value.clamp(-1.0, 1.0) + 1.0) * 16.0;
    let low = (place as usize).min(COOL_WARM.len() - 2);
    let (from, to) = (COOL_WARM[low].to_be_bytes(), COOL_WARM[low + 1].to_be_bytes());
    // The first of the four bytes is unused.
    core::array::from_fn(|channel| mix(f64::from(from[channel + 1]), f64::from(to[channel + 1]), place - low as f64))
}

fn mix(from: f64, to: f64, share: f64) -> u8 {
    libm::round(from + (to - from) * share) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::{PatchSide, PatchSpec};
    use proptest::prelude::*;

    fn grid(side: u32, stride: u32, size: ImageSize) -> Grid {
        Grid::new(PatchSpec::new(PatchSide::Pixels(side), 8).unwrap(), size, stride).unwrap()
    }

    /// 2x2 patches with stride 1 over 3 rows and 4 columns make 2 rows of 3, with values 1 to 6.
    /// They cover the last column and row. With stride 2 over 3 rows and 5 columns, the last row
    /// and column remain uncovered.
    #[test]
    fn overlaps_by_hand() {
        let size = ImageSize { height: 3, width: 4 };
        let heat = HeatMap::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], grid(2, 1, size), size).unwrap();
        let expected = [1.0, 1.5, 2.5, 3.0, 2.5, 3.0, 4.0, 4.5, 4.0, 4.5, 5.5, 6.0].map(Some);
        assert_eq!((heat.values(), heat.max_abs()), (&expected[..], 6.0));

        let size = ImageSize { height: 3, width: 5 };
        let heat = HeatMap::new(&[1.0, -7.0], grid(2, 2, size), size).unwrap();
        let row = [Some(1.0), Some(1.0), Some(-7.0), Some(-7.0), None];
        assert_eq!(heat.values(), [row, row, [None; 5]].concat());
        assert_eq!(heat.max_abs(), 7.0);
    }

    /// One row: full red, neutral to half blue (`[141, 176, 254]`), beyond the limit, uncovered;
    /// blended at 0.5.
    #[test]
    fn overlay_by_hand() {
        let size = ImageSize { height: 1, width: 4 };
        let heat = HeatMap { size, values: vec![Some(2.0), Some(-1.0), Some(-9.0), None] };
        let rgb = [0, 0, 0, 100, 0, 255, 0, 0, 0, 10, 20, 30];
        let expected = [90, 2, 19, 121, 88, 255, 30, 38, 96, 10, 20, 30];
        assert_eq!(heat.overlay(&rgb, 2.0, 0.5).unwrap(), expected);
        assert_eq!(heat.overlay(&rgb, 2.0, 0.0).unwrap(), rgb);
        assert!(heat.overlay(&rgb[1..], 2.0, 0.5).is_err());
        assert!([0.0, -1.0, f64::NAN, f64::INFINITY].iter().all(|&limit| heat.overlay(&rgb, limit, 0.5).is_err()));
        assert!([-0.1, 1.1, f64::NAN].iter().all(|&opacity| heat.overlay(&rgb, 2.0, opacity).is_err()));
    }

    /// The ends and the middle of the published table, the midpoint of two entries, and values out
    /// of range.
    #[test]
    fn colors_by_hand() {
        assert_eq!(
            [diverging_color(-1.0), diverging_color(-0.5), diverging_color(0.0)],
            [[59, 76, 192], [141, 176, 254], [221; 3]]
        );
        assert_eq!([diverging_color(0.875), diverging_color(1.0)], [[203, 62, 56], [180, 4, 38]]);
        assert_eq!(diverging_color(-1.0 + 0.5 / 16.0), [64, 83, 198]);
        assert_eq!([diverging_color(-5.0), diverging_color(7.0)], [diverging_color(-1.0), diverging_color(1.0)]);
    }

    #[test]
    fn shape_mismatch_is_refused() {
        let size = ImageSize { height: 3, width: 5 };
        let grid = grid(2, 2, size);
        assert!(HeatMap::new(&[1.0; 3], grid, size).is_err());
        assert!(HeatMap::new(&[1.0, f64::NAN], grid, size).is_err());
        assert!(HeatMap::new(&[1.0; 2], grid, ImageSize { height: 5, width: 3 }).is_err());
    }

    proptest! {
        /// If all patches have the same value, so does each pixel that they cover. No pixel exceeds
        /// the patches in magnitude.
        #[test]
        fn heat_is_within_patch_range(side in 1u32..5, stride in 1u32..7, h in 0u32..9, w in 0u32..9, value in -9f64..9.0) {
            let size = ImageSize { height: side + h, width: side + w };
            let grid = grid(side, stride, size);
            let same = HeatMap::new(&vec![value; grid.patches()], grid, size).unwrap();
            prop_assert!(same.values().iter().flatten().all(|found| (found - value).abs() < 1e-9));
            let evidence: Vec<f64> = (0..grid.patches()).map(|patch| libm::sin(patch as f64 * value)).collect();
            let most = evidence.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
            prop_assert!(HeatMap::new(&evidence, grid, size).unwrap().max_abs() <= most + 1e-12);
        }
    }
}
