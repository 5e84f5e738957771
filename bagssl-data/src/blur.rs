//! Gaussian blur, as Pillow makes it: a box blur in each direction, three times over, with a box whose ends count in
//! part.
//!
//! # Source
//! Gwosdek, Grewenig, Bruhn, Weickert, *Theoretical foundations of Gaussian convolution by extended box filtering*, SSVM
//! 2011. The weights are in 24-bit fixed point and each pass is rounded to 8 bits, as in Pillow's `GaussianBlur`.

use crate::image::Image;

type Pixel = [u8; 3];

const PASSES: u32 = 3;
const ONE: u32 = 1 << 24;

/// Blurs with a deviation of `sigma` pixels. Beyond an edge, its pixels go on.
pub(crate) fn blur(patch: &mut Image, sigma: f32) {
    let shape = BoxShape::of_gaussian(sigma);
    let (height, width) = (patch.size().height as usize, patch.size().width as usize);
    let pixels = patch.rgb_mut().as_chunks_mut::<3>().0;
    let mut line = Vec::with_capacity(height.max(width));
    for _ in 0..PASSES {
        for row in pixels.chunks_exact_mut(width) {
            line.clear();
            line.extend_from_slice(row);
            shape.blur(&line, row.iter_mut());
        }
    }
    for column in 0..width {
        for _ in 0..PASSES {
            line.clear();
            line.extend(pixels[column..].iter().step_by(width));
            shape.blur(&line, pixels[column..].iter_mut().step_by(width));
        }
    }
}

/// A box of `2 * radius + 1` pixels of weight `inner`, and one more at each end of weight `end`, in parts of [`ONE`].
struct BoxShape {
    radius: usize,
    inner: u32,
    end: u32,
}

impl BoxShape {
    /// The box which, applied [`PASSES`] times, has the variance of a Gaussian (equations 7, 11 and 14).
    fn of_gaussian(sigma: f32) -> Self {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let radius = ((length - 1.0) / 2.0).floor();
        let part = (2.0 * radius + 1.0) * (radius * (radius + 1.0) - 3.0 * variance)
            / (6.0 * (variance - (radius + 1.0) * (radius + 1.0)));
        let inner = (ONE as f32 / (2.0 * (radius + part) + 1.0)) as u32;
        let radius = radius as usize;
        BoxShape { radius, inner, end: (ONE - (2 * radius as u32 + 1) * inner) / 2 }
    }

    /// One pass over a line.
    fn blur<'a>(&self, line: &[Pixel], blurred: impl Iterator<Item = &'a mut Pixel>) {
        let last = line.len() - 1;
        let at = |place: usize| line[place.saturating_sub(self.radius + 1).min(last)].map(u32::from);
        // `at(p)` is the pixel at `p - radius - 1`; the first box lies around the pixel 0.
        let mut sum = [0; 3];
        for place in 1..=2 * self.radius + 1 {
            sum = plus(sum, at(place));
        }
        for (place, value) in blurred.enumerate() {
            let (before, after) = (at(place), at(place + 2 * self.radius + 2));
            for channel in 0..3 {
                let ends = before[channel] + after[channel];
                value[channel] = ((sum[channel] * self.inner + ends * self.end + ONE / 2) / ONE) as u8;
            }
            sum = minus(plus(sum, after), at(place + 1));
        }
    }
}

fn plus(a: [u32; 3], b: [u32; 3]) -> [u32; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn minus(a: [u32; 3], b: [u32; 3]) -> [u32; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use bagssl_core::patch::ImageSize;
    use proptest::prelude::*;

    #[test]
    fn a_blur_is_that_of_pillow() {
        let (values, image) = reference::pillow();
        for case in values["blur"].as_array().unwrap() {
            let sigma = case["sigma"].as_f64().unwrap() as f32;
            let mut blurred = image.clone();
            blur(&mut blurred, sigma);
            reference::within_a_level(&format!("sigma {sigma}"), blurred.rgb(), &case["rgb"]);
        }
    }

    /// A deviation of the square root of 2 is three boxes of 3 pixels: 1, 3, 6, 7, 6, 3, 1 of 27 parts. Down the line
    /// nothing changes.
    #[test]
    fn three_boxes_by_hand() {
        let mut rgb = vec![0; 5 * 9 * 3];
        (0..5).for_each(|row| rgb[(row * 9 + 4) * 3 + 1] = 54);
        let mut image = Image::new(ImageSize { height: 5, width: 9 }, rgb);
        blur(&mut image, 2_f32.sqrt());
        for row in image.rgb().chunks(9 * 3) {
            let greens: Vec<u8> = row.iter().skip(1).step_by(3).copied().collect();
            assert_eq!(greens, [0, 2, 6, 12, 14, 12, 6, 2, 0]);
            assert!(row.iter().step_by(3).all(|&red| red == 0));
        }
    }

    proptest! {
        #[test]
        fn one_colour_stays(colour: [u8; 3], height in 1u32..12, width in 1u32..12, sigma in 0.01f32..100.0) {
            let rgb = colour.repeat((height * width) as usize);
            let mut image = Image::new(ImageSize { height, width }, rgb.clone());
            blur(&mut image, sigma);
            prop_assert_eq!(image.rgb(), rgb);
        }
    }
}
