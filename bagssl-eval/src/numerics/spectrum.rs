//! Metrics of the spectrum of a feature matrix: coding rate and effective rank.

use nalgebra::{Cholesky, DMatrix};

use crate::numerics::matrix::{Matrix, multiply};

/// Returns the total coding rate `TCR(Z) = -1/2 logdet(I + d / (n epsilon) Z^T Z)`. It is 0 for a
/// matrix of zeros, and lower the more evenly the rows are spread. It uses the smaller of the two
/// Gram matrices, which has the same determinant (Sylvester).
///
/// # Shapes
/// - `rows`: `[row, dim]`, finite, of unit length or less, at least one row
///
/// # Source
/// EMP-SSL, arXiv:2304.03977.
pub(crate) fn total_coding_rate(rows: &[f64], dim: usize, epsilon: f64) -> f64 {
    let count = rows.len() / dim;
    let scale = dim as f64 / (count as f64 * epsilon);
    let gram = smaller_gram(rows, count, dim) * scale;
    let side = gram.nrows();
    let factor = Cholesky::new(gram + DMatrix::identity(side, side)).expect("identity plus a Gram matrix is definite");
    -factor.l_dirty().diagonal().iter().map(|value| value.ln()).sum::<f64>()
}

/// Returns the effective rank: `exp` of the entropy of the singular values, normalized to sum 1. It
/// is between 1 and the smaller side of the matrix, and 1 for a matrix of zeros.
///
/// # Shapes
/// - `rows`: `[row, dim]`, finite, at least one row
///
/// # Source
/// Roy and Vetterli, *The effective rank: a measure of effective dimensionality*, EUSIPCO 2007.
pub(crate) fn effective_rank(rows: &[f64], dim: usize) -> f64 {
    let gram = smaller_gram(rows, rows.len() / dim, dim);
    let noise = gram.trace() * f64::EPSILON * gram.nrows() as f64;
    let squares = gram.symmetric_eigenvalues();
    let values: Vec<f64> = squares.iter().filter(|&&square| square > noise).map(|square| square.sqrt()).collect();
    let sum: f64 = values.iter().sum();
    let entropy: f64 = values.iter().map(|value| value / sum).map(|share| -share * share.ln()).sum();
    entropy.max(0.0).exp()
}

fn smaller_gram(rows: &[f64], count: usize, dim: usize) -> DMatrix<f64> {
    let side = count.min(dim);
    let mut gram = vec![0.0; side * side];
    let view = Matrix::new(rows, count, dim);
    if count < dim {
        multiply(view, view.t(), 0.0, &mut gram);
    } else {
        multiply(view.t(), view, 0.0, &mut gram);
    }
    DMatrix::from_vec(side, side, gram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::coding_rate::bound;
    use proptest::prelude::*;

    fn unit(mut rows: Vec<f64>, dim: usize) -> Vec<f64> {
        for row in rows.chunks_mut(dim) {
            let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
            row.iter_mut().for_each(|value| *value /= length);
        }
        rows
    }

    fn matrix(rows: usize, dim: usize, seed: f64) -> Vec<f64> {
        (0..rows * dim).map(|i| ((i * i) as f64 * seed + i as f64 + 1.0).sin()).collect()
    }

    /// Two equal rows in three dimensions. The only eigenvalue is 3 / (2 * 0.2) * 2 = 15.
    #[test]
    fn the_coding_rate_by_hand() {
        let rate = total_coding_rate(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], 3, 0.2);
        assert!((rate + 0.5 * 16f64.ln()).abs() < 1e-12);
        let even = total_coding_rate(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0], 3, 0.2);
        assert!((even - bound(2, 3, 0.2)).abs() < 1e-12);
        assert_eq!(total_coding_rate(&[0.0; 6], 3, 0.2), 0.0);
    }

    #[test]
    fn the_effective_rank_by_hand() {
        // The singular values are 3 and 1, with normalized values 3/4 and 1/4.
        let rank = effective_rank(&[3.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3);
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((rank - entropy.exp()).abs() < 1e-9);
        assert_eq!(effective_rank(&[0.0; 6], 3), 1.0);
        let one = effective_rank(&[1.0, 2.0, 2.0, 4.0, -3.0, -6.0], 2);
        assert!((one - 1.0).abs() < 1e-6, "{one}");
    }

    proptest! {
        #[test]
        fn the_effective_rank_lies_between_1_and_the_lesser_side(rows in 1usize..20, dim in 1usize..20, seed in 0.0f64..1.0) {
            let rank = effective_rank(&matrix(rows, dim, seed), dim);
            prop_assert!((1.0..=rows.min(dim) as f64 + 1e-9).contains(&rank), "{rank}");
        }

        #[test]
        fn the_coding_rate_lies_between_its_bound_and_0(rows in 1usize..20, dim in 1usize..20, seed in 0.01f64..1.0) {
            let rate = total_coding_rate(&unit(matrix(rows, dim, seed), dim), dim, 0.2);
            prop_assert!(rate <= 0.0 && rate >= bound(rows, dim, 0.2) - 1e-9, "{rate}");
        }

        #[test]
        fn both_gram_matrices_give_the_same(rows in 1usize..12, dim in 1usize..12, seed in 0.01f64..1.0) {
            let long = matrix(rows, dim, seed);
            let turned: Vec<f64> = (0..rows * dim).map(|at| long[at % rows * dim + at / rows]).collect();
            prop_assert!((effective_rank(&long, dim) - effective_rank(&turned, rows)).abs() < 1e-5);
        }
    }
}
