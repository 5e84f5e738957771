//! Patches: their size, and their position in the image.

use std::prelude::v1::*;

use crate::error::{Error, Result};
use crate::random::Stream;

/// The size of an image in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Number of rows.
    pub height: u32,
    /// Number of columns.
    pub width: u32,
}

impl ImageSize {
    /// Returns the length of the shorter side in pixels.
    pub fn short_side(self) -> u32 {
        self.height.min(self.width)
    }
}

/// A rectangle of an image, in integer pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crop {
    /// The first row.
    pub top: u32,
    /// The first column.
    pub left: u32,
    /// Number of rows.
    pub height: u32,
    /// Number of columns.
    pub width: u32,
}

impl Crop {
    /// Returns the entire image.
    pub fn whole(image: ImageSize) -> Self {
        Crop { top: 0, left: 0, height: image.height, width: image.width }
    }

    /// Returns the largest centered square of an image. If the margin is odd, the extra pixel is at
    /// the bottom or on the right.
    pub fn center(image: ImageSize) -> Self {
        let side = image.short_side();
        Crop { top: (image.height - side) / 2, left: (image.width - side) / 2, height: side, width: side }
    }

    /// Returns whether the rectangle is not empty and lies inside an image of that size.
    pub fn fits(self, image: ImageSize) -> bool {
        let inside = |start: u32, length: u32, limit: u32| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= limit)
        };
        inside(self.top, self.height, image.height) && inside(self.left, self.width, image.width)
    }
}

/// The filter that resamples a patch to the network's input size. Both filters are antialiased:
/// they widen when they shrink an image, as in Pillow and in torchvision's transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "snake_case"))]
pub enum Filter {
    /// Linear in both directions.
    #[default]
    Bilinear,
    /// Cubic in both directions, with a = -0.5 (Catmull and Rom).
    Bicubic,
}

/// The size of a patch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum PatchSide {
    /// A square with sides of this many pixels.
    Pixels(u32),
    /// A square with this fraction of the area of the image's center square, in `(0, 1]`. For
    /// example, 0.25 of a 32x32 image is 16x16 pixels.
    AreaShare(f32),
}

/// A validated patch size: patches of one fixed scale, and the side of the network's input to which
/// each patch is resampled.
///
/// # Example
/// ```
/// use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
/// let spec = PatchSpec::new(PatchSide::AreaShare(0.25), 32)?;
/// assert_eq!(spec.side_in(ImageSize { height: 32, width: 48 })?, 16);
/// # Ok::<(), bagssl_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(try_from = "UncheckedSpec", into = "UncheckedSpec"))]
pub struct PatchSpec {
    side: PatchSide,
    input: u32,
}

/// The serialized form.
#[cfg(feature = "checkpoint")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedSpec {
    side: PatchSide,
    input: u32,
}

#[cfg(feature = "checkpoint")]
impl TryFrom<UncheckedSpec> for PatchSpec {
    type Error = Error;

    fn try_from(spec: UncheckedSpec) -> Result<Self> {
        PatchSpec::new(spec.side, spec.input)
    }
}

#[cfg(feature = "checkpoint")]
impl From<PatchSpec> for UncheckedSpec {
    fn from(spec: PatchSpec) -> Self {
        UncheckedSpec { side: spec.side, input: spec.input }
    }
}

/// The largest accepted side of a network input, in pixels.
const MAX_INPUT: u32 = 4096;

impl PatchSpec {
    /// Creates a patch size from the side of a patch and the side of the network's input, in
    /// pixels.
    ///
    /// # Errors
    /// [`Error::Setting`] if a side is 0, a share is outside `(0, 1]`, or the input is larger than
    /// 4096 pixels.
    pub fn new(side: PatchSide, input: u32) -> Result<Self> {
        let refuse = |name, expected, got| Err(Error::Setting { name, expected, got });
        match side {
            PatchSide::Pixels(0) => return refuse("patch.side", "at least 1 pixel", "0".into()),
            PatchSide::AreaShare(share) if !(share > 0.0 && share <= 1.0) => {
                return refuse("patch.side", "a fraction of the area in (0, 1]", format!("{share}"));
            }
            _ => {}
        }
        if !(1..=MAX_INPUT).contains(&input) {
            return refuse("patch.input", "1 to 4096 pixels", format!("{input}"));
        }
        Ok(PatchSpec { side, input })
    }

    /// Returns the size of a patch.
    pub fn side(self) -> PatchSide {
        self.side
    }

    /// Returns the side of the network's input in pixels.
    pub fn input(self) -> u32 {
        self.input
    }

