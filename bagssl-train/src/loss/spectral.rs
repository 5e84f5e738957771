//! The spectral contrastive loss, generalized to any number of patches.
//!
//! # Source
//! The proposition of BagSSL, arXiv:2206.08954; HaoChen et al., *Provable Guarantees for
//! Self-Supervised Deep Learning with Spectral Contrastive Loss*, NeurIPS 2021.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::{LinAlg, LossValue, off_diagonal_mask, with_gradient};

/// Computes `-E[<z, z'>]` over pairs of different patches of one image, plus `lambda E[<z, z'>^2]`
/// over patches of different images.
///
/// Projections are not normalized. `lambda` only sets their scale: the loss of `z / sqrt(c)` under
/// `c lambda` is the loss of `z` under `lambda`, divided by `c`.
pub(super) fn loss<B: AutodiffBackend, A: LinAlg<B::InnerBackend>>(
    projections: Tensor<B, 3>,
    lambda: f64,
) -> LossValue<B> {
    let [images, patches, dim] = projections.dims();
    let pairs_within = (images * patches * (patches - 1)) as f64;
    let pairs_between = (images * (images - 1) * patches * patches) as f64;

    let rows = projections.clone().inner();
    let of_one_image = A::bmm(rows.clone(), rows.clone(), [false, true]);
    let different = off_diagonal_mask::<B::InnerBackend>(patches, &rows.device()).unsqueeze();
    let invariance = (of_one_image.clone() * different.clone()).sum() / pairs_within;

    // The sum of the squares of all dot products is computed from Z^T Z: |Z Z^T| = |Z^T Z|.
    let flat = rows.clone().reshape([1, images * patches, dim]);
    let square = A::bmm(flat.clone(), flat.clone(), [true, false]);
    let all = (square.clone() * square.clone()).sum();
    let own = (of_one_image.clone() * of_one_image.clone()).sum();
    let repulsion = (all - own) / pairs_between;

    // The gradient of |Z^T Z|^2 is 4 Z Z^T Z. The gradient of an image's |G|^2 is 4 G Z. The
    // gradient of an image's sum over pairs is 2 D Z, where D is 0 on the diagonal and 1 elsewhere.
    let repelled = 4.0 * lambda / pairs_between;
    let between = A::bmm(flat, square, [false; 2]).reshape([images, patches, dim]) * repelled;
    let within = A::bmm(of_one_image * repelled + different * (2.0 / pairs_within), rows, [false; 2]);

    let loss = repulsion.clone() * lambda - invariance.clone();
    LossValue::new(
        with_gradient(projections, between - within),
        [("loss", loss), ("invariance", invariance), ("repulsion", repulsion)],
    )
}
