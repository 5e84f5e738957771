//! Patches of one size, cut out of images of any.

use bagssl_core::patch::{Crop, Filter, ImageSize};
use fast_image_resize::images::{CroppedImage, Image as Buffer, ImageRef};
use fast_image_resize::{FilterType, IntoImageView, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::image::Image;

/// Cuts and resamples. It keeps its working memory, so one is made for each thread.
///
/// Where it shrinks, the filter widens, as Pillow's and torchvision's do. Columns are resampled first, rows second, with
/// 8 bits between the two, as Pillow does; the results agree with Pillow's to one grey level.
#[derive(Debug)]
pub struct Resampler {
    resizer: Resizer,
    options: ResizeOptions,
    narrowed: Vec<u8>,
}

impl Resampler {
    /// A resampler with that filter.
    pub fn new(filter: Filter) -> Self {
        let filter = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        Resampler { resizer: Resizer::new(), options, narrowed: Vec::new() }
    }

    /// A crop of an image as a square patch of `side` pixels. Pixels outside the crop do not count.
    ///
    /// # Panics
    /// If the crop does not lie inside the image, or `side` is 0.
    #[must_use]
    pub fn patch(&mut self, image: &Image, crop: Crop, side: u32) -> Image {
        let mut patch = Image::black(ImageSize { height: side, width: side });
        self.fill(image, crop, &mut patch);
        patch
    }

    /// Fills a patch, of any size, with a crop of an image. Pixels outside the crop do not count.
    ///
    /// # Panics
    /// If the crop does not lie inside the image.
    pub fn fill(&mut self, image: &Image, crop: Crop, patch: &mut Image) {
        assert!(crop.fits(image.size()), "{crop:?} of {:?}", image.size());
        let ImageSize { height, width } = image.size();
        let whole = ImageRef::new(width, height, image.rgb(), PixelType::U8x3).expect("an image has all its pixels");
        let part = CroppedImage::new(&whole, crop.left, crop.top, crop.width, crop.height).expect("it lies inside");
        let ImageSize { height, width } = patch.size();
        self.narrowed.resize(crop.height as usize * width as usize * 3, 0);
        let mut narrowed = buffer(width, crop.height, &mut self.narrowed);
        resize(&mut self.resizer, &part, &mut narrowed, &self.options);
        resize(&mut self.resizer, &narrowed, &mut buffer(width, height, patch.rgb_mut()), &self.options);
    }
}

fn buffer(width: u32, height: u32, bytes: &mut [u8]) -> Buffer<'_> {
    Buffer::from_slice_u8(width, height, bytes, PixelType::U8x3).expect("as many bytes as it has pixels")
}

fn resize(resizer: &mut Resizer, source: &impl IntoImageView, target: &mut Buffer<'_>, options: &ResizeOptions) {
    resizer.resize(source, target, options).expect("both have pixels of the same kind");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use proptest::prelude::*;

    #[test]
    fn resampling_is_that_of_pillow() {
        let (values, image) = reference::pillow();
        for case in values["resample"].as_array().unwrap() {
            let filter = if case["filter"] == "bilinear" { Filter::Bilinear } else { Filter::Bicubic };
            let [top, left, height, width] = [0, 1, 2, 3].map(|place| case["crop"][place].as_u64().unwrap() as u32);
            let crop = Crop { top, left, height, width };
            let patch = Resampler::new(filter).patch(&image, crop, 8);
            reference::within_a_level(&format!("{filter:?} {crop:?}"), patch.rgb(), &case["rgb"]);
        }
    }

    #[test]
    fn a_crop_of_the_right_size_is_only_copied() {
        let (_, image) = reference::pillow();
        let crop = Crop { top: 3, left: 7, height: 9, width: 9 };
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            assert_eq!(Resampler::new(filter).patch(&image, crop, 9), image.crop(crop));
        }
    }

    proptest! {
        /// Working memory that is left from one patch does not show in the next, and one colour stays that colour.
        #[test]
        fn a_resampler_has_no_memory(sizes in prop::collection::vec((1u32..40, 1u32..40, 1u32..20), 1..6), level: u8) {
            let mut resampler = Resampler::new(Filter::Bilinear);
            for (height, width, side) in sizes {
                let size = ImageSize { height, width };
                let rgb = (0..height * width).flat_map(|pixel| [level, (pixel * 7) as u8, (pixel / width) as u8]);
                let image = Image::new(size, rgb.collect());
                let patch = resampler.patch(&image, Crop::whole(size), side);
                prop_assert!(patch.rgb().iter().step_by(3).all(|&red| red == level));
                prop_assert_eq!(patch, Resampler::new(Filter::Bilinear).patch(&image, Crop::whole(size), side));
            }
        }
    }
}
