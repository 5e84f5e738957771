//! The nearest patches of other images, for a report.

use std::collections::BTreeSet;

use bagssl_eval::Features;
use bagssl_eval::analysis::{PatchId, neighbors};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A patch and its nearest patches of other images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearestPatches {
    /// The patch, as `[image, patch]`: the index in the data set, and in the image's bag.
    pub query: [usize; 2],
    /// The nearest patches, in the same form, with their cosine similarities, the most similar first.
    #[serde(rename = "found")]
    pub nearest: Vec<([usize; 2], f32)>,
}

/// Returns the nearest patches of other images for up to `queries` query patches: the middle patch of the first image of each
/// class. Each has up to `count` neighbors.
pub(crate) fn nearest(features: &Features, (queries, count): (usize, usize)) -> Result<Vec<NearestPatches>> {
    let mut seen = BTreeSet::new();
    let queries: Vec<PatchId> = features
        .labels()
        .iter()
        .enumerate()
        .filter(|(_, label)| seen.insert(**label))
        .map(|(image, _)| PatchId { image, patch: features.patches() / 2 })
        .take(queries)
        .collect();
    let nearest = neighbors(features, &queries, count, true)?;
    // Images may have been skipped, so convert positions in the features to positions in the data
    // set.
    let index = |id: PatchId| [features.images()[id.image] as usize, id.patch];
    let rows = queries.iter().zip(nearest).map(|(&query, nearest)| NearestPatches {
        query: index(query),
        nearest: nearest.into_iter().map(|near| (index(near.id), near.similarity)).collect(),
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::{FeatureLayer, Rows};

    /// Images 4 and 7 of a data set, the others skipped, with three patches each. The query is the
    /// middle patch. The nearest patch of the other image is its last one.
    #[test]
    fn neighbors_have_data_set_indices() {
        let angles = [90f32, 10.0, 120.0, 60.0, 45.0, 20.0];
        let values = angles.iter().flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()]).collect();
        let rows = Rows { values, dim: 2 };
        let features = Features::new(FeatureLayer::Embedding, rows, 3, vec![4, 7], vec![1, 0]).unwrap();
        let near = nearest(&features, (1, 2)).unwrap();
        assert_eq!(near.len(), 1);
        assert_eq!(near[0].query, [4, 1]);
        assert_eq!(near[0].nearest.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [[7, 2], [7, 1]]);
        assert_eq!(nearest(&features, (5, 1)).unwrap()[1].query, [7, 1]);
    }
}
