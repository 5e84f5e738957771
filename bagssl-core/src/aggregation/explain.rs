//! Explanations: the contribution of each patch to a decision, and of each pair of patches to a
//! similarity.
//!
//! Both decompositions are exact. The representation of an image is the mean of its patches'
//! embeddings, and both quantities are linear in that mean: the logit of a linear probe, and a
//! scalar product. Nonlinear results are not split: softmax probabilities, nearest-neighbor votes,
//! and embeddings that are normalized before averaging. A probe that standardizes its features
//! becomes linear once the shift and scale are folded into its weights and bias.

use std::prelude::v1::*;

use crate::aggregate::RunningMean;
use crate::embed::Rows;
use crate::error::{Error, Result};

/// Computes the evidence of each patch for each class: its share of a linear probe's logit for the
/// mean of all patches. The evidence of a class, summed over the patches, plus the bias is the
/// logit.
///
/// # Shapes
/// - `patches`: `[patch, dim]`
/// - `weights`: `[class, dim]`
/// - returns: `[patch, class]`, `<weights of class, embedding of patch> / patches`
///
/// # Errors
/// [`Error::Setting`] if there are no patches. [`Error::Length`] if `patches` does not consist of
/// complete rows, or if the length of `weights` is not `classes * dim`.
///
/// # Example
/// ```
/// use bagssl_core::embed::Rows;
/// use bagssl_core::explain::evidence;
/// let patches = Rows { values: vec![4.0, 0.0, 2.0, 6.0], dim: 2 };
/// // One class, weights 1 and -1: the two products 4 and -4, divided by 2, sum to the logit of the
/// // mean (3, 3), which is 0.
/// assert_eq!(evidence(&patches, &[1.0, -1.0], 1)?, [2.0, -2.0]);
/// # Ok::<(), bagssl_core::Error>(())
/// ```
pub fn evidence(patches: &Rows, weights: &[f64], classes: usize) -> Result<Vec<f64>> {
    check_patches(patches)?;
    if weights.len() != classes * patches.dim {
        return Err(Error::Length { name: "weights", expected: classes * patches.dim, got: weights.len() });
    }
    let count = patches.len() as f64;
    let of_class = |patch: &[f32], weights: &[f64]| -> f64 {
        weights.iter().zip(patch).map(|(weight, &value)| weight * f64::from(value)).sum::<f64>() / count
    };
    let rows = patches.values.chunks_exact(patches.dim);
    Ok(rows.flat_map(|patch| weights.chunks_exact(patches.dim).map(move |weights| of_class(patch, weights))).collect())
}

/// A pair of patches, one from each of two images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The patch of the first image.
    pub first: usize,
    /// The patch of the second image.
    pub second: usize,
    /// Its share of the cosine; negative if it makes the images less similar.
    pub share: f64,
}

/// The cosine similarity of the mean embeddings of two images, split over all pairs of their
/// patches. The share of patches `a` and `b` is `<a, b> / (A B |mean a| |mean b|)`, where `A` and
/// `B` are the numbers of patches.
///
/// # Example
/// ```
/// use bagssl_core::embed::Rows;
/// use bagssl_core::explain::Pairs;
/// let image = Rows { values: vec![1.0, 0.0, 0.0, 1.0], dim: 2 };
/// let other = Rows { values: vec![0.0, 2.0], dim: 2 };
/// let pairs = Pairs::new(&image, &other)?;
/// // The means are 45 degrees apart; the second patch of the first image contributes the entire
/// // cosine.
/// assert!((pairs.cosine() - 0.5f64.sqrt()).abs() < 1e-12);
/// assert_eq!((pairs.top(1)[0].first, pairs.top(1)[0].share), (1, pairs.cosine()));
/// # Ok::<(), bagssl_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    shares: Vec<f64>,
    columns: usize,
}

impl Pairs {
    /// Splits the similarity of two images. If a mean is 0, the cosine and all shares are defined
    /// as 0.
    ///
    /// # Shapes
    /// - `first`: `[A, dim]`, `second`: `[B, dim]`
    ///
    /// # Errors
    /// [`Error::Setting`] if an image has no patches. [`Error::Length`] if the patches are
    /// incomplete rows or differ in length.
    pub fn new(first: &Rows, second: &Rows) -> Result<Self> {
        let lengths = length_of_mean(first)? * length_of_mean(second)?;
        if first.dim != second.dim {
            return Err(Error::Length { name: "embedding", expected: first.dim, got: second.dim });
        }
        let scale = lengths * first.len() as f64 * second.len() as f64;
        let share = |a: &[f32], b: &[f32]| {
            let product: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            if scale > 0.0 { product / scale } else { 0.0 }
        };
        let mut shares = Vec::with_capacity(first.len() * second.len());
        for a in first.values.chunks_exact(first.dim) {
            shares.extend(second.values.chunks_exact(second.dim).map(|b| share(a, b)));
        }
        Ok(Pairs { shares, columns: second.len() })
    }

    /// Returns the shares, `[A, B]`.
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Returns the sum of the shares: the cosine of the two means.
    pub fn cosine(&self) -> f64 {
        self.shares.iter().sum()
    }

    /// Returns the `count` pairs with the greatest shares (all, if there are fewer) in descending
    /// order. Ties keep the order of the shares.
    pub fn top(&self, count: usize) -> Vec<Pair> {
        let pair = |(at, &share)| Pair { first: at / self.columns, second: at % self.columns, share };
        let mut pairs: Vec<Pair> = self.shares.iter().enumerate().map(pair).collect();
        pairs.sort_by(|a, b| b.share.total_cmp(&a.share));
        pairs.truncate(count);
        pairs
    }
}

