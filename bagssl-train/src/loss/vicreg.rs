//! Variance, invariance and covariance, generalized to any number of patches. With two patches it
//! equals VICReg's loss.
//!
//! # Source
//! VICReg, arXiv:2105.04906; the version over all pairs of patches: the first version of
//! arXiv:2206.08954.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::AutodiffBackend;

use super::{LinAlg, LossValue, off_diagonal_mask, with_gradient};

/// Added to a variance before its square root is taken.
const EPSILON: f64 = 1e-4;

/// Computes the three weighted terms:
///
/// - `invariance`: the mean squared difference of two patches of an image, over all pairs.
/// - `variance`: the shortfall of standard deviations below 1, averaged over dimensions and patch
///   indices.
/// - `covariance`: the sum of the squared covariances of two dimensions, divided by `dim`, summed
///   over two patch indices (as the published loss adds its two branches).
pub(super) fn loss<B: AutodiffBackend, A: LinAlg<B::InnerBackend>>(
    projections: Tensor<B, 3>,
    weights: [f64; 3],
) -> LossValue<B> {
    let [images, patches, dim] = projections.dims();
    let sets = projections.clone().swap_dims(0, 1);

    // The mean over pairs of |a - b|^2 equals 2 P / (P - 1) times the mean of |a - mean|^2.
    let from_patch_mean = projections.clone() - projections.mean_dim(1);
    let pairs = 2.0 * patches as f64 / (patches as f64 - 1.0);
    let invariance = (from_patch_mean.clone() * from_patch_mean).mean() * pairs;

    let centered = sets.clone() - sets.mean_dim(1);
    let unbiased = 1.0 / (images as f64 - 1.0);
    let squares = (centered.clone() * centered.clone()).sum_dim(1) * unbiased;
    let variance = relu(-(squares + EPSILON).sqrt() + 1.0).mean();

    // Let C = Z^T Z / (n - 1) with its diagonal set to 0. The gradient of |C|^2 is 4 Z C / (n - 1).
    let fixed = centered.clone().inner();
    let different = off_diagonal_mask::<B::InnerBackend>(dim, &fixed.device()).unsqueeze();
    let covariances = A::bmm(fixed.clone(), fixed.clone(), [true, false]) * different * unbiased;
    let share = 2.0 / (patches * dim) as f64;
    let covariance = (covariances.clone() * covariances.clone()).sum() * share;
    let gradient = A::bmm(fixed, covariances, [false; 2]) * (4.0 * unbiased * share);
    let surrogate = with_gradient(centered, gradient);

    let terms = [invariance.clone().inner(), variance.clone().inner(), covariance];
    let [first, second, third] = terms.clone();
    let loss = first * weights[0] + second * weights[1] + third * weights[2];
    let [first, second, third] = terms;
    LossValue::new(
        invariance * weights[0] + variance * weights[1] + surrogate * weights[2],
        [("loss", loss), ("invariance", first), ("variance", second), ("covariance", third)],
    )
}
