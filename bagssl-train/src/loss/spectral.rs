//! The spectral contrastive loss, for bags of any number of patches.
//!
//! # Source
//! The proposition of BagSSL, arXiv:2206.08954; HaoChen et al., *Provable Guarantees for Self-Supervised Deep Learning with
//! Spectral Contrastive Loss*, NeurIPS 2021.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::{LossValue, elsewhere};

/// `-E[<z, z'>]` over pairs of different patches of one image, plus `lambda E[<z, z'>^2]` over patches of different images.
///
/// Projections keep their length. `lambda` sets it and nothing else: `z / sqrt(c)` has under `c lambda` the loss of `z` under
/// `lambda`, divided by `c`.
pub(super) fn loss<B: AutodiffBackend>(projections: Tensor<B, 3>, lambda: f64) -> LossValue<B> {
    let [images, patches, dim] = projections.dims();
    let of_one_image = projections.clone().matmul(projections.clone().swap_dims(1, 2));
    let different = elsewhere::<B>(patches, &of_one_image.device()).unsqueeze();
    let invariance = (of_one_image.clone() * different).sum() / (images * patches * (patches - 1)) as f64;

    // The squares of all products are those of the entries of Z^T Z: |Z Z^T| = |Z^T Z|.
    let flat = projections.reshape([images * patches, dim]);
    let square = flat.clone().transpose().matmul(flat);
    let all = (square.clone() * square).sum();
    let own = (of_one_image.clone() * of_one_image).sum();
    let repulsion = (all - own) / (images * (images - 1) * patches * patches) as f64;

    let objective = repulsion.clone() * lambda - invariance.clone();
    let figures = [("loss", objective.clone()), ("invariance", invariance), ("repulsion", repulsion)];
    LossValue::new(objective, figures.map(|(name, value)| (name, value.inner())))
}
