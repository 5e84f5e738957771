//! Evaluates the representation of a network.

mod accuracy;
mod baselines;
mod nearest;
mod patch_counts;

use std::collections::BTreeMap;

use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_eval::analysis::Health;
use bagssl_eval::analysis::{ConvergencePoint, convergence};
use bagssl_eval::report::{Space, View};
use bagssl_eval::{Order, intersect_images};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::eval_options::{EvalOptions, Event};
use crate::feature_extraction::extract_features;
use crate::model::Model;
use crate::splits::Splits;
pub use accuracy::{AccuracyDetails, BOOTSTRAP_DRAWS, ViewAccuracy};
pub use baselines::{Baselines, evaluate_baselines};
pub use nearest::NearestPatches;
pub(crate) use nearest::nearest;
pub(crate) use patch_counts::{accuracy_counts, convergence_counts};

/// The quality of a network's representation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The accuracies by layer, color, view and number of averaged patches.
    #[serde(rename = "scores")]
    pub accuracies: Vec<ViewAccuracy>,
    /// How close the mean of an image's patches is to the feature of the whole image, for the first layer and images in color.
    pub convergence: Vec<ConvergencePoint>,
    /// The health of each layer's patch features, for test images in color.
    pub health: BTreeMap<Space, Health>,
    /// The nearest patches of other test images for some patches, for each layer.
    #[serde(rename = "neighbours")]
    pub neighbors: BTreeMap<Space, Vec<NearestPatches>>,
}

impl Evaluation {
    /// Returns the accuracies of the mean of all patches, which is BagSSL's representation. Returns `None` if the layer was not
    /// evaluated.
    pub fn mean_of_patches(&self, layer: FeatureLayer, color: Color) -> Option<&ViewAccuracy> {
        let key = (Space::from(layer), color, View::Patches);
        let those = self.accuracies.iter().filter(|it| (it.space, it.color, it.view) == key);
        those.max_by_key(|it| it.patches)
    }
}

/// The number of query patches to show, and the number of neighbors of each.
const SHOWN: (usize, usize) = (10, 9);

/// Evaluates a network on the two splits of a data set: fits classifiers to features of the training images, and tests them on
/// those of the test images. Each image is represented by the mean of its patches' features, over 1, 4, 16 and all patches, and
/// by the feature of the whole image, both in color and in grayscale.
///
/// [`Model::evaluated_layers`] returns the usual `layers`, the embedding first. The network must be able to read them.
///
/// # Errors
/// [`Error::Setting`] if there are no layers or an option is out of range; [`Error::NotTiles`] if the groups do not fit the
/// images; the errors of [`extract_features`]; [`Error::Eval`] if a classifier cannot be fitted.
///
/// # Source
/// BagSSL, arXiv:2206.08954.
pub fn evaluate(
    model: &Model<'_>,
    splits: &Splits,
    layers: &[FeatureLayer],
    options: &EvalOptions<'_>,
) -> Result<Evaluation> {
    if layers.is_empty() {
        return Err(Error::Setting { name: "layers", expected: "at least one".into(), got: "none".into() });
    }
    let bag = options.bag(&model.spec.patch, &splits.train)?;
    let (groups, _) = options.groups.group_ids(&splits.test)?;
    options.report(Event::Planned(splits.images_to_evaluate()));
    let mut evaluation = Evaluation::default();
    for color in Color::ALL {
        let features = |bag, dataset| extract_features(model, dataset, bag, color, layers, options);
        let mut patches = [features(bag, &splits.train)?, features(bag, &splits.test)?];
        let mut whole = [features(Bag::Whole, &splits.train)?, features(Bag::Whole, &splits.test)?];
        // An image that is smaller than a patch has no patches, but it does have a whole-image
        // view.
        for (patches, whole) in patches.iter_mut().zip(&mut whole) {
            intersect_images([patches, whole])?;
        }
        for (index, space) in layers.iter().map(|&layer| Space::from(layer)).enumerate() {
            let of_patches = [&patches[0][index], &patches[1][index]];
            for count in accuracy_counts(of_patches[0].patches().min(of_patches[1].patches())) {
                let what = (space, color, View::Patches);
                evaluation.accuracies.push(accuracy::accuracy(of_patches, count, what, &groups, options)?);
            }
            let of_whole = [&whole[0][index], &whole[1][index]];
            let what = (space, color, View::Whole);
            evaluation.accuracies.push(accuracy::accuracy(of_whole, 1, what, &groups, options)?);
            if color == Color::Rgb {
                evaluation.health.insert(space, Health::new(of_patches[1]));
                evaluation.neighbors.insert(space, nearest(of_patches[1], SHOWN)?);
            }
        }
        if color == Color::Rgb {
            let (patches, whole) = (&patches[1][0], whole[1][0].mean()?);
            let order = Order::Random { seed: options.seed };
            let counts = convergence_counts(patches.patches());
            evaluation.convergence = convergence(patches, &whole, &counts, order)?;
        }
    }
    Ok(evaluation)
}
