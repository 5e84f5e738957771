//! Conversion of pixels to the values of a network's input.

use bagssl_core::normalize::Normalization;

use crate::image::Image;

/// A lookup table of normalized values: one for each channel and each of the 256 levels.
#[derive(Debug, Clone, PartialEq)]
pub struct ToTensor([[f32; 256]; 3]);

impl ToTensor {
    /// Creates the table of `(level / 255 - mean) / std`.
    pub fn new(normalization: Normalization) -> Self {
        let value = |channel, level| normalization.apply(channel, level as f32 / 255.0);
        ToTensor([0, 1, 2].map(|channel| std::array::from_fn(|level| value(channel, level))))
    }

    /// Appends an image's values, `[channel, height, width]`.
    pub fn append(&self, image: &Image, values: &mut Vec<f32>) {
        let pixels = image.rgb().as_chunks::<3>().0;
        for (channel, table) in self.0.iter().enumerate() {
            values.extend(pixels.iter().map(|pixel| table[usize::from(pixel[channel])]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::patch::ImageSize;

    #[test]
    fn channel_then_row_then_column() {
        // One row of two pixels.
        let image = Image::new(ImageSize { height: 1, width: 2 }, vec![0, 51, 255, 255, 0, 102]);
        let levels = ToTensor::new(Normalization::new([0.0, 0.0, 1.0], [1.0, 2.0, 0.5]).unwrap());
        let mut values = vec![7.0];
        levels.append(&image, &mut values);
        assert_eq!(values, [7.0, 0.0, 1.0, 0.1, 0.0, 0.0, -1.2]);
    }
}
