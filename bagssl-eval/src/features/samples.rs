//! Labeled samples, and the score of a classifier on them.

use crate::draw::Draw;
use crate::error::{Error, Result, same_length};
use crate::features::table::{RowsView, Table};

/// Feature vectors with their classes. There is at least one, and all values are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    rows: Table,
    labels: Vec<u32>,
}

impl Samples {
    /// Creates samples from rows and their classes.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Length`], or [`Error::NotFinite`] with the row.
    pub fn new(rows: impl Into<Table>, labels: Vec<u32>) -> Result<Self> {
        let rows = rows.into();
        if rows.is_empty() {
            return Err(Error::Empty("samples"));
        }
        same_length("sample values", rows.len() * rows.dim, rows.values.len())?;
        same_length("sample labels", rows.len(), labels.len())?;
        check_finite("samples", rows.view())?;
        Ok(Samples { rows, labels })
    }

    /// The feature vectors.
    pub fn rows(&self) -> RowsView<'_> {
        self.rows.view()
    }

    /// The class of each sample.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there are no samples. Checked samples have at least one.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the classes that occur, in ascending order.
    pub fn classes(&self) -> Vec<u32> {
        let mut classes = self.labels.clone();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Splits the samples at random, and returns the kept and the held-out ones. `share` is the
    /// held-out fraction; both parts have at least one sample.
    ///
    /// # Errors
    /// [`Error::Setting`] if `share` is not between 0 and 1 or there are fewer than two samples.
    /// [`Error::Write`] if the samples are in a file and the new files cannot be written.
    pub(crate) fn hold_out(&self, share: f64, seed: u64) -> Result<(Samples, Samples)> {
        if !(share > 0.0 && share < 1.0) || self.len() < 2 {
            let got = format!("{share} of {} samples", self.len());
            let expected = "a fraction between 0 and 1 of at least two samples".into();
            return Err(Error::Setting { name: "held-out fraction", expected, got });
        }
        let order = Draw::HoldOut.stream(seed).permutation(self.len() as u32);
        let out = ((self.len() as f64 * share).round() as usize).clamp(1, self.len() - 1);
        Ok((self.pick(&order[out..])?, self.pick(&order[..out])?))
    }

    fn pick(&self, numbers: &[u32]) -> Result<Samples> {
        let dim = self.rows.dim;
        let mut values = self.rows.values.writer_beside(numbers.len() * dim)?;
        numbers.iter().try_for_each(|&number| values.extend(self.rows.row(number as usize)))?;
        let labels = numbers.iter().map(|&number| self.labels[number as usize]).collect();
        Ok(Samples { rows: Table { values: values.finish()?, dim }, labels })
    }

    /// Returns an error if the rows and the samples have different dimensions.
    pub(crate) fn check_dim(&self, rows: RowsView<'_>) -> Result<()> {
        same_length("feature length", self.rows.dim, rows.dim)
    }
}

/// The number of top predictions for [`Score::top5`].
pub(crate) const TOP_K: usize = 5;

/// The predictions of a classifier and their accuracy.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The predicted class of each sample.
    pub predictions: Vec<u32>,
    /// The top-1 accuracy in percent.
    pub accuracy: f64,
    /// The top-5 accuracy in percent: the share of samples whose class is among the five most
    /// likely ones. A nearest-neighbor classifier only predicts classes that occur among the
    /// neighbors.
    pub top5: f64,
    /// The convergence of the fit, if the classifier is trained to an optimum.
    pub fit: Option<Fit>,
}

/// The convergence of a regression.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fit {
    /// Whether the largest component of the gradient fell below the tolerance.
    pub converged: bool,
    /// The number of iterations.
    pub iterations: usize,
    /// The largest component of the final gradient.
    pub gradient: f64,
}

