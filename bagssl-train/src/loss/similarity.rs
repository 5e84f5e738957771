//! The similarity of projections of different images, which reveals a collapse under any loss.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Returns the mean cosine similarity between projections of different images, `[1]`; 0 for one
/// image.
///
/// # Shapes
/// - `projections`: `[image, patch, dim]`
pub fn similarity<B: Backend>(projections: Tensor<B, 3>) -> Tensor<B, 1> {
    let [images, patches, dim] = projections.dims();
    let lengths = (projections.clone() * projections.clone()).sum_dim(2).sqrt().clamp_min(1e-12);
    // The squared length of a sum of unit vectors is the sum of all their cosines.
    let of_images = (projections / lengths).sum_dim(1).reshape([images, dim]);
    let all = of_images.clone().sum_dim(0);
    let squares = (all.clone() * all).sum() - (of_images.clone() * of_images).sum();
    let pairs = images * (images - 1) * patches * patches;
    squares / pairs.max(1) as f64
}
