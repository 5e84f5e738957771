//! Statistics over few seeds and few images.

use bagssl_core::quantile::student_t;
use serde::{Deserialize, Serialize};

use crate::draw::Draw;
use crate::error::{Error, Result, same_length};

/// Returns the mean, or 0 without values.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Returns the sample standard deviation (`n - 1`), or 0 for fewer than two values.
pub fn std_dev(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

/// Returns the standard error of an accuracy (in percent) measured on `count` independent images.
/// It is that of a binomial proportion, `100 sqrt(p (1 - p) / n)`.
///
/// # Example
/// ```
/// let error = bagssl_eval::stats::accuracy_standard_error(60.0, 270);
/// assert!((error - 2.98).abs() < 0.01);
/// ```
pub fn accuracy_standard_error(percent: f64, count: usize) -> f64 {
    let share = (percent / 100.0).clamp(0.0, 1.0);
    if count == 0 { 100.0 } else { 100.0 * (share * (1.0 - share) / count as f64).sqrt() }
}

/// A mean with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// Returns the mean of `a - b` over pairs (such as runs with the same seed), with its 95 %
/// confidence interval by Student's t. Returns `None` for fewer than two pairs, because the spread
/// is unknown.
///
/// # Errors
/// [`Error::Length`] if `a` and `b` have different lengths.
pub fn paired_difference(a: &[f64], b: &[f64]) -> Result<Option<Interval>> {
    same_length("paired values", a.len(), b.len())?;
    if a.len() < 2 {
        return Ok(None);
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let mean = mean(&differences);
    let half = student_t(0.975, a.len() as u32 - 1) * std_dev(&differences) / (a.len() as f64).sqrt();
    Ok(Some(Interval { mean, low: mean - half, high: mean + half }))
}

/// Returns the mean of grouped values (such as the tiles of one photograph), with its 95 %
/// confidence interval by a cluster bootstrap: percentiles 2.5 and 97.5 of `draws` resamples of
/// entire groups. Returns `None` for a single group, because all resamples are the same.
///
/// # Errors
/// [`Error::Length`] if `values` and `groups` have different lengths, and [`Error::Empty`] without
/// values or draws.
///
/// # Source
/// Efron, *Bootstrap methods: another look at the jackknife*, 1979.
pub fn grouped_bootstrap(values: &[f64], groups: &[u32], draws: usize, seed: u64) -> Result<Option<Interval>> {
    same_length("groups of values", values.len(), groups.len())?;
    if values.is_empty() || draws == 0 {
        return Err(Error::Empty("values to draw from"));
    }
    let mut names = groups.to_vec();
    names.sort_unstable();
    names.dedup();
    if names.len() < 2 {
        return Ok(None);
    }
    let mut sums = vec![(0.0, 0.0); names.len()];
    for (value, group) in values.iter().zip(groups) {
        let sum = &mut sums[names.binary_search(group).expect("the names are those of the groups")];
        *sum = (sum.0 + value, sum.1 + 1.0);
    }
    let mut random = Draw::Bootstrap.stream(seed);
    let mut draw = || {
        let drawn = (0..sums.len()).map(|_| sums[random.below(sums.len() as u32) as usize]);
        let (sum, count) = drawn.fold((0.0, 0.0), |(sum, count), group| (sum + group.0, count + group.1));
        sum / count
    };
    let mut means: Vec<f64> = (0..draws).map(|_| draw()).collect();
    means.sort_unstable_by(f64::total_cmp);
    let percentile = |share: f64| means[(share * (draws - 1) as f64).round() as usize];
    Ok(Some(Interval { mean: mean(values), low: percentile(0.025), high: percentile(0.975) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_by_hand() {
        assert_eq!((mean(&[1.0, 2.0, 6.0]), std_dev(&[1.0, 2.0, 6.0])), (3.0, 7f64.sqrt()));
        assert_eq!((mean(&[]), std_dev(&[4.0])), (0.0, 0.0));
    }

    /// The differences are 10, 12, 14: 12 +- 4.303 * 2 / sqrt 3.
    #[test]
    fn a_paired_interval_by_hand() {
        let found = paired_difference(&[40.0, 45.0, 50.0], &[30.0, 33.0, 36.0]).unwrap().unwrap();
        let half = 4.302_65 * 2.0 / 3f64.sqrt();
        assert_eq!(found.mean, 12.0);
        assert!((found.low - 12.0 + half).abs() < 1e-4 && (found.high - 12.0 - half).abs() < 1e-4);
        assert_eq!(paired_difference(&[1.0], &[2.0]).unwrap(), None);
        assert!(paired_difference(&[1.0], &[]).is_err());
    }

    /// All values of a group are equal, 0 or 1. With groups, the interval is much wider than
    /// without.
    #[test]
    fn groups_widen_the_interval() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i / 50 % 2)).collect();
        let groups: Vec<u32> = (0..200).map(|i| i / 50).collect();
        let single: Vec<u32> = (0..200).collect();
        let wide = grouped_bootstrap(&values, &groups, 2000, 1).unwrap().unwrap();
        let narrow = grouped_bootstrap(&values, &single, 2000, 1).unwrap().unwrap();
        assert_eq!((wide.mean, wide.low, wide.high), (0.5, 0.0, 1.0));
        // The expected half width is 1.96 standard errors of 0.5 / sqrt 200.
        assert!((narrow.low - 0.4307).abs() < 0.02 && (narrow.high - 0.5693).abs() < 0.02, "{narrow:?}");
        assert_eq!(grouped_bootstrap(&values, &[7; 200], 10, 1).unwrap(), None, "one group says nothing of another");
        assert!(grouped_bootstrap(&[], &[], 10, 1).is_err());
    }

    #[test]
    fn errors_of_accuracies() {
        assert_eq!(accuracy_standard_error(50.0, 100), 5.0);
        assert_eq!(accuracy_standard_error(100.0, 100), 0.0);
    }
}
