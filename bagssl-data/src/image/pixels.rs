//! A decoded image.

use bagssl_core::color::Color;
use bagssl_core::patch::{Crop, ImageSize};

/// An RGB image with 8 bits per channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    size: ImageSize,
    rgb: Vec<u8>,
}

impl Image {
    /// Creates an image from its size and its pixels, `[height, width, channel]`.
    ///
    /// # Panics
    /// If the length of `rgb` does not match the size, or the image has no pixels.
    pub fn new(size: ImageSize, rgb: Vec<u8>) -> Self {
        assert!(size.short_side() > 0, "an image has pixels");
        assert_eq!(rgb.len(), size.height as usize * size.width as usize * 3, "bytes of {size:?}");
        Image { size, rgb }
    }

    /// Creates a black image.
    pub(crate) fn black(size: ImageSize) -> Self {
        Image::new(size, vec![0; size.height as usize * size.width as usize * 3])
    }

    /// The height and width.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// The pixels, `[height, width, channel]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Returns a 32-bit hash of the size and the pixels (64-bit FNV-1a over 8 bytes at a time,
    /// folded to 32 bits).
    pub fn fingerprint(&self) -> u32 {
        let add = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3);
        let (words, rest) = self.rgb.as_chunks::<8>();
        let size = u64::from(self.size.height) << 32 | u64::from(self.size.width);
        let hash =
            words.iter().fold(add(0xcbf2_9ce4_8422_2325, size), |hash, word| add(hash, u64::from_le_bytes(*word)));
        let hash = rest.iter().fold(hash, |hash, &byte| add(hash, u64::from(byte)));
        (hash ^ (hash >> 32)) as u32
    }

    /// Converts the image to grey if `color` is [`Color::Grey`]. It keeps three channels.
    ///
    /// # Source
    /// Pillow's conversion to "L": ITU-R 601-2 luma in 16-bit fixed point.
    pub fn set_color(&mut self, color: Color) {
        if color == Color::Grey {
            for pixel in self.rgb.as_chunks_mut::<3>().0 {
                *pixel = [luma(*pixel); 3];
            }
        }
    }

    /// Returns the image, downscaled so that its longer side has at most `longest` pixels. For
    /// display.
    #[must_use]
    pub fn shrink_to(&self, longest: u32) -> Self {
        let ImageSize { height, width } = self.size;
        if height.max(width) <= longest {
            return self.clone();
        }
        let scale = |side: u32| (side * longest / height.max(width)).max(1);
        let whole = image::RgbImage::from_raw(width, height, self.rgb.clone()).expect("an image is whole");
        let small = image::imageops::thumbnail(&whole, scale(width), scale(height));
        Image { size: ImageSize { height: small.height(), width: small.width() }, rgb: small.into_raw() }
    }

    /// The pixels, mutable.
    pub(crate) fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// Returns a part of the image.
    ///
    /// # Panics
    /// If the crop is not inside the image.
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

