//! Regression with more dimensions than samples, reduced to as many dimensions as there are
//! samples.

use nalgebra::{Cholesky, DMatrix, Dyn};
use rayon::prelude::*;

use crate::numerics::matrix::{Matrix, multiply};

/// The ridge added to the Gram matrix, relative to its mean diagonal. Centered rows are linearly
/// dependent, so that the matrix could not be factored otherwise.
const RIDGE: f64 = 1e-9;

/// An orthonormal basis of the row space, and the coordinates of the rows in it.
///
/// With an L2 penalty, the optimal weights are a combination of the rows. Rotating the rows and the
/// weights together changes neither the penalty nor the logits. With `L` the Cholesky factor of
/// `X X^T`, `X = L Q`. So `L` can replace `X`, and weights `v` in the basis correspond to weights
/// `Q^T v` of the rows.
pub(super) struct RowSpace {
    rows: Vec<f64>,
    count: usize,
    dim: usize,
    factor: Cholesky<f64, Dyn>,
}

impl RowSpace {
    /// Factors rows, `[row, dim]`. Returns `None` if all values are 0.
    pub(super) fn factor(rows: Vec<f64>, dim: usize) -> Option<Self> {
        let count = rows.len() / dim;
        let mut gram = vec![0.0; count * count];
        let view = Matrix::new(&rows, count, dim);
        gram.par_chunks_mut(count * 64).zip(rows.par_chunks(dim * 64)).for_each(|(gram, part)| {
            multiply(Matrix::new(part, part.len() / dim, dim), view.t(), 0.0, gram);
        });
        let mut gram = DMatrix::from_vec(count, count, gram);
        let ridge = RIDGE * gram.trace() / count as f64;
        (0..count).for_each(|at| gram[(at, at)] += ridge);
        Some(RowSpace { factor: Cholesky::new(gram)?, rows, count, dim })
    }

    /// Returns the coordinates of the rows in the basis, `[row, row]`.
    pub(super) fn coordinates(&self) -> Vec<f64> {
        self.factor.l().transpose().as_slice().to_vec()
    }

    /// Converts weights in the basis, `[class, row]`, to weights of the features, `[class, dim]`.
    pub(super) fn unfold(&self, weights: &[f64]) -> Vec<f64> {
        let classes = weights.len() / self.count;
        let weights = DMatrix::from_column_slice(self.count, classes, weights);
        let shares = self.factor.l_dirty().tr_solve_lower_triangular(&weights).expect("a factor has no zero diagonal");
        let mut unfolded = vec![0.0; classes * self.dim];
        let shares = Matrix::new(shares.as_slice(), classes, self.count);
        multiply(shares, Matrix::new(&self.rows, self.count, self.dim), 0.0, &mut unfolded);
        unfolded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_kept() {
        let (count, dim) = (3, 5);
        let rows: Vec<f64> = (0..count * dim).map(|i| ((i * i) as f64).sin()).collect();
        let space = RowSpace::factor(rows.clone(), dim).unwrap();
        let weights = [0.3, -1.0, 2.0, 0.0, 0.5, 0.25];
        let (coordinates, unfolded) = (space.coordinates(), space.unfold(&weights));
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        for (weights, unfolded) in weights.chunks(count).zip(unfolded.chunks(dim)) {
            assert!((dot(weights, weights) - dot(unfolded, unfolded)).abs() < 1e-8, "the penalty");
            for row in 0..count {
                let there = &coordinates[row * count..][..count];
                let (there, here) = (dot(there, weights), dot(&rows[row * dim..][..dim], unfolded));
                assert!((there - here).abs() < 1e-8, "the logits: {there} {here}");
            }
        }
    }

    #[test]
    fn zeros_span_nothing() {
        assert!(RowSpace::factor(vec![0.0; 6], 3).is_none());
    }
}
