//! A check of a complete data set: whether everything decodes, and statistics of the images.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::curate::duplicates::{self, Duplicates, Print};
use crate::dataset::Dataset;
use crate::ignored::Ignored;

/// The results of a check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// The number of images, including broken ones.
    pub images: usize,
    /// The number of images of each class, by name.
    pub classes: BTreeMap<String, usize>,
    /// The number of images without a class.
    pub without_class: usize,
    /// The smallest and the largest height in pixels.
    pub height: Option<(u32, u32)>,
    /// The smallest and the largest width in pixels.
    pub width: Option<(u32, u32)>,
    /// The mean of each channel over all pixels, with values in `[0, 1]`.
    pub mean: Option<[f64; 3]>,
    /// The standard deviation of each channel over all pixels, with values in `[0, 1]`.
    pub std: Option<[f64; 3]>,
    /// The images that cannot be decoded, each with the reason, in the order of the data set.
    pub broken: Vec<String>,
    /// The format of the data set.
    pub format: String,
    /// The ignored files, by reason.
    #[serde(rename = "passed_over")]
    pub ignored: Ignored,
    /// The number of images that were decoded: all of them, or a sample.
    pub decoded: usize,
    /// Duplicates among the decoded images.
    pub duplicates: Duplicates,
}

#[derive(Clone, Copy)]
struct Sums {
    pixels: u64,
    sum: [u64; 3],
    squares: [u64; 3],
    height: (u32, u32),
    width: (u32, u32),
}

impl Sums {
    fn join(self, other: Self) -> Self {
        let both = |a: [u64; 3], b: [u64; 3]| [0, 1, 2].map(|channel| a[channel] + b[channel]);
        let range = |a: (u32, u32), b: (u32, u32)| (a.0.min(b.0), a.1.max(b.1));
        Sums {
            pixels: self.pixels + other.pixels,
            sum: both(self.sum, other.sum),
            squares: both(self.squares, other.squares),
            height: range(self.height, other.height),
            width: range(self.width, other.width),
        }
    }
}

/// Decodes every image, or `sample` of them at equal intervals, on all cores. `progress` is called
/// once per image, in no particular order.
pub fn check(dataset: &Dataset, sample: Option<usize>, progress: &(dyn Fn() + Sync)) -> CheckReport {
    let count = sample.map_or(dataset.len(), |sample| sample.min(dataset.len()));
    let chosen = |position: usize| (position as u128 * dataset.len() as u128 / count as u128) as usize;
    let both: Vec<AnalyzedImage<'_>> = (0..count)
        .into_par_iter()
        .map(|position| {
            let analyzed = analyze(dataset, chosen(position));
            progress();
            analyzed
        })
        .collect();
    let prints: Vec<(&str, Print)> = both.iter().filter_map(|analyzed| Some(analyzed.as_ref().ok()?.1)).collect();
    let duplicates = duplicates::find(&prints);
    let analyzed: Vec<Result<Sums, String>> = both.into_iter().map(|analyzed| analyzed.map(|(sums, _)| sums)).collect();
    let mut classes: BTreeMap<String, usize> = dataset.classes().iter().map(|class| (class.clone(), 0)).collect();
    for image in 0..dataset.len() {
        *classes.entry(dataset.classes()[dataset.label(image) as usize].clone()).or_default() += 1;
    }
    let without_class = classes.remove("").unwrap_or(0);
    let total = analyzed.iter().filter_map(|sums| sums.as_ref().ok().copied()).reduce(Sums::join);
    let mean = |sums: &Sums| sums.sum.map(|sum| sum as f64 / sums.pixels as f64 / 255.0);
    let deviation = |sums: &Sums| {
        let mean = mean(sums);
        [0, 1, 2].map(|channel| {
            let square = sums.squares[channel] as f64 / sums.pixels as f64 / (255.0 * 255.0);
            (square - mean[channel] * mean[channel]).max(0.0).sqrt()
        })
    };
    CheckReport {
        images: dataset.len(),
        classes,
        without_class,
        height: total.map(|sums| sums.height),
        width: total.map(|sums| sums.width),
        mean: total.as_ref().map(mean),
        std: total.as_ref().map(deviation),
        broken: analyzed.into_iter().filter_map(Result::err).collect(),
        format: dataset.format().to_string(),
        ignored: dataset.ignored(),
        decoded: count,
        duplicates,
    }
}

/// The statistics of an image, or the reason why it cannot be decoded.
type AnalyzedImage<'a> = Result<(Sums, (&'a str, Print)), String>;

fn analyze(dataset: &Dataset, image: usize) -> AnalyzedImage<'_> {
    let decoded = dataset.decode(image).map_err(|error| error.to_string())?;
    let (mut sum, mut squares) = ([0; 3], [0; 3]);
    for pixel in decoded.rgb().as_chunks::<3>().0 {
        for channel in 0..3 {
            let value = u64::from(pixel[channel]);
            sum[channel] += value;
            squares[channel] += value * value;
        }
    }
    let size = decoded.size();
    let pixels = u64::from(size.height) * u64::from(size.width);
    let sums = Sums { pixels, sum, squares, height: (size.height, size.height), width: (size.width, size.width) };
    Ok((sums, (dataset.name(image), Print::new(&decoded))))
}