/// Returns the luma of a pixel, rounded as Pillow does.
pub(crate) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;
    use proptest::prelude::*;
    use std::io::Cursor;

    #[test]
    fn a_crop_takes_rows_then_columns() {
        // Two rows and three columns. The red value is the pixel's index.
        let rgb = (0..6).flat_map(|pixel| [pixel, 100, 200]).collect();
        let image = Image::new(ImageSize { height: 2, width: 3 }, rgb);
        let part = image.crop(Crop { top: 0, left: 1, height: 2, width: 2 });
        let reds: Vec<u8> = part.rgb().iter().step_by(3).copied().collect();
        assert_eq!(reds, [1, 2, 4, 5]);
    }

    /// The expected values are from Pillow 13: `Image.new("RGB", (1, 1), color).convert("L")`.
    #[test]
    fn grey_is_that_of_pillow() {
        for (color, grey) in [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([10, 200, 90], 131)] {
            assert_eq!(luma(color), grey, "{color:?}");
        }
    }

    #[test]
    fn a_fingerprint_tells_images_apart() {
        let image = |height, width, first| {
            let rgb = (0..height * width * 3).map(|i| if i == 0 { first } else { (i * 7) as u8 }).collect();
            Image::new(ImageSize { height, width }, rgb).fingerprint()
        };
        assert_eq!(image(4, 6, 0), image(4, 6, 0));
        let all = [image(4, 6, 0), image(6, 4, 0), image(4, 6, 1), image(3, 8, 0), image(1, 1, 0)];
        assert!((0..5).all(|a| (0..a).all(|b| all[a] != all[b])), "{all:?}");
    }

    const FORMATS: [ImageFormat; 5] =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif];

    fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 * 5, y as u8 * 8, 7]));
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    #[track_caller]
    fn refused(bytes: &[u8], words: &str) {
        let error = Image::decode(bytes, "train/cat/1.png").unwrap_err().to_string();
        assert!(error.starts_with("train/cat/1.png: expected") && !error.contains('\n'), "{error}");
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn height_and_width_are_not_swapped() {
        for format in FORMATS {
            let image = Image::decode(&encoded(35, 23, format), "x").unwrap();
            assert_eq!(image.size(), ImageSize { height: 23, width: 35 });
            // Color gradients to the right and downwards, which JPEG and GIF preserve
            // approximately.
            let near = |at: usize, expected: [u8; 3]| {
                image.rgb()[at * 3..][..3].iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 24)
            };
            assert!(near(34, [170, 0, 7]) && near(35 * 22, [0, 176, 7]), "{format:?}");
        }
    }

    #[test]
    fn truncated_images_are_refused() {
        for format in FORMATS {
            let whole = encoded(40, 30, format);
            for eighths in 0..8 {
                refused(&whole[..whole.len() * eighths / 8], "bytes");
            }
        }
        let jpeg = encoded(40, 30, ImageFormat::Jpeg);
        refused(&jpeg[..jpeg.len() - 2], "expected a complete JPEG, got");
    }

    #[test]
    fn foreign_bytes_are_refused() {
        refused(b"no image at all", "JPEG, PNG, WebP, BMP or GIF");
        refused(b"II*\0 a TIFF, which is not built in", "got 34 bytes");
    }

    /// Headers with excessive sizes are refused before memory is allocated. So are headers without
    /// a size.
    #[test]
    fn absurd_sizes_are_refused() {
        let sized = |width: u32, height: u32| {
            let mut bytes = encoded(40, 30, ImageFormat::Png);
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let mut checksum = flate2::Crc::new();
            checksum.update(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
            bytes
        };
        assert_eq!(sized(40, 30), encoded(40, 30, ImageFormat::Png), "the checksum is a PNG's");
        refused(&sized(16_385, 30), "expected an image of at most 16384 pixels a side, got 30x16385");
        refused(&sized(40, 60_000), "expected an image of at most 16384 pixels a side, got 60000x40");
        refused(&sized(16_384, 16_384), "at most 512 MiB of memory to decode, got 768 MiB");
        refused(&sized(0, 30), "got");
        refused(&sized(40, 0), "got");
    }

    #[test]
    fn a_shrunk_image_keeps_its_shape() {
        let image = Image::black(ImageSize { height: 30, width: 90 });
        assert_eq!(image.shrink_to(45).size(), ImageSize { height: 15, width: 45 });
        assert_eq!(image.shrink_to(90), image);
        assert_eq!(Image::black(ImageSize { height: 1, width: 90 }).shrink_to(9).size().height, 1);
    }

    proptest! {
        #[test]
        fn damaged_images_are_refused_or_decoded(format in 0..FORMATS.len(), damage in prop::collection::vec((0usize..2000, any::<u8>()), 1..6)) {
            let mut bytes = encoded(13, 9, FORMATS[format]);
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(image) = Image::decode(&bytes, "x") {
                let size = image.size();
                prop_assert_eq!(image.rgb().len(), size.height as usize * size.width as usize * 3);
            }
        }
    }
}
