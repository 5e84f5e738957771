//! The total coding rate with cosine invariance.
//!
//! # Source
//! EMP-SSL, arXiv:2304.03977; the coding rate of Yu et al., *Learning Diverse and Discriminative
//! Representations via the Principle of Maximal Coding Rate Reduction*, NeurIPS 2020.

use bagssl_core::coding_rate;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::{LinAlg, LossValue, unit, with_gradient};

/// Computes `-weight * mean cos(z_i, mean z) + mean over patches of TCR`, on rows normalized to
/// unit length.
pub(super) fn loss<B: AutodiffBackend, A: LinAlg<B::InnerBackend>>(
    projections: Tensor<B, 3>,
    weight: f64,
    epsilon: f64,
) -> LossValue<B> {
    let [images, _, dim] = projections.dims();
    let rows = unit(projections);
    let invariance = (rows.clone() * unit(rows.clone().mean_dim(1))).sum_dim(2).mean();
    let (rate, surrogate) = total_coding_rate::<B, A>(rows.swap_dims(0, 1), epsilon);
    let cosine = invariance.clone().inner();
    let loss = rate.clone() - cosine.clone() * weight;
    let share = rate.clone() / coding_rate::bound(images, dim, epsilon);
    LossValue::new(
        surrogate - invariance * weight,
        [("loss", loss), ("invariance", cosine), ("tcr", rate), ("tcr_share", share)],
    )
}

/// Returns the mean over sets of `TCR(Z) = -1/2 logdet(I + s Z^T Z)`, `s = d / (n eps)`, and a
/// surrogate with the same gradient.
///
/// Only the smaller of the two Gram matrices is factored: both give the same determinant
/// (Sylvester). The gradient is `-s A^-1 Z` with `A = I + s Z Z^T`, and `-s Z A^-1` with
/// `A = I + s Z^T Z`. The surrogate is the dot product of this gradient, held constant, with `Z`.
/// No operation here needs a backward pass of its own. The surrogate's value is meaningless.
///
/// # Shapes
/// - `sets`: `[set, row, dim]`, rows of unit length
/// - returns: two scalars. The first is NaN if a row has a non-finite value
pub fn total_coding_rate<B: AutodiffBackend, A: LinAlg<B::InnerBackend>>(
    sets: Tensor<B, 3>,
    epsilon: f64,
) -> (Tensor<B::InnerBackend, 1>, Tensor<B, 1>) {
    let [count, rows, dim] = sets.dims();
    let scale = dim as f64 / (rows as f64 * epsilon);
    let (fixed, by_rows) = (sets.clone().inner(), rows <= dim);
    let gram = A::bmm(fixed.clone(), fixed.clone(), if by_rows { [false, true] } else { [true, false] });
    let identity = Tensor::<B::InnerBackend, 2>::eye(rows.min(dim), &gram.device());
    let (inverses, logarithms) = A::cholesky_inverse_logdet(gram * scale + identity.unsqueeze());
    let gradient = match by_rows {
        true => A::bmm(inverses, fixed, [false; 2]),
        false => A::bmm(fixed, inverses, [false; 2]),
    };
    let gradient = gradient * (-scale / count as f64);
    (logarithms.mean() * -0.5, with_gradient(sets, gradient))
}
