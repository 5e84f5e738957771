//! Baselines without a network: an image's pixels and its color histogram. They implement [`Embed`]
//! on batches of whole images, so that they are evaluated like networks.

use bagssl_core::batch::{PatchBatch, SourceError};
use bagssl_core::embed::{Embed, FeatureLayer, Rows};
use bagssl_core::normalize::Normalization;

use crate::color::{Color, luma};
use crate::error::{Error, Result};

/// Embeds a patch as its pixels.
///
/// In color, these are the values in `[0, 1]`, `[channel, height, width]`. In grey, they are the
/// luma minus its mean over the patch, `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pixels {
    /// The normalization of the batches, which is undone.
    pub normalization: Normalization,
    /// Whether to use color.
    pub color: Color,
}

/// Embeds a patch as its color histogram.
///
/// In color, this is the joint histogram of red, green and blue with `bins` bins per channel,
/// `bins^3` values. In grey, it is the histogram of the luma with `bins^2` bins. Colors are rounded
/// to 8 bits first, so that none lies between two bins. Each value is the square root of the
/// fraction of pixels, so that the cosine of two histograms is their Bhattacharyya coefficient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Histogram {
    normalization: Normalization,
    color: Color,
    bins: usize,
}

impl Histogram {
    /// The default number of bins per channel. If the images come from few scenes, more bins fit
    /// the data better, because the exact colors identify the scene.
    pub const BINS: usize = 6;

    /// Creates a histogram with `bins` bins per channel.
    ///
    /// # Errors
    /// [`Error::Setting`] unless `bins` is 2 to 32.
    pub fn new(normalization: Normalization, color: Color, bins: usize) -> Result<Self> {
        if (2..=32).contains(&bins) {
            return Ok(Histogram { normalization, color, bins });
        }
        Err(Error::Setting { name: "histogram.bins", expected: "2 to 32".into(), got: bins.to_string() })
    }

    fn of(&self, patch: &[[f32; 3]]) -> Vec<f32> {
        let steps = if self.color == Color::Rgb { self.bins } else { self.bins * self.bins };
        let step = |value: f32| (value * 255.0).round().clamp(0.0, 255.0) as usize * steps / 256;
        let dim = if self.color == Color::Rgb { steps.pow(3) } else { steps };
        let mut counts = vec![0.0; dim];
        for &color in patch {
            let bin = match self.color {
                Color::Rgb => color.iter().fold(0, |bin, &value| bin * steps + step(value)),
                Color::Grey => step(luma(color)),
            };
            counts[bin] += 1.0;
        }
        counts.iter().map(|count: &f32| (count / patch.len() as f32).sqrt()).collect()
    }
}

impl Embed for Pixels {
    /// A baseline has a single layer, [`FeatureLayer::Embedding`].
    fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
        embed(batch, layers, self.normalization, |patch| match self.color {
            Color::Rgb => (0..3).flat_map(|channel| patch.iter().map(move |color| color[channel])).collect(),
            Color::Grey => {
                let grey: Vec<f32> = patch.iter().map(|&color| luma(color)).collect();
                let mean = grey.iter().map(|&value| f64::from(value)).sum::<f64>() / grey.len() as f64;
                grey.iter().map(|&value| (f64::from(value) - mean) as f32).collect()
            }
        })
    }
}

impl Embed for Histogram {
    /// A baseline has a single layer, [`FeatureLayer::Embedding`].
    fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
        embed(batch, layers, self.normalization, |patch| self.of(patch))
    }
}

