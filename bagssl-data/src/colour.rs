//! Changes of a patch's colours, as Pillow 13 computes them in 8 bits (but for the blur; see there).

use crate::image::{Image, luma};

type Pixel = [u8; 3];

fn pixels(patch: &mut Image) -> &mut [Pixel] {
    patch.rgb_mut().as_chunks_mut::<3>().0
}

/// Turns left and right over.
pub(crate) fn flip(patch: &mut Image) {
    let width = patch.size().width as usize;
    pixels(patch).chunks_exact_mut(width).for_each(<[Pixel]>::reverse);
}

/// Mixes a value with what it would be at a factor of 0; the fraction is cut off, as Pillow's `blend` does.
fn blend(nothing: u8, value: u8, factor: f32) -> u8 {
    let nothing = f32::from(nothing);
    // Rust's conversion saturates, which is Pillow's clipping.
    (nothing + factor * (f32::from(value) - nothing)) as u8
}

/// Mixes with black.
pub(crate) fn brightness(patch: &mut Image, factor: f32) {
    patch.rgb_mut().iter_mut().for_each(|value| *value = blend(0, *value, factor));
}

/// Mixes with the patch's mean grey.
pub(crate) fn contrast(patch: &mut Image, factor: f32) {
    let pixels = pixels(patch);
    let sum: u64 = pixels.iter().map(|pixel| u64::from(luma(*pixel))).sum();
    let mean = (sum as f64 / pixels.len() as f64 + 0.5) as u8;
    patch.rgb_mut().iter_mut().for_each(|value| *value = blend(mean, *value, factor));
}

/// Mixes each pixel with its grey.
pub(crate) fn saturation(patch: &mut Image, factor: f32) {
    for pixel in pixels(patch) {
        let grey = luma(*pixel);
        *pixel = pixel.map(|value| blend(grey, value, factor));
    }
}

/// Turns the colour wheel, in 255 steps.
pub(crate) fn hue(patch: &mut Image, turns: f32) {
    let shift = (turns * 255.0) as i32;
    for pixel in pixels(patch) {
        let [hue, saturation, value] = to_hsv(*pixel);
        *pixel = from_hsv([hue.wrapping_add(shift as u8), saturation, value]);
    }
}

/// Hue, saturation and value, each in 0 to 255 (Pillow's "HSV"; single and double precision where it has them, since the
/// fraction is cut off).
fn to_hsv([red, green, blue]: Pixel) -> Pixel {
    let (highest, lowest) = (red.max(green).max(blue), red.min(green).min(blue));
    if highest == lowest {
        return [0, 0, highest];
    }
    let range = f32::from(highest - lowest);
    let [r, g, b] = [red, green, blue].map(|value| f64::from(f32::from(highest - value) / range));
    let sixth = if red == highest {
        b - g
    } else if green == highest {
        2.0 + r - b
    } else {
        4.0 + g - r
    };
    let hue = (f64::from(sixth as f32) / 6.0 + 1.0).fract() as f32;
    let saturation = range / f32::from(highest);
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, highest]
}

fn from_hsv([hue, saturation, value]: Pixel) -> Pixel {
    if saturation == 0 {
        return [value; 3];
    }
    let sixth = (f64::from(hue) * 6.0 / 255.0) as f32;
    let (sector, within) = (sixth.floor(), sixth - sixth.floor());
    let share = (f64::from(saturation) / 255.0) as f32;
    let level = |less: f64| (f64::from(value) * (1.0 - less)).round() as u8;
    let p = level(share.into());
    let q = level((share * within).into());
    let t = level(f64::from(share) * (1.0 - f64::from(within)));
    match sector as u8 % 6 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}

/// Turns values from the threshold on over.
pub(crate) fn solarise(patch: &mut Image, threshold: u8) {
    patch.rgb_mut().iter_mut().filter(|value| **value >= threshold).for_each(|value| *value = 255 - *value);
}

