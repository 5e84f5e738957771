//! Pictures that are put together, and written as PNG.

use anyhow::Result;
use bagssl_core::patch::ImageSize;
use bagssl_data::Image;

/// Pixels between two images.
pub(crate) const GAP: u32 = 4;

/// Images next to each other, their tops aligned, white around them.
pub(crate) fn beside(images: &[&Image]) -> Image {
    let mut left = 0;
    let place = |image: &&Image| {
        let at = (0, left);
        left += image.size().width + GAP;
        at
    };
    let places: Vec<(u32, u32)> = images.iter().map(place).collect();
    placed(images, &places, 1)
}

/// Images below each other, their left sides aligned, white around them.
pub(crate) fn below(images: &[&Image]) -> Image {
    let mut top = 0;
    let place = |image: &&Image| {
        let at = (top, 0);
        top += image.size().height + GAP;
        at
    };
    let places: Vec<(u32, u32)> = images.iter().map(place).collect();
    placed(images, &places, 1)
}

/// Each pixel as a square of so many.
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

/// An image with white to the right, of at least that width.
pub(crate) fn widened(image: &Image, width: u32) -> Image {
    placed(&[image], &[(0, 0)], width)
}

/// Images, each with its top and left, on white that is just large enough, and at least that wide.
fn placed(images: &[&Image], places: &[(u32, u32)], least_width: u32) -> Image {
    let ends = images.iter().zip(places);
    let height = ends.clone().map(|(image, (top, _))| top + image.size().height).max().unwrap_or(1);
    let width = ends.clone().map(|(image, (_, left))| left + image.size().width).max().unwrap_or(1).max(least_width);
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

/// A picture as a file.
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

    /// An image whose reds count its pixels from a number on.
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
        let row = beside(&[&one, &two]);
        assert_eq!(row.size(), ImageSize { height: 2, width: 2 + GAP + 1 });
        assert_eq!(reds(&row), [10, 11, 255, 255, 255, 255, 20, 255, 255, 255, 255, 255, 255, 21]);
        let column = below(&[&one, &two]);
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
