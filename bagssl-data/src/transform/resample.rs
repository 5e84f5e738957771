//! Crops of images, resampled to patches of a fixed size.

use bagssl_core::patch::{Crop, Filter, ImageSize};
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::image::Image;

/// Crops and resamples patches. It owns its working memory, so each thread needs its own resampler.
///
/// When it downscales, it antialiases like Pillow and torchvision: the filter support grows with
/// the scale. Like Pillow, it resamples horizontally first and vertically second, rounded to 8 bits
/// in between. The results differ from Pillow's by at most one level.
#[derive(Debug)]
pub struct Resampler {
    resizer: Resizer,
    options: ResizeOptions,
    narrowed: Vec<u8>,
}

impl Resampler {
    /// Creates a resampler with a filter.
    pub fn new(filter: Filter) -> Self {
        let filter = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        Resampler { resizer: Resizer::new(), options, narrowed: Vec::new() }
    }

    /// Returns a crop of an image, resampled to a square patch of `side` pixels. Pixels outside of
    /// the crop have no influence.
    ///
    /// # Panics
    /// If the crop is not inside the image, or `side` is 0.
    #[must_use]
    pub fn patch(&mut self, image: &Image, crop: Crop, side: u32) -> Image {
        let mut patch = Image::black(ImageSize { height: side, width: side });
        self.fill(image, crop, &mut patch);
        patch
    }

    /// Resamples a crop of an image into a patch of any size. Pixels outside of the crop have no
    /// influence.
    ///
    /// # Panics
    /// If the crop is not inside the image.
    pub fn fill(&mut self, image: &Image, crop: Crop, patch: &mut Image) {
        assert!(crop.fits(image.size()), "{crop:?} of {:?}", image.size());
        let target = patch.size();
        let narrowed = ImageSize { height: crop.height, width: target.width };
        self.narrowed.resize(narrowed.height as usize * narrowed.width as usize * 3, 0);
        let Resampler { resizer, options, narrowed: between } = self;
        resize(resizer, options, (image.rgb(), image.size(), crop), (between, narrowed));
        resize(resizer, options, (between, narrowed, Crop::whole(narrowed)), (patch.rgb_mut(), target));
    }
}

/// Resamples a crop. The pixel type is explicit: otherwise the compiler would instantiate the code
/// for every pixel type, which takes minutes.
fn resize(
    resizer: &mut Resizer,
    options: &ResizeOptions,
    (source, size, crop): (&[u8], ImageSize, Crop),
    (target, into): (&mut [u8], ImageSize),
) {
    let all = "as many bytes as there are pixels";
    let source = TypedImageRef::<U8x3>::from_buffer(size.width, size.height, source).expect(all);
    let source = TypedCroppedImage::from_ref(&source, crop.left, crop.top, crop.width, crop.height);
    let mut target = TypedImage::<U8x3>::from_buffer(into.width, into.height, target).expect(all);
    resizer
        .resize_typed(&source.expect("it lies inside"), &mut target, options)
        .expect("no crop is set in the options");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::reference;
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
        /// Working memory from an earlier patch does not affect later ones, and an image of one
        /// color keeps its color.
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
