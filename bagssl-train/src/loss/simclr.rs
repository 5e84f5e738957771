//! NT-Xent, the loss of SimCLR, for bags of any number of patches. With two patches it is the published loss.
//!
//! # Source
//! SimCLR, arXiv:2002.05709, equation 1.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::{LossValue, elsewhere, unit};

/// Added to a similarity that is not to count: its exponential is 0.
const LEFT_OUT: f64 = -1e9;

/// The mean over ordered pairs `(a, b)` of patches of one image of `-ln(e_ab / (e_ab + sum over the patches k of other
/// images of e_ak))`, where `e = exp(cosine / temperature)`.
///
/// Patches of one image never push each other apart: the other positives of `a` are not in the denominator of `(a, b)`. With
/// two patches there are none, and the denominator is the published one, over all patches but `a`.
pub(super) fn loss<B: AutodiffBackend>(projections: Tensor<B, 3>, temperature: f64) -> LossValue<B> {
    let [images, patches, dim] = projections.dims();
    let device = projections.device();
    let rows = unit(projections);
    let pairs = (images * patches * (patches - 1)) as f64;

    let of_one_image = rows.clone().matmul(rows.clone().swap_dims(1, 2));
    let different = elsewhere::<B>(patches, &device).unsqueeze();
    let cosine = (of_one_image.clone() * different.clone()).sum().div_scalar(pairs);
    let positives = of_one_image.div_scalar(temperature);

    let flat = rows.reshape([images * patches, dim]);
    let all = flat.clone().matmul(flat.transpose()).div_scalar(temperature);
    let blocks: Tensor<B, 2> = Tensor::<B, 2>::eye(images, &device)
        .reshape([images, 1, images, 1])
        .repeat_dim(1, patches)
        .repeat_dim(3, patches)
        .reshape([images * patches, images * patches]);
    let others = all + blocks * LEFT_OUT;
    let largest = others.clone().detach().max_dim(1);
    let negatives = (others - largest.clone()).exp().sum_dim(1).log() + largest;
    let negatives: Tensor<B, 3> = negatives.reshape([images, patches, 1]).repeat_dim(2, patches);

    // ln(e^positive + e^negatives), from the larger of the two.
    let largest = positives.clone().detach().max_pair(negatives.clone().detach());
    let both = (positives.clone() - largest.clone()).exp() + (negatives - largest.clone()).exp();
    let objective = ((both.log() + largest - positives) * different).sum().div_scalar(pairs);

    let figures = [("loss", objective.clone().inner()), ("invariance", cosine.inner())];
    LossValue::new(objective, figures)
}