    /// Returns the side of a patch in an image of this size, in pixels: at least 1. An area share
    /// is rounded to the nearest integer side.
    ///
    /// # Errors
    /// [`Error::PatchTooLarge`] if the patch does not fit.
    pub fn side_in(self, image: ImageSize) -> Result<u32> {
        let short = image.short_side();
        let side = match self.side {
            PatchSide::Pixels(side) => side,
            PatchSide::AreaShare(share) => (libm::round(f64::from(short) * libm::sqrt(f64::from(share))) as u32).max(1),
        };
        if side > short {
            return Err(Error::PatchTooLarge { patch: side, height: image.height, width: image.width });
        }
        Ok(side)
    }

    /// Draws a patch at a uniformly random position.
    ///
    /// # Errors
    /// [`Error::PatchTooLarge`] if the patch does not fit.
    pub fn random_crop(self, image: ImageSize, random: &mut Stream) -> Result<Crop> {
        let side = self.side_in(image)?;
        let top = random.below(image.height - side + 1);
        let left = random.below(image.width - side + 1);
        Ok(Crop { top, left, height: side, width: side })
    }
}

/// Crops of many scales and aspect ratios, as in joint-embedding baselines (torchvision's
/// `RandomResizedCrop`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(try_from = "UncheckedMultiScale", into = "UncheckedMultiScale"))]
pub struct MultiScale {
    scale: (f32, f32),
    ratio: (f32, f32),
    input: u32,
}

/// The serialized form.
#[cfg(feature = "checkpoint")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedMultiScale {
    scale: (f32, f32),
    ratio: (f32, f32),
    input: u32,
}

#[cfg(feature = "checkpoint")]
impl TryFrom<UncheckedMultiScale> for MultiScale {
    type Error = Error;

    fn try_from(spec: UncheckedMultiScale) -> Result<Self> {
        MultiScale::new(spec.scale, spec.ratio, spec.input)
    }
}

#[cfg(feature = "checkpoint")]
impl From<MultiScale> for UncheckedMultiScale {
    fn from(spec: MultiScale) -> Self {
        UncheckedMultiScale { scale: spec.scale, ratio: spec.ratio, input: spec.input }
    }
}

impl MultiScale {
    /// Creates the crops from a range of area shares, a range of aspect ratios (width / height) and
    /// the side of the network's input.
    ///
    /// # Errors
    /// [`Error::Setting`] if a range is empty, a share is outside `(0, 1]`, a ratio is not
    /// positive, or the side of the input is not 1 to 4096 pixels.
    pub fn new(scale: (f32, f32), ratio: (f32, f32), input: u32) -> Result<Self> {
        let refuse = |name, expected, got| Err(Error::Setting { name, expected, got });
        if !(scale.0 > 0.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
            return refuse("crops.scale", "0 < low <= high <= 1", format!("{scale:?}"));
        }
        if !(ratio.0 > 0.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
            return refuse("crops.ratio", "0 < low <= high", format!("{ratio:?}"));
        }
        if !(1..=MAX_INPUT).contains(&input) {
            return refuse("crops.input", "1 to 4096 pixels", format!("{input}"));
        }
        Ok(MultiScale { scale, ratio, input })
    }

    /// Returns the side of the network's input in pixels.
    pub fn input(self) -> u32 {
        self.input
    }

    /// Returns the same crops for another input size.
    ///
    /// # Errors
    /// [`Error::Setting`] if the side is not 1 to 4096 pixels.
    pub fn with_input(self, input: u32) -> Result<Self> {
        MultiScale::new(self.scale, self.ratio, input)
    }

    /// Draws a crop with a uniform area share and a log-uniform aspect ratio in their ranges. After
    /// ten draws that do not fit, returns the center of the image at the nearest allowed aspect
    /// ratio.
    ///
    /// # Panics
    /// If the image has no pixels.
    pub fn random_crop(self, image: ImageSize, random: &mut Stream) -> Crop {
        assert!(image.short_side() > 0, "expected an image with pixels");
        let (height, width) = (f64::from(image.height), f64::from(image.width));
        let log_ratio = (libm::logf(self.ratio.0), libm::logf(self.ratio.1));
        for _ in 0..10 {
            let area = height * width * f64::from(random.uniform(self.scale.0, self.scale.1));
            let ratio = libm::exp(f64::from(random.uniform(log_ratio.0, log_ratio.1)));
            let (w, h) = (libm::round(libm::sqrt(area * ratio)), libm::round(libm::sqrt(area / ratio)));
            if w >= 1.0 && h >= 1.0 && w <= width && h <= height {
                let (h, w) = (h as u32, w as u32);
                let top = random.below(image.height - h + 1);
                let left = random.below(image.width - w + 1);
                return Crop { top, left, height: h, width: w };
            }
        }
        let ratio = (width / height).clamp(f64::from(self.ratio.0), f64::from(self.ratio.1));
        let (h, w) = if width / height < ratio {
            (((libm::round(width / ratio)) as u32).max(1), image.width)
        } else {
            (image.height, (libm::round(height * ratio) as u32).clamp(1, image.width))
        };
        Crop { top: (image.height - h) / 2, left: (image.width - w) / 2, height: h, width: w }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Address, Purpose};
    use proptest::prelude::*;

