//! Samples: what a classifier learns from, and what it says about others.

use crate::draw::Draw;
use crate::error::{Error, Result, same_length};
use crate::features::table::{RowsView, Table};

/// Feature vectors with their classes: at least one, all finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    rows: Table,
    labels: Vec<u32>,
}

impl Samples {
    /// Joins rows to their classes.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Length`], or [`Error::NotFinite`] naming the row.
    pub fn new(rows: impl Into<Table>, labels: Vec<u32>) -> Result<Self> {
        let rows = rows.into();
        if rows.is_empty() {
            return Err(Error::Empty("samples"));
        }
        same_length("values of samples", rows.len() * rows.dim, rows.values.len())?;
        same_length("labels of samples", rows.len(), labels.len())?;
        check_finite("samples", rows.view())?;
        Ok(Samples { rows, labels })
    }

    /// The feature vectors.
    pub fn rows(&self) -> RowsView<'_> {
        self.rows.view()
    }

    /// Their classes.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none: never, after a check.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The classes that occur, in ascending order.
    pub fn classes(&self) -> Vec<u32> {
        let mut classes = self.labels.clone();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// A random split into what is kept and what is held out: `share` of the samples, at least one on each side.
    ///
    /// # Errors
    /// [`Error::Setting`] if the share is not between 0 and 1 or there are fewer than two samples,
    /// [`Error::Write`] if they are in a file and there is no room for others.
    pub fn hold_out(&self, share: f64, seed: u64) -> Result<(Samples, Samples)> {
        if !(share > 0.0 && share < 1.0) || self.len() < 2 {
            let got = format!("{share} of {}", self.len());
            let expected = "more than 0 and less than 1, of two samples or more".into();
            return Err(Error::Setting { name: "held-out share", expected, got });
        }
        let order = Draw::HoldOut.stream(seed).permutation(self.len() as u32);
        let out = ((self.len() as f64 * share).round() as usize).clamp(1, self.len() - 1);
        Ok((self.pick(&order[out..])?, self.pick(&order[..out])?))
    }

    fn pick(&self, numbers: &[u32]) -> Result<Samples> {
        let dim = self.rows.dim;
        let mut values = self.rows.values.beside(numbers.len() * dim)?;
        numbers.iter().try_for_each(|&number| values.extend(self.rows.row(number as usize)))?;
        let labels = numbers.iter().map(|&number| self.labels[number as usize]).collect();
        Ok(Samples { rows: Table { values: values.finish()?, dim }, labels })
    }

    /// Refuses rows of another length than the samples'.
    pub(crate) fn check_dim(&self, rows: RowsView<'_>) -> Result<()> {
        same_length("length of a feature", self.rows.dim, rows.dim)
    }
}

/// How many of the classes said a right one may be among to count for [`Score::top5`].
pub(crate) const TOP: usize = 5;

/// What a classifier said.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The class given to each sample.
    pub predictions: Vec<u32>,
    /// Share of right ones (top 1), in percent.
    pub accuracy: f64,
    /// Share of samples whose class is among the five that the classifier takes for likeliest, in percent. Neighbors speak
    /// only for the classes that are among them.
    pub top5: f64,
    /// Whether the classifier was trained to its optimum, where it has one.
    pub fit: Option<Fit>,
}

/// How a regression's solution ended.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fit {
    /// Whether the gradient came below the tolerance.
    pub converged: bool,
    /// Iterations that were made.
    pub iterations: usize,
    /// The largest component of the gradient at the end.
    pub gradient: f64,
}

impl Score {
    /// Compares what was said to the classes: for each sample some classes, the likeliest first.
    ///
    /// # Panics
    /// If there are not as many samples as labels, or none, or one of which nothing is said.
    pub fn new(said: &[Vec<u32>], labels: &[u32]) -> Self {
        assert!(!labels.is_empty() && said.len() == labels.len(), "a prediction for each label");
        let share = |count: usize| {
            let is_right = |(said, label): &(&Vec<u32>, &u32)| said.iter().take(count).any(|said| said == *label);
            100.0 * said.iter().zip(labels).filter(is_right).count() as f64 / labels.len() as f64
        };
        Score {
            accuracy: share(1),
            top5: share(TOP),
            predictions: said.iter().map(|said| said[0]).collect(),
            fit: None,
        }
    }

    /// For each sample 100 if it is right, else 0: what intervals of the accuracy are drawn from.
    pub fn hits(&self, labels: &[u32]) -> Vec<f64> {
        self.predictions.iter().zip(labels).map(|(said, label)| f64::from(u8::from(said == label)) * 100.0).collect()
    }
}

/// Refuses values that are infinite or not a number. Rows count as images of one patch.
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
        let (kept, out) = all.hold_out(0.3, 5).unwrap();
        assert_eq!((kept.len(), out.len()), (7, 3));
        let mut labels = [kept.labels(), out.labels()].concat();
        labels.sort_unstable();
        assert_eq!(labels, all.labels());
        assert!((0..3).all(|i| out.rows().row(i)[0] * 5.0 == out.labels()[i] as f32), "rows stay with their labels");
        assert!([0.0, 1.0, f64::NAN].iter().all(|&share| all.hold_out(share, 5).is_err()));
        assert!(samples(1).hold_out(0.5, 5).is_err());
    }

    #[test]
    fn accuracy_is_in_percent() {
        let said = [vec![1], vec![2, 9, 9, 9, 0], vec![3, 1], vec![4, 9, 9, 9, 9, 0]];
        let score = Score::new(&said, &[1, 0, 3, 0]);
        assert_eq!((score.accuracy, score.top5), (50.0, 75.0));
        assert_eq!(score.predictions, [1, 2, 3, 4]);
        assert_eq!(score.hits(&[1, 0, 3, 0]), [100.0, 0.0, 100.0, 0.0]);
        assert_eq!(samples(3).classes(), [0, 10, 20]);
    }
}
