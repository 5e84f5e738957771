//! NT-Xent, the loss of SimCLR, generalized to any number of patches. With two patches it equals
//! the published loss.
//!
//! # Source
//! SimCLR, arXiv:2002.05709, equation 1.

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::{LinAlg, LossValue, off_diagonal_mask, unit, with_gradient};

/// Added to a similarity to exclude it: its exponential becomes 0.
const MASKED: f64 = -1e9;

/// Computes the mean over ordered pairs `(a, b)` of patches of one image of
/// `-ln(e_ab / (e_ab + sum over the patches k of other images of e_ak))`, where
/// `e = exp(cosine / temperature)`.
///
/// Patches of one image never repel each other: the denominator of `(a, b)` excludes the other
/// positives of `a`. With two patches there are no other positives, and the denominator equals the
/// published one, over all patches but `a`.
pub(super) fn loss<B: AutodiffBackend, A: LinAlg<B::InnerBackend>>(
    projections: Tensor<B, 3>,
    temperature: f64,
) -> LossValue<B> {
    let [images, patches, dim] = projections.dims();
    let pairs = (images * patches * (patches - 1)) as f64;
    let units = unit(projections);
    let rows = units.clone().inner();

    let of_one_image = A::bmm(rows.clone(), rows.clone(), [false, true]);
    let different = off_diagonal_mask::<B::InnerBackend>(patches, &rows.device()).unsqueeze();
    let cosine = (of_one_image.clone() * different.clone()).sum().div_scalar(pairs);
    let positives = of_one_image.div_scalar(temperature);

    let flat = rows.clone().reshape([1, images * patches, dim]);
    let all = A::bmm(flat.clone(), flat.clone(), [false, true]).div_scalar(temperature);
    let (negatives, shares) = over_others(all, [images, patches]);
    let negatives = negatives.reshape([images, patches, 1]);

    // ln(e^positive + e^negatives), stabilized by subtracting the larger exponent.
    let negatives = negatives.repeat_dim(2, patches);
    let largest = positives.clone().max_pair(negatives.clone());
    let negative = (negatives - largest.clone()).exp();
    let both = (positives.clone() - largest.clone()).exp() + negative.clone();
    let loss = ((both.clone().log() + largest - positives) * different.clone()).sum().div_scalar(pairs);

    // Let w be the negatives' share of a pair's denominator. The derivative of the pair's loss is w
    // with respect to its log-sum of negatives, and -w with respect to its positive. The gradient
    // of dot products `a_i . b_k` weighted by W is W b for the first factor and W^T a for the
    // second.
    let weights = negative / both * different;
    let of_row = weights.clone().sum_dim(2).reshape([1, images * patches, 1]);
    let weights = weights.clone() + weights.swap_dims(1, 2);
    let attracted = A::bmm(weights, rows, [false; 2]);
    let shares = shares * of_row;
    let repelled = A::bmm(shares.clone(), flat.clone(), [false; 2]) + A::bmm(shares, flat, [true, false]);
    let gradient = (repelled.reshape([images, patches, dim]) - attracted).div_scalar(temperature * pairs);

    LossValue::new(with_gradient(units, gradient), [("loss", loss), ("invariance", cosine)])
}

/// Returns for each row the log-sum-exp of its similarities to the patches of other images, and the
/// softmax over them.
///
/// # Shapes
/// - `all`: `[1, row, row]`, rows grouped by image
/// - returns: `[1, row, 1]` and `[1, row, row]`
fn over_others<B: Backend>(all: Tensor<B, 3>, [images, patches]: [usize; 2]) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let rows = images * patches;
    let own = Tensor::<B, 2>::eye(images, &all.device()).reshape([images, 1, images, 1]) * MASKED;
    let others = (all.reshape([images, patches, images, patches]) + own).reshape([1, rows, rows]);
    let largest = others.clone().max_dim(2);
    let exponentials = (others - largest.clone()).exp();
    let sum = exponentials.clone().sum_dim(2);
    (sum.clone().log() + largest, exponentials / sum)
}