    fn stream(seed: u64) -> Stream {
        Address { seed, ..Address::default() }.stream(Purpose::Crop)
    }

    #[test]
    fn side_scales_with_the_short_side() {
        let share = PatchSpec::new(PatchSide::AreaShare(0.25), 32).unwrap();
        assert_eq!(share.side_in(ImageSize { height: 64, width: 33 }), Ok(17)); // 16.5 rounds away from 0.
        assert_eq!(share.side_in(ImageSize { height: 1, width: 9 }), Ok(1));
        let pixels = PatchSpec::new(PatchSide::Pixels(33), 32).unwrap();
        assert_eq!(
            pixels.side_in(ImageSize { height: 32, width: 64 }),
            Err(Error::PatchTooLarge { patch: 33, height: 32, width: 64 })
        );
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for share in [0.0, -0.1, 1.01, f32::NAN, f32::INFINITY] {
            assert!(PatchSpec::new(PatchSide::AreaShare(share), 32).is_err(), "{share}");
        }
        assert!(PatchSpec::new(PatchSide::Pixels(0), 32).is_err());
        for input in [0, 4097] {
            assert!(PatchSpec::new(PatchSide::Pixels(8), input).is_err());
            assert!(MultiScale::new((0.1, 1.0), (0.75, 1.33), input).is_err());
        }
        for scale in [(0.0, 1.0), (0.5, 0.4), (0.1, 1.1), (f32::NAN, 1.0)] {
            assert!(MultiScale::new(scale, (0.75, 1.33), 32).is_err(), "{scale:?}");
        }
        for ratio in [(0.0, 1.0), (2.0, 1.0), (1.0, f32::INFINITY)] {
            assert!(MultiScale::new((0.1, 1.0), ratio, 32).is_err(), "{ratio:?}");
        }
    }

    #[test]
    fn center_crop_is_centered() {
        let crop = Crop::center(ImageSize { height: 5, width: 10 });
        assert_eq!(crop, Crop { top: 0, left: 2, height: 5, width: 5 });
    }

    #[test]
    fn crop_that_does_not_fit_falls_back_to_center() {
        // Full area at ratios 2 to 3 never fits into a tall image.
        let spec = MultiScale::new((1.0, 1.0), (2.0, 3.0), 8).unwrap();
        let crop = spec.random_crop(ImageSize { height: 40, width: 10 }, &mut stream(1));
        assert_eq!(crop, Crop { top: 17, left: 0, height: 5, width: 10 });
        let spec = MultiScale::new((1.0, 1.0), (0.5, 0.5), 8).unwrap();
        let crop = spec.random_crop(ImageSize { height: 10, width: 40 }, &mut stream(1));
        assert_eq!(crop, Crop { top: 0, left: 17, height: 10, width: 5 });
    }

    #[test]
    fn random_crops_reach_every_corner() {
        let spec = PatchSpec::new(PatchSide::Pixels(3), 8).unwrap();
        let image = ImageSize { height: 4, width: 6 };
        let mut random = stream(3);
        let mut seen = [[0; 4]; 2];
        for _ in 0..800 {
            let crop = spec.random_crop(image, &mut random).unwrap();
            seen[crop.top as usize][crop.left as usize] += 1;
        }
        assert!(seen.iter().flatten().all(|&count| (60..140).contains(&count)), "{seen:?}");
    }

    proptest! {
        #[test]
        fn random_crops_lie_inside(seed: u64, height in 1u32..300, width in 1u32..300, share in 0.001f32..=1.0, low in 0.01f32..1.0) {
            let image = ImageSize { height, width };
            let crop = PatchSpec::new(PatchSide::AreaShare(share), 8).unwrap().random_crop(image, &mut stream(seed)).unwrap();
            prop_assert!(crop.fits(image) && crop.height == crop.width);
            let crop = MultiScale::new((low, 1.0), (0.3, 4.0), 8).unwrap().random_crop(image, &mut stream(seed));
            prop_assert!(crop.fits(image));
        }
    }
}
