//! Composes pictures and encodes them as PNG.

use anyhow::Result;
use bagssl_core::patch::ImageSize;
use bagssl_data::Image;

/// Pixels between two images.
pub(crate) const GAP: u32 = 4;

/// Places images side by side, aligned at the top, on white.
pub(crate) fn hstack(images: &[&Image]) -> Image {
    let mut left = 0;
    let place = |image: &&Image| {
        let at = (0, left);
        left += image.size().width + GAP;
        at
    };
    let places: Vec<(u32, u32)> = images.iter().map(place).collect();
    compose(images, &places, 1)
}

/// Stacks images vertically, aligned at the left, on white.
pub(crate) fn vstack(images: &[&Image]) -> Image {
    let mut top = 0;
    let place = |image: &&Image| {
        let at = (top, 0);
        top += image.size().height + GAP;
        at
    };
    let places: Vec<(u32, u32)> = images.iter().map(place).collect();
    compose(images, &places, 1)
}

/// Enlarges each pixel to a square of `times` x `times` pixels.
pub(crate) fn enlarged(image: &Image, times: u32) -> Image {
    let size = image.size();
    let pixels = image.rgb().as_chunks::<3>().0;
    let mut rgb = Vec::with_capacity(image.rgb().len() * (times * times) as usize);
    for row in pixels.chunks(size.width as usize) {
        for _ in 0..times {
            rgb.extend(row.iter().flat_map(|pixel| std::iter::repeat_n(*pixel, times as usize)).flatten());
        }
    }
    Image::new(ImageSize { height: size.height * times, width: size.width * times }, rgb)
}

/// Extends an image to the right with white, to at least `width` pixels.
pub(crate) fn widened(image: &Image, width: u32) -> Image {
    compose(&[image], &[(0, 0)], width)
}

/// Places images at their `(top, left)` positions on a white canvas that fits them, at least
/// `min_width` wide.
fn compose(images: &[&Image], places: &[(u32, u32)], min_width: u32) -> Image {
    let ends = images.iter().zip(places);
    let height = ends.clone().map(|(image, (top, _))| top + image.size().height).max().unwrap_or(1);
    let width = ends.clone().map(|(image, (_, left))| left + image.size().width).max().unwrap_or(1).max(min_width);
    let mut rgb = vec![255; height as usize * width as usize * 3];
    for (image, (top, left)) in ends {
        let row_bytes = image.size().width as usize * 3;
        for (row, from) in image.rgb().chunks(row_bytes).enumerate() {
            let to = ((*top as usize + row) * width as usize + *left as usize) * 3;
            rgb[to..to + row_bytes].copy_from_slice(from);
        }
    }
    Image::new(ImageSize { height, width }, rgb)
}

/// Encodes a picture as PNG.
pub(crate) fn png(picture: &Image) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = picture.size();
    let mut encoder = png::Encoder::new(&mut bytes, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(picture.rgb())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an image whose red channel counts its pixels from `first`.
    fn counted(height: u32, width: u32, first: u8) -> Image {
        let rgb = (0..(height * width) as u8).flat_map(|pixel| [first + pixel, 0, 0]).collect();
        Image::new(ImageSize { height, width }, rgb)
    }

    fn reds(image: &Image) -> Vec<u8> {
        image.rgb().iter().step_by(3).copied().collect()
    }

    #[test]
    fn two_images_beside_and_below_each_other() {
        let (one, two) = (counted(1, 2, 10), counted(2, 1, 20));
        let row = hstack(&[&one, &two]);
        assert_eq!(row.size(), ImageSize { height: 2, width: 2 + GAP + 1 });
        assert_eq!(reds(&row), [10, 11, 255, 255, 255, 255, 20, 255, 255, 255, 255, 255, 255, 21]);
        let column = vstack(&[&one, &two]);
        assert_eq!(column.size(), ImageSize { height: 1 + GAP + 2, width: 2 });
        assert_eq!((reds(&column)[..2].to_vec(), reds(&column)[10..].to_vec()), (vec![10, 11], vec![20, 255, 21, 255]));
        let wide = widened(&two, 3);
        assert_eq!((wide.size(), reds(&wide)), (ImageSize { height: 2, width: 3 }, vec![20, 255, 255, 21, 255, 255]));
    }

    #[test]
    fn an_enlarged_image_has_squares() {
        let twice = enlarged(&counted(1, 2, 7), 2);
        assert_eq!((twice.size(), reds(&twice)), (ImageSize { height: 2, width: 4 }, vec![7, 7, 8, 8, 7, 7, 8, 8]));
    }
}
