//! Lanczos resampling, bit for bit as Pillow does it on 8 bits.

use image::RgbImage;

/// An image of another size.
///
/// # Source
/// Pillow's `Resample.c`: weights of three lobes, widened where the image shrinks, in fixed point with 22 bits; columns first,
/// then rows, with 8 bits between the two.
pub(crate) fn resized(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let narrow = columns(image, width);
    transposed(&columns(&transposed(&narrow), height))
}

/// Bits behind the point.
const PRECISION: u32 = 22;
/// Lobes to each side.
const SUPPORT: f64 = 3.0;

fn columns(image: &RgbImage, width: u32) -> RgbImage {
    if width == image.width() {
        return image.clone();
    }
    let taps = taps(image.width(), width);
    let mut out = RgbImage::new(width, image.height());
    let row_bytes = image.width() as usize * 3;
    for (row, line) in image.as_raw().chunks_exact(row_bytes).enumerate() {
        let pixels = line.as_chunks::<3>().0;
        for (column, (first, weights)) in taps.iter().enumerate() {
            let mut sums = [1_i32 << (PRECISION - 1); 3];
            for (pixel, weight) in pixels[*first..].iter().zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            let pixel = sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8);
            out.put_pixel(column as u32, row as u32, image::Rgb(pixel));
        }
    }
    out
}

/// For each place of the output the first place of the input that counts, and the weights from there on.
fn taps(from: u32, to: u32) -> Vec<(usize, Vec<i32>)> {
    let scale = f64::from(from) / f64::from(to);
    let wide = scale.max(1.0);
    let support = SUPPORT * wide;
    let of = |place: u32| {
        let center = (f64::from(place) + 0.5) * scale;
        let first = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as i64).min(i64::from(from)) as usize;
        let weights: Vec<f64> = (first..end).map(|at| lanczos((at as f64 - center + 0.5) / wide)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| {
            let weight = weight / sum * f64::from(1 << PRECISION);
            (weight + 0.5_f64.copysign(weight)) as i32
        };
        (first, weights.iter().map(fixed).collect())
    };
    (0..to).map(of).collect()
}

fn lanczos(at: f64) -> f64 {
    let sinc = |at: f64| if at == 0.0 { 1.0 } else { (at * std::f64::consts::PI).sin() / (at * std::f64::consts::PI) };
    if (-SUPPORT..SUPPORT).contains(&at) { sinc(at) * sinc(at / SUPPORT) } else { 0.0 }
}

fn transposed(image: &RgbImage) -> RgbImage {
    RgbImage::from_fn(image.height(), image.width(), |x, y| *image.get_pixel(y, x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow 13: `Image.frombytes("RGB", (7, 5), bytes((i*i*5 + i*3) % 256 for i in range(105))).resize(.., Image.LANCZOS)`.
    #[test]
    fn pixels_are_pillows() {
        let rgb = (0..105_u32).map(|i| ((i * i * 5 + i * 3) % 256) as u8).collect();
        let image = RgbImage::from_raw(7, 5, rgb).unwrap();
        let smaller = [
            79, 58, 89, 211, 63, 160, 165, 90, 136, 155, 170, 157, 159, 128, 133, 87, 131, 145, 137, 162, 63, 132, 173,
            166, 85, 139, 212, 186, 85, 118, 59, 207, 135, 120, 144, 140,
        ];
        assert_eq!(resized(&image, 3, 4).as_raw(), &smaller);
        let larger = resized(&image, 9, 6);
        let first = [0, 0, 10, 10, 69, 105, 130, 65, 130, 204, 0, 73, 171, 18, 128, 241, 99, 241, 197, 82, 255];
        let last = [231, 178, 101, 180, 146, 144, 100, 95, 101, 110, 123];
        assert_eq!((&larger.as_raw()[..21], &larger.as_raw()[9 * 6 * 3 - 11..]), (&first[..], &last[..]));
        assert_eq!(resized(&image, 7, 5), image);
    }
}
