//! What do training methods differ in, and what does each gain from averaging patches?

mod page;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_eval::Origin;
use bagssl_eval::stats::{Interval, grouped_bootstrap, mean, paired_difference, std_dev};
use bagssl_eval::{Order, intersect_images};
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::subject::Subject;
use crate::error::{Error, Result};
use crate::eval_options::EvalOptions;
use crate::evaluation::BOOTSTRAP_DRAWS;
use crate::model::Model;
use crate::splits::Splits;

/// Measures the accuracy of the embedding on whole images and averaged over patches, and compares methods.
///
/// Models of the same preset count as seeds of one method. Models trained elsewhere are named after themselves. Each method is
/// compared with the first one. Differences have two 95 % intervals. The interval over seeds (Student's t for pairs of the same
/// seed) requires that both methods were trained by this project with the same seeds. The interval over test images is a cluster
/// bootstrap over groups of images, with seeds averaged.
///
/// # Source
/// BagSSL, arXiv:2206.08954.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compare {
    /// Whether images are in color or converted to grayscale.
    pub color: Color,
    /// Whether to skip the linear probes, which take most of the time.
    pub only_knn: bool,
}

/// The images that a model classifies correctly.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelHits {
    name: String,
    method: String,
    /// The training seed, if the model was trained by this project; the method is then its
    /// preset. `None` for other models.
    seed: Option<u64>,
    origin: Origin,
    patches: usize,
    /// The images of both splits that are usable in all views, training first.
    images: [Vec<u32>; 2],
    /// The groups of the test images.
    groups: Vec<u32>,
    /// For each measure, 100 for each correctly classified test image and 0 for the others.
    hits: BTreeMap<Measure, Vec<f64>>,
}

/// The classifier, and the view of an image that it classifies.
type Measure = (&'static str, &'static str);

const WHOLE: &str = "whole image";
const PATCHES: &str = "patches";

/// Methods side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareReport {
    /// The methods, in the order in which they come first among the models.
    pub methods: Vec<MethodAccuracy>,
    /// The origins of the compared models, one per model.
    pub origins: Vec<MethodOrigin>,
}

/// A model's method and origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodOrigin {
    /// The method's name.
    pub method: String,
    /// What the result depends on.
    #[serde(flatten)]
    pub origin: Origin,
}

/// The accuracies of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodAccuracy {
    /// The method's name.
    pub name: String,
    /// The number of seeds.
    pub seeds: usize,
    /// Patches per image: more than one value if the method's models differ in patch size.
    pub patches: Vec<usize>,
    /// The accuracy of each classifier on each view.
    pub measures: Vec<MeasuredAccuracy>,
}

/// The accuracy of a method for one classifier and view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredAccuracy {
    /// The classifier: `kNN` or `linear`.
    pub classifier: String,
    /// The view: `whole image` or `patches`.
    pub view: String,
    /// The mean over the seeds, in percent.
    pub mean: f64,
    /// The sample standard deviation over the seeds (`n - 1`).
    pub deviation: f64,
    /// The 95 % interval over groups of test images. `None` if all test images are one group.
    #[serde(rename = "over_groups")]
    pub group_interval: Option<Interval>,
    /// The difference from the first method.
    #[serde(rename = "less_first")]
    pub difference_from_first: Option<Difference>,
    /// The patches' average minus the whole image, in the row of the patches.
    #[serde(rename = "less_whole")]
    pub difference_from_whole: Option<Difference>,
}

/// A difference of accuracies, in percentage points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The difference of the means.
    pub mean: f64,
    /// The 95 % interval over pairs of seeds. `None` if the seeds form no pairs.
    #[serde(rename = "over_seeds")]
    pub seed_interval: Option<Interval>,
    /// The 95 % interval over groups of test images. `None` if all test images are one group.
    #[serde(rename = "over_groups")]
    pub group_interval: Option<Interval>,
}

impl Default for Compare {
    /// Images in color, with linear probes.
    fn default() -> Self {
        Compare { color: Color::Rgb, only_knn: false }
    }
}

impl Claim for Compare {
    type Measurement = ModelHits;
    type Report = CompareReport;

    fn layers(&self) -> &'static [FeatureLayer] {
        &[FeatureLayer::Embedding]
    }

    fn measure(&self, model: &Model<'_>, splits: &Splits, options: &EvalOptions<'_>) -> Result<ModelHits> {
        let subject = Subject::new(model, splits, options, self.color)?;
        let mut whole = subject.train_and_test(Bag::Whole, self.layers())?;
        let mut patches = subject.train_and_test(subject.bag, self.layers())?;
        // An image that is smaller than a patch has no patches, but it does have a whole-image view.
        for (whole, patches) in whole.iter_mut().zip(&mut patches) {
            intersect_images([whole, patches])?;
        }
        let protocol = &options.protocol;
        let mut hits = BTreeMap::new();
        for (view, features) in [(WHOLE, &whole), (PATCHES, &patches)] {
            let samples = |split: usize| features[split][0].samples(features[split][0].patches(), Order::Given);
            let (train, test) = (samples(0)?, samples(1)?);
            hits.insert(("kNN", view), protocol.knn.evaluate(&train, &test)?.hits(test.labels()));
            if !self.only_knn {
                let linear = protocol.probe(&train, options.seed)?.evaluate(&train, &test)?;
                hits.insert(("linear", view), linear.hits(test.labels()));
            }
        }
        let trained = &model.spec.provenance;
        let seed = (trained.steps > 0 && !trained.preset.is_empty()).then_some(trained.seed);
        Ok(ModelHits {
            name: model.name.clone(),
            method: if seed.is_some() { trained.preset.clone() } else { model.name.clone() },
            seed,
            patches: patches[1][0].patches(),
            images: whole.each_ref().map(|split| split[0].images().to_vec()),
            groups: subject.groups(&whole[1][0])?,
            hits,
            origin: subject.origin,
        })
    }

    /// Joins the measurements of all models.
    ///
    /// # Errors
    /// [`Error::OtherImages`] if a model was measured on other images than the first one: one with larger patches may skip more
    /// images. [`Error::Setting`] if there are no models.
    fn report(&self, measurements: Vec<ModelHits>, options: &EvalOptions<'_>) -> Result<CompareReport> {
        if measurements.is_empty() {
            return Err(Error::Setting { name: "models", expected: "at least one".into(), got: "none".into() });
        }
        let models = mark_imported(measurements);
        same_images(&models)?;
        let methods = methods(&models, options.seed)?;
        let origin = |ModelHits { method, origin, .. }| MethodOrigin { method, origin };
        Ok(CompareReport { methods, origins: models.into_iter().map(origin).collect() })
    }
}