fn length_of_mean(rows: &Rows) -> Result<f64> {
    check_patches(rows)?;
    let mut mean = RunningMean::new(rows.dim);
    rows.values.chunks_exact(rows.dim).try_for_each(|row| mean.push(row))?;
    Ok(mean.length())
}

fn check_patches(rows: &Rows) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::Setting { name: "patches", expected: "at least 1 non-empty patch", got: "none".into() });
    }
    let expected = rows.len() * rows.dim;
    if rows.values.len() == expected {
        return Ok(());
    }
    Err(Error::Length { name: "patch values", expected, got: rows.values.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(count: usize, dim: usize, phase: f32) -> Rows {
        Rows { values: (0..count * dim).map(|i| libm::sinf((i * i) as f32 * 0.37 + phase) * 2.0 + 0.3).collect(), dim }
    }

    /// Two patches, three classes, two dimensions.
    #[test]
    fn evidence_by_hand() {
        let patches = Rows { values: vec![2.0, 4.0, -6.0, 8.0], dim: 2 };
        let weights = [1.0, 0.0, 0.0, 1.0, 0.5, -1.0];
        assert_eq!(evidence(&patches, &weights, 3).unwrap(), [1.0, 2.0, -1.5, -3.0, 4.0, -5.5]);
    }

    /// (3, 0) and (1, 2) have the mean (2, 1). The three patches of the second image have the mean
    /// (0, 1). The cosine is 1 / sqrt 5.
    #[test]
    fn pairs_by_hand() {
        let first = Rows { values: vec![3.0, 0.0, 1.0, 2.0], dim: 2 };
        let second = Rows { values: vec![0.0, 1.0, -1.0, 1.0, 1.0, 1.0], dim: 2 };
        let pairs = Pairs::new(&first, &second).unwrap();
        let scale = 6.0 * 5f64.sqrt();
        let expected = [0.0, -3.0, 3.0, 2.0, 1.0, 3.0].map(|product| product / scale);
        assert!(pairs.shares().iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 1e-12));
        assert!((pairs.cosine() - 1.0 / 5f64.sqrt()).abs() < 1e-12);
        let top: Vec<(usize, usize)> = pairs.top(3).iter().map(|pair| (pair.first, pair.second)).collect();
        assert_eq!(top, [(0, 2), (1, 2), (1, 0)]);
        assert_eq!(pairs.top(99).len(), 6);
    }

    #[test]
    fn pairs_of_zero_mean() {
        let zero = Rows { values: vec![1.0, -1.0], dim: 1 };
        let pairs = Pairs::new(&zero, &rows(3, 1, 0.0)).unwrap();
        assert_eq!((pairs.cosine(), pairs.shares()), (0.0, &[0.0; 6][..]));
    }

    #[test]
    fn shape_mismatch_is_refused() {
        let (good, none) = (rows(2, 3, 0.0), Rows { values: vec![], dim: 3 });
        let broken = Rows { values: vec![1.0; 7], dim: 3 };
        assert!(evidence(&none, &[0.0; 3], 1).is_err() && evidence(&broken, &[0.0; 3], 1).is_err());
        assert!(evidence(&good, &[0.0; 4], 1).is_err());
        for bad in [none, broken, rows(2, 4, 0.0)] {
            assert!(Pairs::new(&good, &bad).is_err() && Pairs::new(&bad, &good).is_err());
        }
    }

    proptest! {
        #[test]
        fn evidence_and_bias_sum_to_the_logit(count in 1usize..30, dim in 1usize..9, classes in 1usize..6, phase in 0f32..9.0) {
            let patches = rows(count, dim, phase);
            let weights: Vec<f64> = (0..classes * dim).map(|i| (i as f64 * 1.3 + f64::from(phase)).cos()).collect();
            let bias: Vec<f64> = (0..classes).map(|class| class as f64 - 0.7).collect();
            let evidence = evidence(&patches, &weights, classes).unwrap();
            for class in 0..classes {
                let mean = |d: usize| patches.values.iter().skip(d).step_by(dim).sum::<f32>() / count as f32;
                let logit: f64 = bias[class] + (0..dim).map(|d| weights[class * dim + d] * f64::from(mean(d))).sum::<f64>();
                let sum: f64 = bias[class] + evidence.iter().skip(class).step_by(classes).sum::<f64>();
                prop_assert!((sum - logit).abs() < 1e-5, "{} {}", sum, logit);
            }
        }

        #[test]
        fn shares_sum_to_the_cosine(a in 1usize..12, b in 1usize..12, dim in 1usize..9, phase in 0f32..9.0) {
            let (first, second) = (rows(a, dim, phase), rows(b, dim, phase + 1.0));
            let mean = |rows: &Rows, d: usize| {
                rows.values.iter().skip(d).step_by(dim).map(|&x| f64::from(x)).sum::<f64>() / rows.len() as f64
            };
            let dot = |a: &Rows, b: &Rows| (0..dim).map(|d| mean(a, d) * mean(b, d)).sum::<f64>();
            prop_assume!(dot(&first, &first) > 1e-3 && dot(&second, &second) > 1e-3);
            let expected = dot(&first, &second) / (dot(&first, &first) * dot(&second, &second)).sqrt();
            prop_assert!((Pairs::new(&first, &second).unwrap().cosine() - expected).abs() < 1e-5);
        }
    }
}
