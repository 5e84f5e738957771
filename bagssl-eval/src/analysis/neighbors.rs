//! Nearest neighbors of single patches: which patches a representation considers similar.

use bagssl_core::embed::Rows;

use crate::error::{Error, Result};
use crate::features::Features;
use crate::numerics::similarity::{nearest, unit_rows};

/// The identity of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchId {
    /// The image's position in its features.
    pub image: usize,
    /// The patch's index in its bag.
    pub patch: usize,
}

/// A neighbor of a patch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// The neighbor.
    pub id: PatchId,
    /// The cosine similarity.
    pub similarity: f32,
}

/// Returns the `count` nearest patches of each query by cosine similarity, in descending order, by
/// exact search. A patch is not its own neighbor. If `other_images` is true, patches of the same
/// image are excluded.
///
/// # Errors
/// [`Error::Setting`] if a query is out of range.
pub fn neighbors(
    features: &Features,
    queries: &[PatchId],
    count: usize,
    other_images: bool,
) -> Result<Vec<Vec<Neighbor>>> {
    let (images, patches) = (features.len(), features.patches());
    if let Some(id) = queries.iter().find(|id| id.image >= images || id.patch >= patches) {
        let expected = format!("an image below {images} and a patch below {patches}");
        return Err(Error::Setting { name: "query", expected, got: format!("{} and {}", id.image, id.patch) });
    }
    let values = queries.iter().flat_map(|id| features.patch(id.image, id.patch)).copied().collect();
    let rows = unit_rows(&Rows { values, dim: features.dim() });
    let keep = |query: usize, item: usize| {
        let id = queries[query];
        item / patches != id.image || (!other_images && item % patches != id.patch)
    };
    let found = nearest(&rows, features.rows(), count, keep);
    let id = |(item, similarity)| Neighbor { id: PatchId { image: item / patches, patch: item % patches }, similarity };
    Ok(found.into_iter().map(|near| near.into_iter().map(id).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::FeatureLayer;

    /// Three images with two patches each, at these angles in degrees.
    fn features() -> Features {
        let angles = [0f32, 10.0, 15.0, 90.0, 12.0, -60.0];
        let values = angles.iter().flat_map(|angle| [angle.to_radians().cos() * 7.0, angle.to_radians().sin() * 7.0]);
        let rows = Rows { values: values.collect(), dim: 2 };
        Features::new(FeatureLayer::Embedding, rows, 2, vec![0, 1, 2], vec![0, 0, 0]).unwrap()
    }

    fn near(image: usize, patch: usize, count: usize, other_images: bool) -> Vec<(usize, usize)> {
        let found = neighbors(&features(), &[PatchId { image, patch }], count, other_images).unwrap();
        found[0].iter().map(|near| (near.id.image, near.id.patch)).collect()
    }

    #[test]
    fn by_hand() {
        assert_eq!(near(0, 1, 3, false), [(2, 0), (1, 0), (0, 0)]);
        assert_eq!(near(0, 1, 3, true), [(2, 0), (1, 0), (2, 1)]);
        assert_eq!(near(1, 1, 9, true).len(), 4);
        let found = neighbors(&features(), &[PatchId { image: 1, patch: 0 }], 1, true).unwrap();
        assert!((found[0][0].similarity - 3f32.to_radians().cos()).abs() < 1e-6);
    }

    #[test]
    fn patches_that_are_not_there_are_refused() {
        for (image, patch) in [(3, 0), (0, 2)] {
            assert!(neighbors(&features(), &[PatchId { image, patch }], 1, true).is_err());
        }
    }
}
