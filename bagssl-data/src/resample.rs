//! Patches of one size, cut out of images of any.

use bagssl_core::normalise::Normalisation;
use bagssl_core::patch::{Crop, Filter, ImageSize};
use fast_image_resize::images::{Image as Buffer, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::image::Image;

/// Cuts and resamples. It keeps its working memory, so one is made for each thread.
#[derive(Debug)]
pub struct Resampler {
    resizer: Resizer,
    filter: Filter,
}

impl Resampler {
    /// A resampler with that filter. Where it shrinks, the filter widens, as Pillow's and torchvision's do.
    pub fn new(filter: Filter) -> Self {
        Resampler { resizer: Resizer::new(), filter }
    }

    /// A crop of an image as a square patch of `side` pixels.
    ///
    /// # Panics
    /// If the crop does not lie inside the image, or `side` is 0.
    pub fn patch(&mut self, image: &Image, crop: Crop, side: u32) -> Image {
        assert!(crop.fits(image.size()) && side > 0, "{crop:?} of {:?} to {side} pixels", image.size());
        // Cut first: a filter that looked beyond the crop would mix in what is not part of the patch.
        let part = image.crop(crop);
        if crop.height == side && crop.width == side {
            return part;
        }
        let source = ImageRef::new(crop.width, crop.height, part.rgb(), PixelType::U8x3).expect("a crop is whole");
        let mut patch = Buffer::new(side, side, PixelType::U8x3);
        let filter = match self.filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        self.resizer.resize(&source, &mut patch, &options).expect("both have pixels of the same kind");
        Image::new(ImageSize { height: side, width: side }, patch.into_vec())
    }
}

impl Image {
    /// Appends the pixels as values for a network, `[channel, height, width]`.
    pub fn normalised(&self, normalisation: Normalisation, values: &mut Vec<f32>) {
        for channel in 0..3 {
            let table: [f32; 256] = std::array::from_fn(|level| normalisation.apply(channel, level as f32 / 255.0));
            values.extend(self.rgb().iter().skip(channel).step_by(3).map(|&level| table[level as usize]));
        }
    }
}