impl Score {
    /// Compares predictions to labels. `ranks` has, for each sample, the predicted classes, the most
    /// likely first.
    ///
    /// # Panics
    /// If `ranks` and `labels` have different lengths, there are no samples, or a sample has no
    /// prediction.
    pub(crate) fn new(ranks: &[Vec<u32>], labels: &[u32]) -> Self {
        assert!(!labels.is_empty() && ranks.len() == labels.len(), "one prediction per label");
        let share = |count: usize| {
            let is_right = |(ranks, label): &(&Vec<u32>, &u32)| ranks.iter().take(count).any(|class| class == *label);
            100.0 * ranks.iter().zip(labels).filter(is_right).count() as f64 / labels.len() as f64
        };
        Score {
            accuracy: share(1),
            top5: share(TOP_K),
            predictions: ranks.iter().map(|ranks| ranks[0]).collect(),
            fit: None,
        }
    }

    /// Returns 100 for each correct sample and 0 for each wrong one. Confidence intervals of the
    /// accuracy are computed from these.
    pub fn hits(&self, labels: &[u32]) -> Vec<f64> {
        self.predictions.iter().zip(labels).map(|(class, label)| f64::from(u8::from(class == label)) * 100.0).collect()
    }
}

/// Returns an error if a value is infinite or NaN. Each row counts as an image of one patch.
pub(crate) fn check_finite(what: &'static str, rows: RowsView<'_>) -> Result<()> {
    let Some(found) = rows.values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (image, index) = (found / rows.dim, found % rows.dim);
    Err(Error::NotFinite { what, image, patch: 0, index, value: rows.values[found] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::Rows;

    fn samples(count: usize) -> Samples {
        let values = (0..count * 2).map(|i| i as f32).collect();
        Samples::new(Rows { values, dim: 2 }, (0..count as u32).map(|i| i * 10).collect()).unwrap()
    }

    #[test]
    fn bad_samples_are_refused() {
        let make = |values: Vec<f32>, dim, labels: usize| Samples::new(Rows { values, dim }, vec![0; labels]);
        assert!(make(vec![1.0; 6], 3, 2).is_ok());
        assert!(matches!(make(vec![], 3, 0), Err(Error::Empty(_))));
        assert!(matches!(make(vec![1.0; 6], 0, 0), Err(Error::Empty(_))));
        assert!(matches!(make(vec![1.0; 7], 3, 2), Err(Error::Length { expected: 6, got: 7, .. })));
        assert!(matches!(make(vec![1.0; 6], 3, 3), Err(Error::Length { expected: 2, got: 3, .. })));
        assert!(matches!(make(vec![1.0, f32::NAN, 2.0, 3.0], 2, 2), Err(Error::NotFinite { image: 0, index: 1, .. })));
    }

    #[test]
    fn a_split_holds_each_sample_once() {
        let all = samples(10);
        let (fitted, held_out) = all.hold_out(0.3, 5).unwrap();
        assert_eq!((fitted.len(), held_out.len()), (7, 3));
        let mut labels = [fitted.labels(), held_out.labels()].concat();
        labels.sort_unstable();
        assert_eq!(labels, all.labels());
        assert!(
            (0..3).all(|i| held_out.rows().row(i)[0] * 5.0 == held_out.labels()[i] as f32),
            "rows stay with their labels"
        );
        assert!([0.0, 1.0, f64::NAN].iter().all(|&share| all.hold_out(share, 5).is_err()));
        assert!(samples(1).hold_out(0.5, 5).is_err());
    }

    #[test]
    fn accuracy_is_in_percent() {
        let ranks = [vec![1], vec![2, 9, 9, 9, 0], vec![3, 1], vec![4, 9, 9, 9, 9, 0]];
        let score = Score::new(&ranks, &[1, 0, 3, 0]);
        assert_eq!((score.accuracy, score.top5), (50.0, 75.0));
        assert_eq!(score.predictions, [1, 2, 3, 4]);
        assert_eq!(score.hits(&[1, 0, 3, 0]), [100.0, 0.0, 100.0, 0.0]);
        assert_eq!(samples(3).classes(), [0, 10, 20]);
    }
}
