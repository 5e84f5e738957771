//! The accuracy of one representation, with its details.

use bagssl_core::color::Color;
use bagssl_eval::Confusion;
use bagssl_eval::report::{Space, View};
use bagssl_eval::stats::{Interval, grouped_bootstrap};
use bagssl_eval::{Features, Order};
use bagssl_eval::{Fit, Score};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::eval_options::EvalOptions;

/// The number of bootstrap resamples behind each confidence interval.
pub const BOOTSTRAP_DRAWS: usize = 2000;

/// The kNN and linear accuracy, in percent, of one representation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewAccuracy {
    /// The layer whose features are classified.
    pub space: Space,
    /// Whether the images are in color or in grayscale.
    #[serde(rename = "colour")]
    pub color: Color,
    /// Whether the network gets patches or whole images.
    pub view: View,
    /// The number of patches per image whose features are averaged.
    pub patches: usize,
    /// The accuracy of the nearest neighbors, in percent.
    pub knn: f64,
    /// The accuracy of the linear probe, in percent.
    pub linear: f64,
    /// Details of the kNN and the linear accuracy, in this order.
    #[serde(default)]
    pub details: Option<[AccuracyDetails; 2]>,
}

/// Details of an accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccuracyDetails {
    /// How often the class is among the five most likely ones, in percent.
    pub top5: f64,
    /// The 95 % interval of a cluster bootstrap over groups of test images, in percent. `None` if
    /// there is only one group.
    pub interval: Option<Interval>,
    /// Whether the regression reached its optimum. `None` for classifiers without a fit.
    pub fit: Option<Fit>,
    /// The confusion matrix.
    pub confusion: Confusion,
}

impl AccuracyDetails {
    fn from_score(score: &Score, labels: &[u32], groups: &[u32], seed: u64) -> Result<Self> {
        Ok(AccuracyDetails {
            top5: score.top5,
            interval: grouped_bootstrap(&score.hits(labels), groups, BOOTSTRAP_DRAWS, seed)?,
            fit: score.fit,
            confusion: Confusion::new(&score.predictions, labels)?,
        })
    }
}

/// Measures the accuracies of the mean of `count` patches. `groups` has the group of each test image of the data set.
pub(super) fn accuracy(
    [train, test]: [&Features; 2],
    count: usize,
    (space, color, view): (Space, Color, View),
    groups: &[u32],
    options: &EvalOptions<'_>,
) -> Result<ViewAccuracy> {
    let order = Order::Random { seed: options.seed };
    // Images may have been skipped.
    let groups: Vec<u32> = test.images().iter().map(|&image| groups[image as usize]).collect();
    let (train, test) = (train.samples(count, order)?, test.samples(count, order)?);
    let [knn, linear] = options.protocol.evaluate(&train, &test, options.seed)?;
    let details = |score: &Score| AccuracyDetails::from_score(score, test.labels(), &groups, options.seed);
    let details = Some([details(&knn)?, details(&linear)?]);
    Ok(ViewAccuracy { space, color, view, patches: count, knn: knn.accuracy, linear: linear.accuracy, details })
}
