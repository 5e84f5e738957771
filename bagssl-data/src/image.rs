//! Decoded images, and the limits that apply before one is decoded.

use std::io::Cursor;

pub use bagssl_core::colour::Colour;
use bagssl_core::patch::{Crop, ImageSize};
use image::{ImageReader, Limits};

use crate::error::{Error, Result};

/// The longest side of an image, in pixels.
pub const LONGEST_SIDE: u32 = 16_384;
/// The most bytes that decoding one image may take.
pub const MOST_BYTES: u64 = 512 << 20;

/// An image with 8 bits for each of red, green and blue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    size: ImageSize,
    rgb: Vec<u8>,
}

impl Image {
    /// Joins pixels, `[height, width, channel]`, to their size.
    ///
    /// # Panics
    /// If the lengths do not fit, or there is no pixel.
    pub fn new(size: ImageSize, rgb: Vec<u8>) -> Self {
        assert!(size.short_side() > 0, "an image has pixels");
        assert_eq!(rgb.len(), size.height as usize * size.width as usize * 3, "bytes of {size:?}");
        Image { size, rgb }
    }

    /// Decodes a JPEG, PNG, WebP, BMP or GIF (its first frame). Transparency is dropped; EXIF's orientation is not
    /// applied, as in torchvision.
    ///
    /// # Errors
    /// [`Error::Image`] under that name if it cannot be decoded, has no pixels, or is larger than [`LONGEST_SIDE`] or
    /// [`MOST_BYTES`].
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let refuse = |expected: String, got: String| Error::Image { name: name.into(), expected, got };
        let failed = |error: image::ImageError| {
            refuse("a JPEG, PNG, WebP, BMP or GIF image".into(), format!("{} bytes: {}", bytes.len(), one_line(&error)))
        };
        let mut reader =
            ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| failed(error.into()))?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(LONGEST_SIDE);
        limits.max_image_height = Some(LONGEST_SIDE);
        limits.max_alloc = Some(MOST_BYTES);
        reader.limits(limits);
        let rgb = reader.decode().map_err(failed)?.into_rgb8();
        let size = ImageSize { height: rgb.height(), width: rgb.width() };
        if size.short_side() == 0 {
            return Err(refuse("at least one pixel".into(), format!("{}x{}", size.height, size.width)));
        }
        Ok(Image { size, rgb: rgb.into_raw() })
    }

    /// Rows and columns.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// The pixels, `[height, width, channel]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The image in grey, if that is asked for.
    ///
    /// # Source
    /// Pillow's conversion to "L": ITU-R 601-2 luma in 16-bit fixed point.
    pub fn set_colour(&mut self, colour: Colour) {
        if colour == Colour::Grey {
            for pixel in self.rgb.as_chunks_mut::<3>().0 {
                *pixel = [luma(*pixel); 3];
            }
        }
    }

    /// The image with its longer side at most `longest` pixels, for showing; as it is if it is smaller.
    #[must_use]
    pub fn shrunk(&self, longest: u32) -> Self {
        let ImageSize { height, width } = self.size;
        if height.max(width) <= longest {
            return self.clone();
        }
        let scale = |side: u32| (side * longest / height.max(width)).max(1);
        let whole = image::RgbImage::from_raw(width, height, self.rgb.clone()).expect("an image is whole");
        let small = image::imageops::thumbnail(&whole, scale(width), scale(height));
        Image { size: ImageSize { height: small.height(), width: small.width() }, rgb: small.into_raw() }
    }

    /// The pixels, to be changed.
    pub(crate) fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// A part of the image.
    ///
    /// # Panics
    /// If it does not lie inside.
    #[must_use]
    pub fn crop(&self, crop: Crop) -> Self {
        assert!(crop.fits(self.size), "{crop:?} of {:?}", self.size);
        let row_bytes = self.size.width as usize * 3;
        let (left, length) = (crop.left as usize * 3, crop.width as usize * 3);
        let rows = self.rgb.chunks_exact(row_bytes).skip(crop.top as usize).take(crop.height as usize);
        let rgb = rows.flat_map(|row| &row[left..left + length]).copied().collect();
        Image { size: ImageSize { height: crop.height, width: crop.width }, rgb }
    }
}

/// The brightness of a pixel, as Pillow rounds it.
pub(crate) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

fn one_line(error: &image::ImageError) -> String {
    error.to_string().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_takes_rows_then_columns() {
        // Two rows and three columns; the red value counts them.
        let rgb = (0..6).flat_map(|pixel| [pixel, 100, 200]).collect();
        let image = Image::new(ImageSize { height: 2, width: 3 }, rgb);
        let part = image.crop(Crop { top: 0, left: 1, height: 2, width: 2 });
        let reds: Vec<u8> = part.rgb().iter().step_by(3).copied().collect();
        assert_eq!(reds, [1, 2, 4, 5]);
    }

    /// Pillow 13: `Image.new("RGB", (1, 1), colour).convert("L")`.
    #[test]
    fn grey_is_that_of_pillow() {
        for (colour, grey) in [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([10, 200, 90], 131)] {
            assert_eq!(luma(colour), grey, "{colour:?}");
        }
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn height_and_width_are_not_swapped() {
        let image = Image::decode(&png(5, 3), "x").unwrap();
        assert_eq!(image.size(), ImageSize { height: 3, width: 5 });
        assert_eq!(image.rgb()[3 * 4..][..3], [4, 0, 7]);
        assert_eq!(image.rgb()[3 * 5..][..3], [0, 1, 7]);
    }

    #[test]
    fn what_cannot_be_decoded_is_named_in_a_line() {
        let refused = |bytes: &[u8]| {
            let error = Image::decode(bytes, "train/cat/1.png").unwrap_err().to_string();
            assert!(error.starts_with("train/cat/1.png: expected") && !error.contains('\n'), "{error}");
        };
        refused(b"");
        refused(b"no image at all");
        let whole = png(40, 30);
        refused(&whole[..whole.len() / 2]);
        // The header of a 60,000 x 60,000 image: refused before memory is taken.
        let mut bomb = whole;
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        refused(&bomb);
    }
}