/// A Gaussian of deviation `sigma` pixels, cut at three deviations; the edge's pixel goes on beyond it. (Pillow
/// approximates the same by three box blurs; torchvision's own blur mirrors the edge.)
pub(crate) fn blur(patch: &mut Image, sigma: f32) {
    let radius = (3.0 * sigma).ceil() as usize;
    let weights: Vec<f32> = (0..=2 * radius)
        .map(|tap| {
            let distance = (tap as f32 - radius as f32) / sigma;
            (-0.5 * distance * distance).exp()
        })
        .collect();
    let total: f32 = weights.iter().sum();
    let (height, width) = (patch.size().height as usize, patch.size().width as usize);
    let source: Vec<f32> = patch.rgb().iter().map(|&value| f32::from(value)).collect();
    let pass = |source: &[f32], length: usize, step: usize, others: &[usize]| -> Vec<f32> {
        let mut blurred = vec![0.0; source.len()];
        for &start in others {
            for at in 0..length {
                let sum: f32 = weights
                    .iter()
                    .enumerate()
                    .map(|(tap, weight)| {
                        weight * source[start + (at + tap).saturating_sub(radius).min(length - 1) * step]
                    })
                    .sum();
                blurred[start + at * step] = sum / total;
            }
        }
        blurred
    };
    let row_starts: Vec<usize> =
        (0..height).flat_map(|row| (0..3).map(move |channel| row * width * 3 + channel)).collect();
    let across = pass(&source, width, 3, &row_starts);
    let column_starts: Vec<usize> = (0..width * 3).collect();
    let both = pass(&across, height, width * 3, &column_starts);
    patch.rgb_mut().iter_mut().zip(both).for_each(|(value, blurred)| *value = blurred.round() as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Colour;
    use crate::resample::Resampler;
    use bagssl_core::patch::{Crop, Filter, ImageSize};
    use serde_json::Value;

    fn reference() -> (Value, Image) {
        let reference: Value = serde_json::from_str(include_str!("../tests/reference/pillow.json")).unwrap();
        let number = |name: &str| reference[name].as_u64().unwrap() as u32;
        let size = ImageSize { height: number("height"), width: number("width") };
        let image = Image::new(size, bytes(&reference["rgb"]));
        (reference, image)
    }

    fn bytes(value: &Value) -> Vec<u8> {
        value.as_array().unwrap().iter().map(|level| level.as_u64().unwrap() as u8).collect()
    }

    #[track_caller]
    fn within_a_grey_level(what: &str, got: &[u8], expected: &[u8]) {
        within(1, what, got, expected);
    }

    #[track_caller]
    fn within(levels: u8, what: &str, got: &[u8], expected: &[u8]) {
        assert_eq!(got.len(), expected.len());
        let worst = got.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let off = got.iter().zip(expected).filter(|(a, b)| a != b).count();
        assert!(worst <= levels, "{what}: {worst} grey levels, {off} of {} differ", got.len());
    }

    #[test]
    fn colours_are_those_of_pillow() {
        let (reference, image) = reference();
        let mut grey = image.clone();
        grey.set_colour(Colour::Grey);
        assert_eq!(grey.rgb(), bytes(&reference["grey"]));
        type Change = fn(&mut Image, f32);
        let changes: [(&str, Change); 5] = [
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
            ("hue", hue),
            ("solarise", |image, threshold| solarise(image, threshold as u8)),
        ];
        for (name, change) in changes {
            for case in reference["colour"][name].as_array().unwrap() {
                let factor = case["factor"].as_f64().unwrap() as f32;
                let mut changed = image.clone();
                change(&mut changed, factor);
                within_a_grey_level(&format!("{name} {factor}"), changed.rgb(), &bytes(&case["rgb"]));
            }
        }
    }

    #[test]
    fn resampling_is_that_of_pillow() {
        let (reference, image) = reference();
        for case in reference["resample"].as_array().unwrap() {
            let filter = if case["filter"] == "bilinear" { Filter::Bilinear } else { Filter::Bicubic };
            let [top, left, height, width] = [0, 1, 2, 3].map(|place| case["crop"][place].as_u64().unwrap() as u32);
            let crop = Crop { top, left, height, width };
            // Pillow cuts before it resamples: pixels outside the crop must not count.
            let patch = Resampler::new(filter).patch(&image, crop, 8);
            // A cubic overshoots at edges, and both cut it off between the two directions, whose order differs.
            let levels = if filter == Filter::Bicubic { 8 } else { 1 };
            within(levels, &format!("{filter:?} {crop:?}"), patch.rgb(), &bytes(&case["rgb"]));
        }
    }

    #[test]
    fn a_flip_keeps_the_rows() {
        let mut image = Image::new(ImageSize { height: 2, width: 3 }, (0..18).collect());
        flip(&mut image);
        assert_eq!(image.rgb()[..9], [6, 7, 8, 3, 4, 5, 0, 1, 2]);
        assert_eq!(image.rgb()[9..12], [15, 16, 17]);
    }

    /// A white line in the middle of black rows: across, it takes the Gaussian's weights; down, nothing changes.
    #[test]
    fn a_blur_spreads_by_the_gaussian() {
        let mut rgb = vec![0; 5 * 9 * 3];
        (0..5).for_each(|row| rgb[(row * 9 + 4) * 3..][..3].fill(255));
        let mut image = Image::new(ImageSize { height: 5, width: 9 }, rgb);
        blur(&mut image, 1.0);
        let total: f32 = (-3..=3).map(|x| (-0.5 * (x * x) as f32).exp()).sum();
        for row in 0..5 {
            for column in 0..9_usize {
                let distance = column.abs_diff(4);
                let weight = if distance > 3 { 0.0 } else { (-0.5 * (distance * distance) as f32).exp() / total };
                assert_eq!(image.rgb()[(row * 9 + column) * 3 + 1], (255.0 * weight).round() as u8);
            }
        }
    }
}
