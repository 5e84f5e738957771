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
/// use bagssl_eval::classify::classifier::{By, Classifier};
/// use bagssl_eval::classify::probe::Linear;
/// use bagssl_eval::features::samples::Samples;
/// let train = Samples::new(Rows { values: vec![1.0, 2.0, 7.0, 9.0], dim: 1 }, vec![0, 0, 1, 1])?;
/// let by = By::Linear(Linear::default().fit(&train)?);
/// let classifier = Classifier::new(by, vec!["dark".into(), "bright".into()], "a network".into())?;
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
    by: By,
    classes: Vec<String>,
    network: String,
}

/// The method of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum By {
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
    pub fn new(by: By, classes: Vec<String>, network: String) -> Result<Self> {
        let labels = match &by {
            By::Neighbors(_, samples) => samples.classes(),
            By::Linear(model) => model.classes().to_vec(),
        };
        match labels.last() {
            Some(&last) if last as usize >= classes.len() => {
                let expected = format!("a name for class {last}");
                Err(Error::Setting { name: "classes", expected, got: format!("{} names", classes.len()) })
            }
            _ => Ok(Classifier { by, classes, network }),
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
        match &self.by {
            By::Neighbors(_, samples) => samples.rows().dim,
            By::Linear(model) => model.dim,
        }
    }

    /// Describes the method in one line.
    pub fn describe(&self) -> String {
        match &self.by {
            By::Neighbors(knn, samples) => format!("{} samples, {}", samples.len(), knn.describe()),
            By::Linear(model) => format!("a linear probe of {} classes", model.classes().len()),
        }
    }

    /// Returns the class of a representation.
    ///
    /// # Errors
    /// [`Error::Length`] if the representation has a different dimension than the training
    /// features, and [`Error::NotFinite`] if a value is not finite.
    pub fn predict(&self, mean: &[f32]) -> Result<u32> {
        let row = Rows { values: mean.to_vec(), dim: mean.len() };
        Ok(match &self.by {
            By::Neighbors(knn, samples) => knn.predict(samples, &row)?[0],
            By::Linear(model) => model.predict(&row)?[0],
        })
    }

    /// Starts a search for the class of an image of `patches` patches, which are seen in random
    /// order. The search ends as soon as the class is decided, but not before `least` patches. It
    /// uses [`Decision`] for a linear probe and [`Knn::decided`] for neighbors. `confidence` is the
    /// probability over all looks that more patches would not change the class.
    ///
    /// # Errors
    /// [`Error::Core`] if `least` is below 2, or the confidence is not between 0.5 and 0.9999.
    pub fn search(&self, patches: u64, least: u64, confidence: f64) -> Result<Search<'_>> {
        Ok(match &self.by {
            By::Linear(model) => {
                Search::Linear(model, Decision::new(model.classes().len(), patches, least, confidence)?)
            }
            By::Neighbors(knn, samples) => {
                // Check the confidence as the other arm does.
                Decision::new(1, patches, least, confidence)?;
                let seen = Rows { values: vec![], dim: samples.rows().dim };
                let looks = DecisionSchedule::new(least, patches)?;
                Search::Neighbors(Neighbors { knn: *knn, samples, seen, patches, looks, confidence })
            }
        })
    }
}

/// A search for the class of an image.
#[derive(Debug)]
pub enum Search<'a> {
    /// A search with a linear probe.
    Linear(&'a SoftmaxModel, Decision),
    /// A search with nearest neighbors.
    Neighbors(Neighbors<'a>),
}

/// A search with nearest neighbors. It stores the patches seen so far.
#[derive(Debug)]
pub struct Neighbors<'a> {
    knn: Knn,
    samples: &'a Samples,
    seen: Rows,
    patches: u64,
    looks: DecisionSchedule,
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
        match self {
            Search::Linear(model, decision) => {
                let row = Rows { values: embedding.to_vec(), dim: embedding.len() };
                Ok(decision.push(&model.logits(&row)?)? != Next::Continue)
            }
            Search::Neighbors(neighbors) => neighbors.push(embedding),
        }
    }
}

impl Neighbors<'_> {
    /// Checks each patch on arrival, because the looks are few, and the last patch needs none.
    fn push(&mut self, embedding: &[f32]) -> Result<bool> {
        same_length("feature length", self.seen.dim, embedding.len())?;
        check_finite("patches", RowsView { values: embedding, dim: embedding.len() })?;
        if self.seen.len() as u64 >= self.patches {
            let (expected, got) = (self.patches as usize, self.seen.len() + 1);
            return Err(bagssl_core::Error::Length { name: "grid patches", expected, got }.into());
        }
        self.seen.values.extend_from_slice(embedding);
        let count = self.seen.len() as u64;
        if count == self.patches {
            return Ok(true);
        }
        let decided =
            || self.knn.decided(self.samples, &self.seen, self.patches, self.looks.confidence(self.confidence));
        Ok(self.looks.is_due(count) && decided()?.is_some())
    }
}

#[cfg(test)]
mod tests;