/// Checks that all models were measured on the same images, by the same classifiers.
fn same_images(models: &[ModelHits]) -> Result<()> {
    let first = &models[0];
    if models.iter().any(|other| !other.hits.keys().eq(first.hits.keys())) {
        let (expected, got) = ("the same for all models".into(), "both".into());
        return Err(Error::Setting { name: "only_knn", expected, got });
    }
    let Some(other) = models.iter().find(|other| other.images != first.images) else { return Ok(()) };
    let count =
        |model: &ModelHits| format!("{} training and {} test images", model.images[0].len(), model.images[1].len());
    let [model, first_name] = [other, first].map(|model| model.name.clone());
    Err(Error::OtherImages { model, first: first_name, expected: count(first), got: count(other) })
}

/// Renames models from elsewhere that share a name with a method of this project, so that they do
/// not count as its seeds.
fn mark_imported(mut models: Vec<ModelHits>) -> Vec<ModelHits> {
    let ours: Vec<String> = models.iter().filter(|it| it.seed.is_some()).map(|it| it.method.clone()).collect();
    for other in models.iter_mut().filter(|it| it.seed.is_none() && ours.contains(&it.method)) {
        other.method += " (imported)";
    }
    models
}

fn methods(models: &[ModelHits], seed: u64) -> Result<Vec<MethodAccuracy>> {
    let mut names: Vec<&str> = Vec::new();
    for model in models {
        if !names.contains(&model.method.as_str()) {
            names.push(&model.method);
        }
    }
    // Sort by seed, so that pairs over the seeds do not depend on the order of the files.
    let models_of = |name: &str| {
        let mut selected: Vec<&ModelHits> = models.iter().filter(|model| model.method == name).collect();
        selected.sort_by_key(|model| model.seed);
        selected
    };
    let first = models_of(names[0]);
    let method = |name: &str| -> Result<MethodAccuracy> {
        let selected = models_of(name);
        let measure = |&measure: &Measure| -> Result<MeasuredAccuracy> {
            let seeds = accuracies(&selected, measure);
            let difference_from =
                |others: &[&ModelHits], other: Measure| difference(&selected, measure, others, other, seed).map(Some);
            let (classifier, view) = measure;
            Ok(MeasuredAccuracy {
                classifier: classifier.into(),
                view: view.into(),
                mean: mean(&seeds),
                deviation: std_dev(&seeds),
                group_interval: grouped_bootstrap(
                    &mean_hits(&selected, measure),
                    &selected[0].groups,
                    BOOTSTRAP_DRAWS,
                    seed,
                )?,
                difference_from_first: if name == names[0] { None } else { difference_from(&first, measure)? },
                difference_from_whole: if view == PATCHES {
                    difference_from(&selected, (classifier, WHOLE))?
                } else {
                    None
                },
            })
        };
        let measures = selected[0].hits.keys().map(measure).collect::<Result<_>>()?;
        let mut patches: Vec<usize> = selected.iter().map(|model| model.patches).collect();
        patches.sort_unstable();
        patches.dedup();
        Ok(MethodAccuracy { name: name.into(), seeds: selected.len(), patches, measures })
    };
    names.iter().map(|name| method(name)).collect()
}

fn difference(a: &[&ModelHits], of_a: Measure, b: &[&ModelHits], of_b: Measure, seed: u64) -> Result<Difference> {
    let (this, other) = (accuracies(a, of_a), accuracies(b, of_b));
    let seed_interval = if are_pairs(a, b) { paired_difference(&this, &other)? } else { None };
    let (ours, theirs) = (mean_hits(a, of_a), mean_hits(b, of_b));
    let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect();
    let group_interval = grouped_bootstrap(&each, &a[0].groups, BOOTSTRAP_DRAWS, seed)?;
    Ok(Difference { mean: mean(&this) - mean(&other), seed_interval, group_interval })
}

/// Returns whether the checkpoints, sorted by seed, form pairs of the same known seed, with each
/// seed once.
fn are_pairs(a: &[&ModelHits], b: &[&ModelHits]) -> bool {
    let is_known = a.iter().all(|model| model.seed.is_some());
    let is_once = a.windows(2).all(|pair| pair[0].seed < pair[1].seed);
    is_known && is_once && a.iter().map(|model| model.seed).eq(b.iter().map(|model| model.seed))
}

fn accuracies(models: &[&ModelHits], measure: Measure) -> Vec<f64> {
    models.iter().map(|model| mean(&model.hits[&measure])).collect()
}

/// Returns for each test image the percentage of seeds that classify it correctly.
fn mean_hits(models: &[&ModelHits], measure: Measure) -> Vec<f64> {
    let images = models[0].groups.len();
    (0..images)
        .map(|image| models.iter().map(|model| model.hits[&measure][image]).sum::<f64>() / models.len() as f64)
        .collect()
}
