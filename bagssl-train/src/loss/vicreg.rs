//! Variance, invariance, covariance, for bags of any number of patches. With two patches it is VICReg's loss.
//!
//! # Source
//! VICReg, arXiv:2105.04906; between all pairs of patches: the first version of arXiv:2206.08954.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::AutodiffBackend;

use super::{LossValue, scalar};
use crate::error::{Error, Result};

/// Added to a variance before its root is taken.
const EPSILON: f64 = 1e-4;

/// `invariance`: the mean squared difference of two patches of an image, over all pairs. `variance`: how far deviations
/// fall short of 1, on average over dimensions and patch indices. `covariance`: the sum of the squared covariances of
/// two dimensions, over `dim`, for two patch indices together (as the published loss adds its two branches).
pub(super) fn loss<B: AutodiffBackend>(projections: Tensor<B, 3>, weights: [f64; 3]) -> Result<LossValue<B>> {
    let [images, patches, dim] = projections.dims();
    let sets = projections.clone().swap_dims(0, 1);

    // The mean over pairs of |a - b|^2 is 2 P / (P - 1) times the mean of |a - mean|^2.
    let from_patch_mean = projections.clone() - projections.mean_dim(1);
    let pairs = 2.0 * patches as f64 / (patches as f64 - 1.0);
    let invariance = (from_patch_mean.clone() * from_patch_mean).mean() * pairs;

    let centred = sets.clone() - sets.mean_dim(1);
    let unbiased = 1.0 / (images as f64 - 1.0);
    let squares = (centred.clone() * centred.clone()).sum_dim(1) * unbiased;
    let variance = relu(-(squares + EPSILON).sqrt() + 1.0).mean();

    let covariances = centred.clone().swap_dims(1, 2).matmul(centred) * unbiased;
    let elsewhere = Tensor::<B, 2>::eye(dim, &covariances.device()).mul_scalar(-1.0).add_scalar(1.0).unsqueeze();
    let covariances = covariances * elsewhere;
    let covariance = (covariances.clone() * covariances).sum() * (2.0 / (patches * dim) as f64);

    let terms = [invariance, variance, covariance];
    let values = terms.each_ref().map(|term| scalar(term.clone()));
    let loss: f64 = values.iter().zip(weights).map(|(value, weight)| value * weight).sum();
    if !loss.is_finite() {
        return Err(Error::not_finite("the loss"));
    }
    let [invariance, variance, covariance] = terms;
    let objective = invariance * weights[0] + variance * weights[1] + covariance * weights[2];
    let figures = vec![("loss", loss), ("invariance", values[0]), ("variance", values[1]), ("covariance", values[2])];
    Ok(LossValue { objective, figures })
}
