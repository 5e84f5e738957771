//! The memory of a search, from the shapes of the classifier.

use super::{Classifier, ClassifierKind};
use crate::numerics::similarity;

/// Bytes of a row besides its values.
const OF_ROW: u64 = 64;

impl Classifier {
    /// Returns the most bytes that a [`Search`](super::Search) over `patches` patches stores: the
    /// logits of the patches, or for neighbors their embeddings.
    pub fn search_bytes(&self, patches: u64) -> u64 {
        let of_patch = match &self.kind {
            ClassifierKind::Linear(model) => bytes::<f64>(model.classes().len()),
            ClassifierKind::Neighbors(_, samples) => bytes::<f32>(samples.rows().dim),
        };
        // The capacity of a vector that grows is up to twice its length.
        patches.saturating_mul(of_patch).saturating_mul(2)
    }

    /// Returns the most bytes that adding a patch to a [`Search`](super::Search), or
    /// [`Classifier::predict`], takes for its own work, and gives back.
    pub fn work_bytes(&self) -> u64 {
        let dim = self.dim();
        match &self.kind {
            // The product with few rows copies the weights.
            ClassifierKind::Linear(model) => {
                bytes::<f64>(model.parameters.len()) + bytes::<f64>(4 * model.classes().len() + dim)
            }
            ClassifierKind::Neighbors(knn, samples) => {
                // A tangent for each class, and those of the class and of its rival.
                let tangents = bytes::<f64>(dim).saturating_mul(samples.classes().len() as u64 + 2);
                // The voters of a class, normalized; the mean, the query and the patch.
                let rows = knn.neighbors.min(samples.len()) as u64 + 4;
                let rows = rows.saturating_mul(bytes::<f32>(dim) + OF_ROW);
                similarity::work_bytes(dim, samples.len()).saturating_add(tangents).saturating_add(rows)
            }
        }
    }
}

fn bytes<T>(values: usize) -> u64 {
    (values as u64).saturating_mul(size_of::<T>() as u64)
}
