//! The baselines without a network.

use std::sync::Arc;

use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::Filter;
use bagssl_data::Dataset;
use bagssl_eval::baselines::{Histogram, Pixels};
use bagssl_eval::report::{Space, View};
use bagssl_eval::{Features, extract};

use super::accuracy::{ViewAccuracy, accuracy};
use crate::error::Result;
use crate::eval_options::EvalOptions;
use crate::feature_extraction::{Input, bags};
use crate::splits::Splits;

/// The accuracies of the baselines without a network, on whole images, in color and in grayscale.
#[derive(Debug, Clone, PartialEq)]
pub struct Baselines {
    /// Raw pixels, of images resampled to at most 32 x 32.
    pub pixels: Vec<ViewAccuracy>,
    /// Color histograms, of images resampled to at most 64 x 64.
    pub histogram: Vec<ViewAccuracy>,
}

/// Evaluates the baselines without a network: raw pixels and color histograms of whole images.
///
/// # Errors
/// [`Error::NotTiles`](crate::Error::NotTiles) if the groups do not fit the images. [`Error::Data`](crate::Error::Data) or
/// [`Error::Eval`](crate::Error::Eval) if an image cannot be used and is not to be skipped.
pub fn evaluate_baselines(splits: &Splits, options: &EvalOptions<'_>) -> Result<Baselines> {
    // Use the size of the images, within limits: raw pixels have 3 * side^2 features.
    let short = splits.train.first_size()?.short_side();
    let input =
        |most: u32| Input { side: short.clamp(8, most), normalization: Normalization::HALF, filter: Filter::Bilinear };
    let mut baselines = Baselines { pixels: vec![], histogram: vec![] };
    let (groups, _) = options.groups.group_ids(&splits.test)?;
    for color in Color::ALL {
        let pixels = Pixels { normalization: Normalization::HALF, color };
        let histogram = Histogram::new(Normalization::HALF, color, Histogram::BINS)?;
        let measure = |network: &dyn Embed, input: Input| -> Result<ViewAccuracy> {
            let features = |dataset: &Arc<Dataset>| -> Result<Features> {
                let loader = bags(input, dataset, Bag::Whole, Color::Rgb, options)?;
                Ok(extract(network, loader.batches(), &[FeatureLayer::Embedding], &mut |_| ())?.remove(0))
            };
            let (train, test) = (features(&splits.train)?, features(&splits.test)?);
            accuracy([&train, &test], 1, (Space::Input, color, View::Whole), &groups, options)
        };
        baselines.pixels.push(measure(&pixels, input(32))?);
        baselines.histogram.push(measure(&histogram, input(64))?);
    }
    Ok(baselines)
}
