//! Convergence: whether the mean of patch embeddings approaches the embedding of the whole image.

use crate::error::{Error, Result, same_length};
use crate::features::samples::check_finite;
use crate::features::table::RowsView;
use crate::features::{Features, Order};

/// The similarity of a mean of patches to the embedding of the whole image.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ConvergencePoint {
    /// The number of averaged patches.
    pub patches: usize,
    /// The cosine to the embedding of the whole image, averaged over the images. A row of zeros has
    /// a cosine of 0.
    pub cosine: f64,
    /// The standard deviation of the cosine over the images (`n - 1`; 0 for one image).
    pub deviation: f64,
    /// The distance to the embedding of the whole image, relative to the length of that embedding,
    /// averaged over the images.
    #[serde(default)]
    pub distance: f64,
}

/// Returns the closeness for each number of patches in `counts`.
///
/// # Shapes
/// - `whole`: `[image, dim]`, in the order of `patches`
///
/// # Errors
/// [`Error::Setting`] if a count is 0 or exceeds the number of patches. [`Error::Length`] if
/// `patches` and `whole` have different numbers of images or different dimensions.
/// [`Error::NotFinite`] if a value is not finite.
///
/// # Source
/// BagSSL, arXiv:2206.08954.
pub fn convergence<'a>(
    patches: &Features,
    whole: impl Into<RowsView<'a>>,
    counts: &[usize],
    order: Order<'_>,
) -> Result<Vec<ConvergencePoint>> {
    let whole = whole.into();
    if whole.dim == 0 {
        return Err(Error::Empty("features"));
    }
    same_length("feature length", patches.dim(), whole.dim)?;
    same_length("whole-image embeddings", patches.len(), whole.len())?;
    check_finite("whole-image embeddings", whole)?;
    let at = |&count: &usize| {
        let means = patches.mean_of(count, order)?;
        let cosines: Vec<f64> = (0..whole.len()).map(|image| cosine(means.row(image), whole.row(image))).collect();
        let distances: Vec<f64> = (0..whole.len()).map(|image| distance(means.row(image), whole.row(image))).collect();
        Ok(ConvergencePoint {
            patches: count,
            cosine: crate::stats::mean(&cosines),
            deviation: crate::stats::std_dev(&cosines),
            distance: crate::stats::mean(&distances),
        })
    };
    counts.iter().map(at).collect()
}

/// Returns `|a - b| / |b|`, or the length of `a` if `b` is zero.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let apart = length(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let of_b = length(&mut b.iter().map(|&b| f64::from(b)));
    if of_b > 0.0 { apart / of_b } else { apart }
}

/// Returns the cosine of two vectors, or 0 if one is zero.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::{FeatureLayer, Rows};

    /// (3, 4) and (0, 2): |(3, 2)| / 2.
    #[test]
    fn the_distance_by_hand() {
        assert!((distance(&[3.0, 4.0], &[0.0, 2.0]) - 13f64.sqrt() / 2.0).abs() < 1e-12);
        assert_eq!(distance(&[3.0, 4.0], &[0.0, 0.0]), 5.0);
        let patches = Features::new(
            FeatureLayer::Embedding,
            Rows { values: vec![2.0, 4.0, 4.0, 4.0], dim: 2 },
            2,
            vec![0],
            vec![0],
        );
        let whole = Rows { values: vec![0.0, 2.0], dim: 2 };
        let found = convergence(&patches.unwrap(), &whole, &[2], Order::Given).unwrap();
        assert!((found[0].distance - 13f64.sqrt() / 2.0).abs() < 1e-12);
    }

    /// Patches along the two axes, and the whole image between them: 45 degrees for one patch, 0
    /// for both.
    #[test]
    fn by_hand() {
        let values = vec![1.0, 0.0, 0.0, 1.0, 0.0, 3.0, 3.0, 0.0];
        let patches =
            Features::new(FeatureLayer::Embedding, Rows { values, dim: 2 }, 2, vec![0, 1], vec![0, 0]).unwrap();
        let whole = Rows { values: vec![2.0, 2.0, 1.0, 0.0], dim: 2 };
        let found = convergence(&patches, &whole, &[1, 2], Order::Given).unwrap();
        let half = 0.5f64.sqrt();
        // First image: 45 degrees, then 0. Second image: 90, then 45.
        assert!((found[0].cosine - half / 2.0).abs() < 1e-12 && (found[0].deviation - half * half).abs() < 1e-12);
        assert!((found[1].cosine - (1.0 + half) / 2.0).abs() < 1e-12);
        assert_eq!((found[0].patches, found[1].patches), (1, 2));
        assert!(convergence(&patches, &whole, &[3], Order::Given).is_err());
        assert!(convergence(&patches, &Rows { values: vec![1.0, 1.0], dim: 2 }, &[1], Order::Given).is_err());
        assert!(convergence(&patches, &Rows { values: vec![1.0, 1.0], dim: 1 }, &[1], Order::Given).is_err());
    }

    #[test]
    fn zeros_have_no_direction() {
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }
}
