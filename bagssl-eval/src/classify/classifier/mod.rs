//! Stored classifiers: fitted once to labeled images, then applied to others patch by patch.

mod file;
mod memory;

use bagssl_core::anytime::{Decision, DecisionSchedule, Next};
use bagssl_core::embed::Rows;

use crate::classify::knn::Knn;
use crate::classify::probe::SoftmaxModel;
use crate::error::{Error, Result, same_length};
use crate::features::samples::{Samples, check_finite};
use crate::features::table::RowsView;

/// A classifier of representations, with the names of its classes and of the network whose features
/// it takes.
///
/// # Example
/// ```
/// use bagssl_core::embed::Rows;
/// use bagssl_eval::{ClassifierKind, Classifier};
/// use bagssl_eval::Linear;
/// use bagssl_eval::Samples;
/// let train = Samples::new(Rows { values: vec![1.0, 2.0, 7.0, 9.0], dim: 1 }, vec![0, 0, 1, 1])?;
/// let kind = ClassifierKind::Linear(Linear::default().fit(&train)?);
/// let classifier = Classifier::new(kind, vec!["dark".into(), "bright".into()], "a network".into())?;
/// let again = Classifier::from_bytes(&classifier.to_bytes()?)?;
/// assert_eq!(again.classes()[again.predict(&[8.0])? as usize], "bright");
///
/// // Eight similar patches decide the class of an image of 400 patches.
/// let mut search = again.search(400, 8, 0.95)?;
/// let patches = [6.0, 8.0, 7.5, 9.0, 7.0, 6.5, 8.5, 8.0];
/// let last = patches.iter().position(|&patch| search.push(&[patch]).unwrap());
/// assert_eq!(last, Some(7));
/// # Ok::<(), bagssl_eval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    kind: ClassifierKind,
    classes: Vec<String>,
    network: String,
}

/// The method of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum ClassifierKind {
    /// Nearest neighbors among these samples.
    Neighbors(Knn, Samples),
    /// A linear probe.
    Linear(SoftmaxModel),
}

impl Classifier {
    /// Creates a classifier. `classes` has the class names, indexed by class, and `network`
    /// identifies the network and its layer.
    ///
    /// # Errors
    /// [`Error::Setting`] if a class has no name.
    pub fn new(kind: ClassifierKind, classes: Vec<String>, network: String) -> Result<Self> {
        let labels = match &kind {
            ClassifierKind::Neighbors(_, samples) => samples.classes(),
            ClassifierKind::Linear(model) => model.classes().to_vec(),
        };
        match labels.last() {
            Some(&last) if last as usize >= classes.len() => {
                let expected = format!("a name for class {last}");
                Err(Error::Setting { name: "classes", expected, got: format!("{} names", classes.len()) })
            }
            _ => Ok(Classifier { kind, classes, network }),
        }
    }

    /// The class names, indexed by class.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The text that identifies the network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The length of a feature.
    pub fn dim(&self) -> usize {
        match &self.kind {
            ClassifierKind::Neighbors(_, samples) => samples.rows().dim,
            ClassifierKind::Linear(model) => model.dim,
        }
    }

    /// Describes the method in one line.
    pub fn describe(&self) -> String {
        match &self.kind {
            ClassifierKind::Neighbors(knn, samples) => format!("{} samples, {}", samples.len(), knn.describe()),
            ClassifierKind::Linear(model) => format!("a linear probe of {} classes", model.classes().len()),
        }
    }

    /// Returns the class of a representation.
    ///
    /// # Errors
    /// [`Error::Length`] if the representation has a different dimension than the training
    /// features, and [`Error::NotFinite`] if a value is not finite.
    pub fn predict(&self, mean: &[f32]) -> Result<u32> {
        let row = Rows { values: mean.to_vec(), dim: mean.len() };
        Ok(match &self.kind {
            ClassifierKind::Neighbors(knn, samples) => knn.predict(samples, &row)?[0],
            ClassifierKind::Linear(model) => model.predict(&row)?[0],
        })
    }

    /// Starts a search for the class of an image of `patches` patches, which arrive in random
    /// order. The search ends as soon as the class is decided, but not before `min_patches` patches. It
    /// uses [`Decision`] for a linear probe and [`Knn::decide`] for neighbors. `confidence` is the
    /// probability over all decisions that more patches would not change the class.
    ///
    /// # Errors
    /// [`Error::Core`] if `min_patches` is below 2, or the confidence is not between 0.5 and 0.9999.
    pub fn search(&self, patches: u64, min_patches: u64, confidence: f64) -> Result<Search<'_>> {
        Ok(Search(match &self.kind {
            ClassifierKind::Linear(model) => {
                SearchKind::Linear(model, Decision::new(model.classes().len(), patches, min_patches, confidence)?)
            }
            ClassifierKind::Neighbors(knn, samples) => {
                // Check the confidence as the other arm does.
                Decision::new(1, patches, min_patches, confidence)?;
                let embeddings = Rows { values: vec![], dim: samples.rows().dim };
                let schedule = DecisionSchedule::new(min_patches, patches)?;
                SearchKind::Neighbors(NeighborSearch { knn: *knn, samples, embeddings, patches, schedule, confidence })
            }
        }))
    }
}

/// A search for the class of an image; see [`Classifier::search`].
#[derive(Debug)]
pub struct Search<'a>(SearchKind<'a>);

#[derive(Debug)]
enum SearchKind<'a> {
    Linear(&'a SoftmaxModel, Decision),
    Neighbors(NeighborSearch<'a>),
}

/// A search with nearest neighbors. It stores the embeddings so far.
#[derive(Debug)]
struct NeighborSearch<'a> {
    knn: Knn,
    samples: &'a Samples,
    embeddings: Rows,
    patches: u64,
    schedule: DecisionSchedule,
    confidence: f64,
}

impl Search<'_> {
    /// Adds the embedding of one more patch, drawn without replacement. Returns whether the class
    /// is decided.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if the embedding has the wrong length or a value
    /// that is not finite. [`Error::Core`] if there are more patches than the image has.
    pub fn push(&mut self, embedding: &[f32]) -> Result<bool> {
        match &mut self.0 {
            SearchKind::Linear(model, decision) => {
                let row = Rows { values: embedding.to_vec(), dim: embedding.len() };
                Ok(decision.push(&model.logits(&row)?)? != Next::Continue)
            }
            SearchKind::Neighbors(neighbors) => neighbors.push(embedding),
        }
    }
}

impl NeighborSearch<'_> {
    /// Checks each patch on arrival, because decisions are few, and the last patch needs none.
    fn push(&mut self, embedding: &[f32]) -> Result<bool> {
        same_length("feature length", self.embeddings.dim, embedding.len())?;
        check_finite("patches", RowsView { values: embedding, dim: embedding.len() })?;
        if self.embeddings.len() as u64 >= self.patches {
            let (expected, got) = (self.patches as usize, self.embeddings.len() + 1);
            return Err(bagssl_core::Error::Length { name: "grid patches", expected, got }.into());
        }
        self.embeddings.values.extend_from_slice(embedding);
        let count = self.embeddings.len() as u64;
        if count == self.patches {
            return Ok(true);
        }
        let decide =
            || self.knn.decide(self.samples, &self.embeddings, self.patches, self.schedule.confidence(self.confidence));
        Ok(self.schedule.is_due(count) && decide()?.is_some())
    }
}

#[cfg(test)]
mod tests;
