//! The linear classifier, and the softmax cross entropy that trains it.

use bagssl_core::embed::Rows;
use bagssl_core::explain;

use crate::error::{Result, same_length};
use crate::features::samples::{Samples, check_finite};
use crate::features::table::RowsView;
use crate::numerics::matrix::{Matrix, multiply};

/// The number of rows that are converted to `f64` at a time.
pub(super) const BLOCK: usize = 256;

/// A linear classifier: predicts the class with the largest logit, `weights x + bias`. It takes
/// unmodified features. Any standardization during training is affine, and folded into the weights
/// and the bias. So the logits of a mean of patches are the mean of the patches' logits. This does
/// not hold for probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftmaxModel {
    /// The classes, in ascending order.
    pub(crate) classes: Vec<u32>,
    /// The weights, `[class, dim]`, followed by the biases, `[class]`.
    pub(crate) parameters: Vec<f64>,
    /// The length of a feature.
    pub(crate) dim: usize,
}

impl SoftmaxModel {
    /// Creates a model with all parameters 0.
    pub(super) fn zero(train: &Samples) -> Self {
        let (classes, dim) = (train.classes(), train.rows().dim);
        SoftmaxModel { parameters: vec![0.0; classes.len() * (dim + 1)], classes, dim }
    }

    /// The classes, in ascending order.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// The weights, `[class, dim]`.
    pub fn weights(&self) -> &[f64] {
        &self.parameters[..self.classes.len() * self.dim]
    }

    /// The biases, `[class]`.
    pub fn bias(&self) -> &[f64] {
        &self.parameters[self.classes.len() * self.dim..]
    }

    /// Returns the class of each row. Ties go to the smallest class.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length) if the rows have a different dimension than the
    /// training features, and [`Error::NotFinite`](crate::Error::NotFinite) if a value is not
    /// finite.
    pub fn predict<'a>(&self, rows: impl Into<RowsView<'a>>) -> Result<Vec<u32>> {
        Ok(self.rank(rows, 1)?.iter().map(|ranks| ranks[0]).collect())
    }

    /// Returns the most likely classes of each row, at most `count`, in descending order. Ties are
    /// in ascending order of the classes.
    ///
    /// # Errors
    /// The errors of [`SoftmaxModel::predict`].
    pub(crate) fn rank<'a>(&self, rows: impl Into<RowsView<'a>>, count: usize) -> Result<Vec<Vec<u32>>> {
        // Rank by logits: the probabilities of unlikely classes underflow to 0.
        let logits = self.logits(rows)?;
        let of_row = |row: &[f64]| {
            let mut places: Vec<usize> = (0..row.len()).collect();
            places.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            places.into_iter().take(count.max(1)).map(|place| self.classes[place]).collect()
        };
        Ok(logits.chunks_exact(self.classes.len()).map(of_row).collect())
    }

    /// Returns the probability of each class, `[row, class]`.
    ///
    /// # Errors
    /// The errors of [`SoftmaxModel::predict`].
    pub fn probabilities<'a>(&self, rows: impl Into<RowsView<'a>>) -> Result<Vec<f64>> {
        let mut probabilities = self.logits(rows)?;
        probabilities.chunks_exact_mut(self.classes.len()).for_each(|row| {
            softmax(row);
        });
        Ok(probabilities)
    }

    /// Returns the logits of each class, `[row, class]`. A
    /// [`Decision`](bagssl_core::anytime::Decision) takes the logits of patches and decides when
    /// enough of them have been seen.
    ///
    /// # Errors
    /// The errors of [`SoftmaxModel::predict`].
    ///
    /// # Example
    /// ```
    /// use bagssl_core::anytime::{Decision, Next, Reason};
    /// use bagssl_core::embed::Rows;
    /// use bagssl_eval::Linear;
    /// use bagssl_eval::Samples;
    /// let train = Samples::new(Rows { values: vec![1.0, 2.0, 7.0, 9.0], dim: 1 }, vec![0, 0, 3, 3])?;
    /// let model = Linear::default().fit(&train)?;
    /// // The first eight patches of an image of 400 are similar enough to decide its class.
    /// let patches = Rows { values: vec![6.0, 8.0, 7.5, 9.0, 7.0, 6.5, 8.5, 8.0], dim: 1 };
    /// let mut decision = Decision::new(model.classes().len(), 400, 8, 0.95)?;
    /// let next = model.logits(&patches)?.chunks(2).map(|logits| decision.push(logits)).last().unwrap()?;
    /// assert_eq!(next, Next::Stop(Reason::Decided));
    /// assert_eq!(model.classes()[decision.leader().unwrap()], 3);
    /// # Ok::<(), bagssl_eval::Error>(())
    /// ```
    pub fn logits<'a>(&self, rows: impl Into<RowsView<'a>>) -> Result<Vec<f64>> {
        let rows = rows.into();
        same_length("feature length", self.dim, rows.dim)?;
        check_finite("samples", rows)?;
        let mut all = Vec::with_capacity(rows.len() * self.classes.len());
        for block in rows.values.chunks(BLOCK * self.dim) {
            let block: Vec<f64> = block.iter().map(|&value| f64::from(value)).collect();
            all.extend(logits(&self.parameters, self.classes.len(), &block, self.dim));
        }
        Ok(all)
    }

    /// Returns the evidence of each patch of an image for each class, `[patch, class]`. The sum
    /// over the patches plus the bias is the logit of their mean. This is exact for logits, but not
    /// for probabilities.
    ///
    /// # Errors
    /// The errors of [`SoftmaxModel::predict`], and those of [`evidence`](explain::evidence) if
    /// there is no patch.
    pub fn evidence(&self, patches: &Rows) -> Result<Vec<f64>> {
        same_length("feature length", self.dim, patches.dim)?;
        check_finite("patches", patches.into())?;
        Ok(explain::evidence(patches, self.weights(), self.classes.len())?)
    }
}

