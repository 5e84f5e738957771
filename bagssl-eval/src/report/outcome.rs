//! The results of a run: accuracies, closeness, training curves.

use std::collections::BTreeMap;

use bagssl_core::embed::FeatureLayer;
use serde::{Deserialize, Serialize};

use crate::analysis::ConvergencePoint;
use crate::color::Color;
use crate::stats::{mean, std_dev};

/// The method that produced the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The network, trained on patches of one scale.
    Bagssl,
    /// The same network, trained on crops of many scales.
    MultiScale,
    /// The same network, trained on patches of one scale with VICReg's loss.
    BagsslVicreg,
    /// The same network, trained on crops of many scales with VICReg's loss.
    Vicreg,
    /// The same network, trained on crops of many scales with SimCLR's loss.
    Simclr,
    /// The same network with random weights.
    Random,
    /// The pixels, without a network.
    Pixels,
    /// The color histogram, without a network.
    Histogram,
}

impl Method {
    /// The trained methods. The two of the main comparison come first.
    pub const TRAINED: [Method; 5] =
        [Method::Bagssl, Method::MultiScale, Method::BagsslVicreg, Method::Vicreg, Method::Simclr];

    /// Returns the name in the JSON. For a trained method, it is also the name of its preset.
    pub fn name(self) -> &'static str {
        match self {
            Method::Bagssl => "bagssl",
            Method::MultiScale => "multi-scale",
            Method::BagsslVicreg => "bagssl-vicreg",
            Method::Vicreg => "vicreg",
            Method::Simclr => "simclr",
            Method::Random => "random",
            Method::Pixels => "pixels",
            Method::Histogram => "histogram",
        }
    }

    /// Returns the name for display.
    pub fn title(self) -> &'static str {
        match self {
            Method::Bagssl => "BagSSL",
            Method::MultiScale => "multi-scale",
            Method::BagsslVicreg => "BagSSL-VICReg",
            Method::Vicreg => "VICReg",
            Method::Simclr => "SimCLR",
            Method::Random => "random weights",
            Method::Pixels => "raw pixels",
            Method::Histogram => "color histogram",
        }
    }
}

/// The layer whose features are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// The encoder's output.
    Embedding,
    /// The projector's first layer, after its activation.
    FirstLayer,
    /// The projector's output.
    Projection,
    /// The image itself.
    Input,
}

impl From<FeatureLayer> for Space {
    fn from(layer: FeatureLayer) -> Self {
        match layer {
            FeatureLayer::Embedding => Space::Embedding,
            FeatureLayer::FirstLayer => Space::FirstLayer,
            FeatureLayer::Projection => Space::Projection,
        }
    }
}

impl Space {
    /// Returns the name, in the JSON and for display.
    pub fn name(self) -> &'static str {
        match self {
            Space::Embedding => "embedding",
            Space::FirstLayer => "first_layer",
            Space::Projection => "projection",
            Space::Input => "input",
        }
    }
}

/// The part of an image that the network gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// Patches, whose features are averaged.
    Patches,
    /// The whole image in one pass.
    Whole,
}

/// An accuracy over seeds, in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The mean.
    pub mean: f64,
    /// The standard deviation (`n - 1`); 0 for one seed.
    pub std: f64,
    /// The value of each seed, in the order of the report's seeds. A single value if the accuracy
    /// does not depend on seeds.
    pub values: Vec<f64>,
}

impl Accuracy {
    /// Creates an accuracy from one value per seed.
    pub fn new(values: Vec<f64>) -> Self {
        Accuracy { mean: mean(&values), std: std_dev(&values), values }
    }
}

/// The accuracy of one representation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The method that produced the features.
    pub model: Method,
    /// The layer of the features.
    pub space: Space,
    /// Whether the images were in color.
    #[serde(rename = "colour")]
    pub color: Color,
    /// Patches or the whole image.
    pub view: View,
    /// The number of averaged patches; 1 for the whole image.
    pub patches: usize,
    /// The accuracy by weighted nearest neighbors.
    pub knn: Accuracy,
    /// The accuracy by a linear probe.
    pub linear: Accuracy,
}

/// The similarity of the mean of patches to the whole image, over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Convergence {
    /// The method that produced the features.
    pub model: Method,
    /// The number of averaged patches.
    pub patches: usize,
    /// The cosine of the mean of the patches' embeddings to the embedding of the whole image,
    /// averaged over images and seeds.
    pub cosine: f64,
    /// The standard deviation over images, averaged over seeds.
    pub image_std: f64,
    /// The standard deviation over seeds.
    pub seed_std: f64,
}

impl Convergence {
    /// Joins the curves of several seeds. `seeds` has, for each seed, the closeness for several
    /// numbers of patches. Numbers of patches that some seeds lack are omitted.
    pub fn from_seeds(model: Method, seeds: &[Vec<ConvergencePoint>]) -> Vec<Self> {
        let Some(first) = seeds.first() else { return vec![] };
        let at = |patches: usize| -> Option<Self> {
            let here: Option<Vec<&ConvergencePoint>> =
                seeds.iter().map(|seed| seed.iter().find(|point| point.patches == patches)).collect();
            let here = here?;
            let cosines: Vec<f64> = here.iter().map(|point| point.cosine).collect();
            let spreads: Vec<f64> = here.iter().map(|point| point.deviation).collect();
            let (cosine, seed_std) = (mean(&cosines), std_dev(&cosines));
            Some(Convergence { model, patches, cosine, image_std: mean(&spreads), seed_std })
        };
        first.iter().filter_map(|point| at(point.patches)).collect()
    }
}

/// The metrics of one training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The trained method.
    pub model: Method,
    /// The seed of the run.
    pub seed: u64,
    /// The points in the order of the steps.
    pub points: Vec<CurvePoint>,
}

/// The metrics at one point of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The number of completed steps.
    pub step: u64,
    /// The number of completed epochs.
    pub epoch: f64,
    /// The loss, its terms and other metrics, by name.
    pub figures: BTreeMap<String, f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_json() {
        for model in Method::TRAINED.into_iter().chain([Method::Random, Method::Pixels, Method::Histogram]) {
            assert_eq!(serde_json::to_value(model).unwrap(), model.name());
        }
        for space in [Space::Embedding, Space::FirstLayer, Space::Projection, Space::Input] {
            assert_eq!(serde_json::to_value(space).unwrap(), space.name());
        }
        for color in [Color::Rgb, Color::Grey] {
            assert_eq!(serde_json::to_value(color).unwrap(), color.name());
        }
    }

    #[test]
    fn seeds_are_joined_by_hand() {
        let point = |patches, cosine, deviation| ConvergencePoint { patches, cosine, deviation, distance: 0.0 };
        let seeds = [vec![point(1, 0.5, 0.1), point(4, 0.8, 0.2)], vec![point(4, 0.6, 0.4), point(1, 0.7, 0.3)]];
        let joined = Convergence::from_seeds(Method::Random, &seeds);
        assert_eq!(joined.iter().map(|point| point.patches).collect::<Vec<_>>(), [1, 4]);
        assert!((joined[1].cosine - 0.7).abs() < 1e-12 && (joined[1].image_std - 0.3).abs() < 1e-12);
        assert!((joined[1].seed_std - 0.02f64.sqrt()).abs() < 1e-12);
        assert!(Convergence::from_seeds(Method::Random, &[]).is_empty());
    }
}