/// Undoes the normalization and applies `feature` to the colors of each patch.
fn embed(
    batch: &PatchBatch,
    layers: &[FeatureLayer],
    normalization: Normalization,
    feature: impl Fn(&[[f32; 3]]) -> Vec<f32>,
) -> core::result::Result<Vec<Rows>, SourceError> {
    if let Some(layer) = layers.iter().find(|&&layer| layer != FeatureLayer::Embedding) {
        return Err(format!("a baseline has no tap {}, only {}", layer.name(), FeatureLayer::Embedding.name()).into());
    }
    let shape = batch.shape();
    if shape.channels != 3 || shape.patch_len() == 0 {
        return Err(format!("a baseline needs patches with 3 channels, got {shape:?}").into());
    }
    let (mean, deviation) = (normalization.mean(), normalization.deviation());
    let area = shape.height * shape.width;
    let (mut values, mut dim) = (Vec::new(), 0);
    for patch in batch.data().chunks_exact(shape.patch_len()) {
        let value = |pixel, channel: usize| patch[channel * area + pixel] * deviation[channel] + mean[channel];
        let colors: Vec<[f32; 3]> = (0..area).map(|pixel| [0, 1, 2].map(|channel| value(pixel, channel))).collect();
        let row = feature(&colors);
        dim = row.len();
        values.extend(row);
    }
    Ok(layers.iter().map(|_| Rows { values: values.clone(), dim }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::batch::BatchShape;

    /// Two images of two rows and one column, normalized by hand.
    fn batch(colors: [[[f32; 3]; 2]; 2], normalization: Normalization) -> PatchBatch {
        let shape = BatchShape { images: 2, patches: 1, channels: 3, height: 2, width: 1 };
        let mut data = vec![];
        for image in colors {
            for channel in 0..3 {
                data.extend(image.iter().map(|color| normalization.apply(channel, color[channel])));
            }
        }
        PatchBatch::new(shape, data, vec![0, 1], vec![0, 1]).unwrap()
    }

    const COLORS: [[[f32; 3]; 2]; 2] = [[[0.0, 0.5, 1.0], [0.25, 0.75, 0.0]], [[0.6, 0.6, 0.6], [0.2, 0.2, 0.2]]];

    fn close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn pixels_by_hand() {
        let normalization = Normalization::IMAGENET;
        let of = |color| {
            Pixels { normalization, color }
                .embed(&batch(COLORS, normalization), &[FeatureLayer::Embedding])
                .unwrap()
                .remove(0)
        };
        let rgb = of(Color::Rgb);
        close(rgb.row(0), &[0.0, 0.25, 0.5, 0.75, 1.0, 0.0]);
        close(rgb.row(1), &[0.6, 0.2, 0.6, 0.2, 0.6, 0.2]);
        let grey = of(Color::Grey);
        // The luma values are 0.587 / 2 + 0.114 = 0.4075 and 0.299 / 4 + 0.587 * 3 / 4 = 0.515.
        close(grey.row(0), &[-0.05375, 0.05375]);
        close(grey.row(1), &[0.2, -0.2]);
    }

    #[test]
    fn histograms_by_hand() {
        let normalization = Normalization::HALF;
        let of = |color| {
            let histogram = Histogram::new(normalization, color, 2).unwrap();
            histogram.embed(&batch(COLORS, normalization), &[FeatureLayer::Embedding]).unwrap().remove(0)
        };
        let (half, rgb) = (0.5f32.sqrt(), of(Color::Rgb));
        close(rgb.row(0), &[0.0, 0.0, half, half, 0.0, 0.0, 0.0, 0.0]);
        close(rgb.row(1), &[half, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, half]);
        let grey = of(Color::Grey);
        close(grey.row(0), &[0.0, half, half, 0.0]);
        close(grey.row(1), &[half, 0.0, half, 0.0]);
    }

    #[test]
    fn unsupported_baseline_inputs_are_refused() {
        let normalization = Normalization::HALF;
        let pixels = Pixels { normalization, color: Color::Rgb };
        assert!(pixels.embed(&batch(COLORS, normalization), &[FeatureLayer::Projection]).is_err());
        let shape = BatchShape { images: 1, patches: 1, channels: 1, height: 2, width: 1 };
        let grey = PatchBatch::new(shape, vec![0.0; 2], vec![0], vec![0]).unwrap();
        assert!(pixels.embed(&grey, &[FeatureLayer::Embedding]).is_err());
        assert!(Histogram::new(normalization, Color::Rgb, 1).is_err());
        assert!(Histogram::new(normalization, Color::Rgb, 33).is_err());
    }
}