/// Returns `x weights^T + bias` for each row, `[row, class]`.
pub(super) fn logits(parameters: &[f64], classes: usize, rows: &[f64], dim: usize) -> Vec<f64> {
    let (weights, bias) = parameters.split_at(classes * dim);
    let count = rows.len() / dim;
    let mut logits = bias.repeat(count);
    multiply(Matrix::new(rows, count, dim), Matrix::new(weights, classes, dim).t(), 1.0, &mut logits);
    logits
}

/// Returns the summed cross entropy of the rows, and adds its gradient to `gradient`, which has the
/// layout of the parameters.
///
/// # Shapes
/// - `rows`: `[row, dim]`
/// - `targets`: for each row, the index of its class
pub(super) fn add_cross_entropy(
    parameters: &[f64],
    classes: usize,
    rows: &[f64],
    targets: &[usize],
    gradient: &mut [f64],
) -> f64 {
    let count = targets.len();
    let dim = rows.len() / count;
    let mut errors = logits(parameters, classes, rows, dim);
    let mut loss = 0.0;
    for (row, &target) in errors.chunks_exact_mut(classes).zip(targets) {
        let logit = row[target];
        loss += softmax(row) - logit;
        row[target] -= 1.0;
    }
    let (weights, bias) = gradient.split_at_mut(classes * dim);
    multiply(Matrix::new(&errors, count, classes).t(), Matrix::new(rows, count, dim), 1.0, weights);
    for row in errors.chunks_exact(classes) {
        bias.iter_mut().zip(row).for_each(|(bias, error)| *bias += error);
    }
    loss
}

/// Converts logits to probabilities in place. Returns the log-sum-exp of the logits.
fn softmax(row: &mut [f64]) -> f64 {
    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|value| *value = (*value - greatest).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
    greatest + sum.ln()
}

/// Returns the index of each sample's class in `classes`.
pub(super) fn targets(train: &Samples, classes: &[u32]) -> Vec<usize> {
    let place = |label| classes.binary_search(label).expect("the classes are those of the samples");
    train.labels().iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_by_hand() {
        let mut row = [1000.0, 1000.0 + 3f64.ln()];
        let sum = softmax(&mut row);
        assert!((sum - 1000.0 - 4f64.ln()).abs() < 1e-12);
        assert!((row[0] - 0.25).abs() < 1e-12 && (row[1] - 0.75).abs() < 1e-12);
    }

    /// Two classes and zero weights: the loss is ln 2, and the errors are -1/2 and 1/2.
    #[test]
    fn cross_entropy_by_hand() {
        let mut gradient = [0.0; 2 * 2 + 2];
        let loss = add_cross_entropy(&[0.0; 6], 2, &[3.0, 5.0], &[0], &mut gradient);
        assert!((loss - 2f64.ln()).abs() < 1e-15);
        assert_eq!(gradient, [-1.5, -2.5, 1.5, 2.5, -0.5, 0.5]);
    }

    #[test]
    fn predictions_by_hand() {
        let model = SoftmaxModel { classes: vec![3, 8], parameters: vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.5], dim: 2 };
        let rows = Rows { values: vec![2.0, 1.0, 1.0, 1.0, 0.5, 0.0], dim: 2 };
        assert_eq!(model.predict(&rows).unwrap(), [3, 8, 3]);
        assert!(model.predict(&Rows { values: vec![1.0; 3], dim: 3 }).is_err());
        assert!(model.predict(&Rows { values: vec![1.0, f32::NAN], dim: 2 }).is_err());
        assert_eq!(model.logits(&rows).unwrap(), [2.0, 1.5, 1.0, 1.5, 0.5, 0.5]);
        assert_eq!(model.evidence(&rows).unwrap(), [2.0, 1.0, 1.0, 1.0, 0.5, 0.0].map(|value| value / 3.0));
        assert!(model.evidence(&Rows { values: vec![], dim: 2 }).is_err());
    }

    /// Logits of 0, 5, 10 and 2000 have the probabilities 0, 0, 0 and 1: exp(x) underflows to 0 for
    /// x below -745.
    #[test]
    fn classes_far_behind_keep_their_order() {
        let model = SoftmaxModel {
            classes: vec![1, 4, 6, 7],
            parameters: vec![0.0, 5.0, 10.0, 2000.0, 0.0, 0.0, 0.0, 0.0],
            dim: 1,
        };
        let row = Rows { values: vec![1.0], dim: 1 };
        assert_eq!(model.probabilities(&row).unwrap(), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(model.rank(&row, 3).unwrap(), [[7, 6, 4]]);
        // Equal logits: the smallest class first.
        assert_eq!(model.rank(&Rows { values: vec![0.0], dim: 1 }, 2).unwrap(), [[1, 4]]);
    }
}
