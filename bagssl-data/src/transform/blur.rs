//! Gaussian blur as in Pillow: three box blurs in each direction. The end pixels of the box have
//! fractional weights.
//!
//! # Source
//! Gwosdek, Grewenig, Bruhn, Weickert, *Theoretical foundations of Gaussian convolution by extended
//! box filtering*, SSVM 2011. The weights are in 24-bit fixed point and each pass is rounded to 8
//! bits, as in Pillow's `GaussianBlur`.

use crate::image::Image;

const PASSES: u32 = 3;
const ONE: u32 = 1 << 24;

/// Blurs with a standard deviation of `sigma` pixels. The edge pixels are repeated beyond the
/// edges.
///
/// Both directions are blurred down the columns, with the values of a row side by side, so that the
/// compiler can vectorize the loop. For the horizontal direction, the image is transposed first.
pub(crate) fn blur(patch: &mut Image, sigma: f32) {
    let shape = BoxShape::of_gaussian(sigma);
    let (height, width) = (patch.size().height as usize, patch.size().width as usize);
    let mut columns = vec![0; height * width * 3];
    transpose(patch.rgb(), &mut columns, width);
    let columns = shape.blur(columns, height * 3);
    let rows = patch.rgb_mut();
    transpose(&columns, rows, height);
    rows.copy_from_slice(&shape.blur(rows.to_vec(), width * 3));
}

/// Transposes an image with rows of `width` pixels.
fn transpose(from: &[u8], to: &mut [u8], width: usize) {
    let height = from.len() / 3 / width;
    let to = to.as_chunks_mut::<3>().0;
    for (row, pixels) in from.as_chunks::<3>().0.chunks_exact(width).enumerate() {
        for (column, pixel) in pixels.iter().enumerate() {
            to[column * height + row] = *pixel;
        }
    }
}

/// A box of `2 * radius + 1` pixels with weight `inner`, and one more pixel at each end with weight
/// `end`. The weights are in units of 1 / [`ONE`].
struct BoxShape {
    radius: usize,
    inner: u32,
    end: u32,
}

impl BoxShape {
    /// Returns the box that has the variance of a Gaussian when it is applied [`PASSES`] times
    /// (equations 7, 11 and 14).
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

    /// Applies all passes down the columns of an image whose rows have `length` values.
    fn blur(&self, mut rows: Vec<u8>, length: usize) -> Vec<u8> {
        let (mut blurred, mut sums) = (vec![0; rows.len()], vec![0; length]);
        for _ in 0..PASSES {
            self.pass(&rows, &mut blurred, &mut sums);
            std::mem::swap(&mut rows, &mut blurred);
        }
        rows
    }

    /// Applies one pass down the columns. The length of `sums` is the length of a row.
    fn pass(&self, rows: &[u8], blurred: &mut [u8], sums: &mut [u32]) {
        let length = sums.len();
        let last = rows.len() / length - 1;
        // `at(p)` is row `p - radius - 1`, clamped to the image. The first box is centered at row
        // 0.
        let at = |place: usize| &rows[place.saturating_sub(self.radius + 1).min(last) * length..][..length];
        sums.fill(0);
        for place in 1..=2 * self.radius + 1 {
            sums.iter_mut().zip(at(place)).for_each(|(sum, value)| *sum += u32::from(*value));
        }
        for (place, out) in blurred.chunks_exact_mut(length).enumerate() {
            let (before, after, first) = (at(place), at(place + 2 * self.radius + 2), at(place + 1));
            let values = out.iter_mut().zip(sums.iter_mut()).zip(before).zip(after).zip(first);
            for ((((out, sum), before), after), first) in values {
                let ends = u32::from(*before) + u32::from(*after);
                *out = ((*sum * self.inner + ends * self.end + ONE / 2) / ONE) as u8;
                *sum = *sum + u32::from(*after) - u32::from(*first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::reference;
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

    /// For a standard deviation of the square root of 2, the box has 3 pixels. Three passes give
    /// weights of 1, 3, 6, 7, 6, 3, 1, over 27. The image is constant along the line, so the other
    /// direction changes nothing.
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
        fn one_color_stays(color: [u8; 3], height in 1u32..12, width in 1u32..12, sigma in 0.01f32..100.0) {
            let rgb = color.repeat((height * width) as usize);
            let mut image = Image::new(ImageSize { height, width }, rgb.clone());
            blur(&mut image, sigma);
            prop_assert_eq!(image.rgb(), rgb);
        }
    }
}
