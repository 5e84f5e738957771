//! Health: whether a representation has collapsed.

use bagssl_core::coding_rate;
use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::features::table::RowsView;
use crate::numerics::spectrum::{effective_rank, total_coding_rate};

/// The verdict, by the thresholds of [`Health`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No problem was found.
    Healthy,
    /// Much of the space is unused.
    Suspect,
    /// Images are indistinguishable, or differ only along one direction.
    Collapsed,
}

impl Verdict {
    /// Returns the name, as in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Suspect => "suspect",
            Verdict::Collapsed => "collapsed",
        }
    }
}

/// The standard deviation of each dimension over all patches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// The mean over the dimensions.
    pub mean: f64,
    /// The minimum over the dimensions.
    pub min: f64,
    /// The share of dead dimensions, 0 to 1. A dimension is dead if its standard deviation is below
    /// a thousandth of the root mean square over all dimensions, or below a millionth of its own
    /// mean.
    pub dead: f64,
}

/// Metrics of the spread of features.
///
/// Collapsed: [`Health::cosine_between`] is at least 0.99, or [`Health::effective_rank`] is below
/// 1.5 and [`Health::rank_limit`] is at least 4. Suspect: the cosine is at least 0.95, or the rank
/// is at most a tenth of a limit of at least 4, or more than a quarter of the dimensions are dead.
/// The thresholds are ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The number of images.
    pub images: usize,
    /// The number of patches per image.
    pub patches: usize,
    /// The length of a feature.
    pub dim: usize,
    /// The standard deviation of the unmodified features.
    pub raw: Deviation,
    /// The standard deviation of the features scaled to unit length. It is about `1 / sqrt(dim)` if
    /// all directions are equally likely.
    pub unit: Deviation,
    /// The effective rank of the centered features (Roy and Vetterli 2007).
    pub effective_rank: f64,
    /// The maximum possible rank: the smaller of `dim` and the number of patches used (see
    /// [`Health::new`]) minus one, at least 1.
    pub rank_limit: usize,
    /// The total coding rate of the features at unit length, averaged over patch positions.
    pub coding_rate: f64,
    /// The minimum possible coding rate.
    pub coding_rate_bound: f64,
    /// The coding rate as a share of the bound: 0 to 1.
    pub coding_rate_share: f64,
    /// The mean cosine between two patches of the same image; `None` with one patch per image.
    pub cosine_within: Option<f64>,
    /// The mean cosine between patches of different images; `None` with one image.
    pub cosine_between: Option<f64>,
    /// The uniformity of the features at unit length: the logarithm of the mean of
    /// `exp(-2 |u - v|^2)` over pairs from different images. It is 0 if all features are equal, and
    /// about `-4 + 4 / dim` if they are spread evenly (Wang and Isola, *Understanding contrastive
    /// representation learning through alignment and uniformity*, ICML 2020). `None` with one
    /// image.
    #[serde(default)]
    pub uniformity: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
    /// The reasons for the verdict, one sentence each; empty if healthy.
    pub reasons: Vec<String>,
}

/// The distortion of EMP-SSL (arXiv:2304.03977).
const EPSILON: f64 = 0.2;
/// The maximum number of patches whose pairs are compared.
const MAX_PAIRED: usize = 1024;
/// The maximum number of values whose spectrum is computed, and the number of rows that is always
/// allowed.
const SPECTRUM: (usize, usize) = (1 << 22, 1024);

impl Health {
    /// Computes the metrics. For very many patches, the effective rank is computed from evenly
    /// spaced ones: `2^22 / dim` of them, but at least 1024.
    pub fn new(features: &Features) -> Self {
        let (images, patches, dim) = (features.len(), features.patches(), features.dim());
        let (raw, unit) = (FeatureRows::unscaled(features), FeatureRows::unit_length(features));
        let rank_limit = dim.min(spectrum_rows(images * patches, dim).saturating_sub(1)).max(1);
        let (rate, bound) = (mean_coding_rate(&unit, patches), coding_rate::bound(images, dim, EPSILON));
        let (cosine_within, cosine_between) = cosines(&unit, patches);
        let mut health = Health {
            images,
            patches,
            dim,
            raw: Deviation::new(&raw),
            unit: Deviation::new(&unit),
            effective_rank: effective_rank(&centered(&raw), dim),
            rank_limit,
            coding_rate: rate,
            coding_rate_bound: bound,
            coding_rate_share: rate / bound,
            cosine_within,
            cosine_between,
            uniformity: uniformity(&unit, patches),
            verdict: Verdict::Healthy,
            reasons: vec![],
        };
        health.assess();
        health
    }

    fn assess(&mut self) {
        let mut check = |holds, verdict, reason: String| {
            if holds {
                self.verdict = self.verdict.max(verdict);
                self.reasons.push(reason);
            }
        };
        let cosine = self.cosine_between.unwrap_or(0.0);
        let (rank, limit) = (self.effective_rank, self.rank_limit);
        let verdict = if cosine >= 0.99 { Verdict::Collapsed } else { Verdict::Suspect };
        check(cosine >= 0.95, verdict, format!("patches of different images have a mean cosine of {cosine:.3}"));
        let verdict = if rank < 1.5 { Verdict::Collapsed } else { Verdict::Suspect };
        let low = limit >= 4 && (rank < 1.5 || rank <= 0.1 * limit as f64);
        check(low, verdict, format!("the effective rank is {rank:.1} of {limit}"));
        let dead = self.raw.dead;
        check(dead > 0.25, Verdict::Suspect, format!("{:.0} % of the dimensions are dead", 100.0 * dead));
    }
}

/// The patches of features as `f64` rows, computed one at a time because all of them may not fit in
/// memory.
struct FeatureRows<'a> {
    rows: RowsView<'a>,
    /// The divisor of each row.
    lengths: Option<Vec<f64>>,
}

impl<'a> FeatureRows<'a> {
    fn unscaled(features: &'a Features) -> Self {
        FeatureRows { rows: features.rows(), lengths: None }
    }

    /// Scales all patches to unit length; zeros stay zeros.
    fn unit_length(features: &'a Features) -> Self {
        let raw = FeatureRows::unscaled(features);
        let lengths = (0..raw.len()).map(|row| {
            let length = raw.row(row).map(|value| value * value).sum::<f64>().sqrt();
            if length > 0.0 { length } else { 1.0 }
        });
        FeatureRows { lengths: Some(lengths.collect()), ..raw }
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim
    }

    fn row(&self, row: usize) -> impl Iterator<Item = f64> {
        let length = self.lengths.as_ref().map_or(1.0, |lengths| lengths[row]);
        self.rows.row(row).iter().map(move |&value| f64::from(value) / length)
    }

    /// Returns the mean of the given rows.
    fn mean(&self, rows: impl ExactSizeIterator<Item = usize>) -> Vec<f64> {
        let count = rows.len() as f64;
        let mut mean = vec![0.0; self.dim()];
        rows.for_each(|row| mean.iter_mut().zip(self.row(row)).for_each(|(mean, value)| *mean += value / count));
        mean
    }
}

impl Deviation {
    fn new(rows: &FeatureRows<'_>) -> Self {
        let (count, dim) = (rows.len() as f64, rows.dim() as f64);
        let mean = rows.mean(0..rows.len());
        let mut squares = vec![0.0; rows.dim()];
        for row in 0..rows.len() {
            let deviations = rows.row(row).zip(&mean).map(|(x, mean)| (x - mean).powi(2) / count);
            squares.iter_mut().zip(deviations).for_each(|(sum, square)| *sum += square);
        }
        let floor = 1e-3 * (squares.iter().sum::<f64>() / dim).sqrt();
        let dead = |(square, mean): &(&f64, &f64)| square.sqrt() <= floor.max(1e-6 * mean.abs());
        Deviation {
            mean: squares.iter().map(|square| square.sqrt()).sum::<f64>() / dim,
            min: squares.iter().fold(f64::INFINITY, |min, square| square.sqrt().min(min)),
            dead: squares.iter().zip(&mean).filter(dead).count() as f64 / dim,
        }
    }
}

/// Returns the number of rows (out of `count`) used for the spectrum.
fn spectrum_rows(count: usize, dim: usize) -> usize {
    count.min((SPECTRUM.0 / dim).max(SPECTRUM.1))
}

/// Returns evenly spaced rows, minus their mean.
fn centered(rows: &FeatureRows<'_>) -> Vec<f64> {
    let (count, dim) = (rows.len(), rows.dim());
    let spectrum_rows = spectrum_rows(count, dim);
    let chosen = (0..spectrum_rows).map(|number| number * count / spectrum_rows);
    let mean = rows.mean(chosen.clone());
    // Values at the level of rounding errors count as 0.
    let less = |(value, mean): (f64, &f64)| {
        let left = value - mean;
        if left.abs() <= 1e-12 * mean.abs() { 0.0 } else { left }
    };
    chosen.flat_map(|row| rows.row(row).zip(&mean).map(less).collect::<Vec<_>>()).collect()
}

fn mean_coding_rate(unit: &FeatureRows<'_>, patches: usize) -> f64 {
    let at =
        |patch: usize| -> Vec<f64> { (patch..unit.len()).step_by(patches).flat_map(|row| unit.row(row)).collect() };
    (0..patches).map(|patch| total_coding_rate(&at(patch), unit.dim(), EPSILON)).sum::<f64>() / patches as f64
}

/// Returns the mean cosine within and between images, computed from the sums of their unit rows.
fn cosines(unit: &FeatureRows<'_>, patches: usize) -> (Option<f64>, Option<f64>) {
    let images = unit.len() / patches;
    let (mut all, mut squares, mut own) = (vec![0.0; unit.dim()], 0.0, 0.0);
    for image in 0..images {
        let rows = image * patches..(image + 1) * patches;
        own += rows.clone().flat_map(|row| unit.row(row)).map(|value| value * value).sum::<f64>();
        let sum: Vec<f64> = unit.mean(rows).iter().map(|mean| mean * patches as f64).collect();
        all.iter_mut().zip(&sum).for_each(|(all, sum)| *all += sum);
        squares += dot(&sum, &sum);
    }
    let within = (patches > 1).then(|| (squares - own) / (images * patches * (patches - 1)) as f64);
    let between =
        (images > 1).then(|| (dot(&all, &all) - squares) / (images * (images - 1) * patches * patches) as f64);
    (within, between)
}

/// Returns the uniformity of at most [`MAX_PAIRED`] evenly spaced patches.
fn uniformity(unit: &FeatureRows<'_>, patches: usize) -> Option<f64> {
    let count = unit.len();
    let spectrum_rows = count.min(MAX_PAIRED);
    let chosen = (0..spectrum_rows).map(|number| number * count / spectrum_rows);
    let chosen: Vec<(usize, Vec<f64>)> = chosen.map(|row| (row / patches, unit.row(row).collect())).collect();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (place, (image, row)) in chosen.iter().enumerate() {
        for (_, other) in chosen[..place].iter().filter(|(other, _)| other != image) {
            let square: f64 = row.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum();
            sum += (-2.0 * square).exp();
            pairs += 1.0;
        }
    }
    (pairs > 0.0).then(|| (sum / pairs).ln())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};
    use bagssl_core::embed::{FeatureLayer, Rows};
    use bagssl_core::random::{Address, Purpose};
    use proptest::prelude::*;

    fn features(values: Vec<f32>, patches: usize, dim: usize) -> Result<Features> {
        let images = (values.len() / (patches * dim)) as u32;
        let numbers: Vec<u32> = (0..images).collect();
        Features::new(FeatureLayer::Embedding, Rows { values, dim }, patches, numbers.clone(), numbers)
    }

    /// Normally distributed features in the first `rank` of `dim` dimensions, rotated so that all
    /// dimensions vary.
    fn of_rank(rank: usize, dim: usize, images: usize) -> Features {
        let mut random = Address { seed: 3, ..Address::default() }.stream(Purpose::Evaluation);
        let mut normal = move || random.normal_pair().0;
        let basis: Vec<f64> = (0..rank * dim).map(|_| normal()).collect();
        let mut row = || -> Vec<f32> {
            let shares: Vec<f64> = (0..rank).map(|_| normal()).collect();
            let value = |d: usize| shares.iter().enumerate().map(|(r, share)| share * basis[r * dim + d]).sum::<f64>();
            (0..dim).map(|d| value(d) as f32).collect()
        };
        features((0..images).flat_map(|_| row()).collect(), 1, dim).unwrap()
    }

    #[test]
    fn features_that_are_all_the_same_have_collapsed() {
        let health = Health::new(&features([0.1, -0.7, 0.3, 0.2, 0.9].repeat(2 * 30), 2, 5).unwrap());
        assert_eq!((health.verdict, health.raw.dead, health.effective_rank), (Verdict::Collapsed, 1.0, 1.0));
        assert!(
            (health.cosine_between.unwrap() - 1.0).abs() < 1e-9 && (health.cosine_within.unwrap() - 1.0).abs() < 1e-9
        );
        assert!(health.uniformity.unwrap().abs() < 1e-9);
        assert_eq!(health.reasons.len(), 3, "{:?}", health.reasons);
        assert_eq!(Health::new(&features(vec![0.0; 60], 2, 5).unwrap()).verdict, Verdict::Collapsed);
    }

    #[test]
    fn the_rank_decides() {
        let verdict = |rank| Health::new(&of_rank(rank, 40, 300)).verdict;
        assert_eq!(verdict(1), Verdict::Collapsed);
        assert_eq!(verdict(4), Verdict::Suspect);
        assert_eq!(verdict(40), Verdict::Healthy);
        let healthy = Health::new(&of_rank(40, 40, 300));
        assert!(healthy.uniformity.unwrap() < -3.0, "{healthy:?}");
        assert!(healthy.effective_rank > 25.0 && healthy.coding_rate_share > 0.7, "{healthy:?}");
        assert_eq!((healthy.reasons.len(), healthy.rank_limit, healthy.cosine_within), (0, 40, None));
    }

    #[test]
    fn idle_dimensions_are_suspect() {
        let mut values = of_rank(20, 20, 200).values().to_vec();
        values.chunks_mut(20).for_each(|row| row[..6].fill(0.25));
        let health = Health::new(&features(values, 1, 20).unwrap());
        assert_eq!((health.verdict, health.raw.dead), (Verdict::Suspect, 0.3));
        assert!(health.raw.min < 1e-12);
    }

    #[test]
    fn non_finite_values_are_named() {
        let mut values = of_rank(4, 4, 6).values().to_vec();
        values[4 * 3 + 2] = f32::NAN;
        assert!(matches!(features(values, 2, 4), Err(Error::NotFinite { image: 1, patch: 1, index: 2, .. })));
    }

    /// Patches (1, 0) and (0, 1) of the first image, (0, 2) and (0, 3) of the second.
    #[test]
    fn figures_by_hand() {
        let health = Health::new(&features(vec![1.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0], 2, 2).unwrap());
        assert!((health.cosine_within.unwrap() - 0.5).abs() < 1e-12);
        assert!((health.cosine_between.unwrap() - 0.5).abs() < 1e-12);
        // Of the four pairs of patches of different images, two are equal and two orthogonal:
        // squared distances 0 and 2.
        assert!((health.uniformity.unwrap() - ((2.0 + 2.0 * (-4f64).exp()) / 4.0).ln()).abs() < 1e-12);
        let (x, y) = ((3.0f64 / 16.0).sqrt(), (5.0f64 / 4.0).sqrt());
        assert!((health.raw.mean - (x + y) / 2.0).abs() < 1e-12 && (health.raw.min - x).abs() < 1e-12);
        // At patch 0 the rows are orthogonal, at patch 1 equal: the determinants are (1 + 5)^2 and
        // 1 + 10.
        let rate = -0.25 * (36f64.ln() + 11f64.ln());
        assert!((health.coding_rate - rate).abs() < 1e-12);
        assert!((health.coding_rate_share - rate / -(6f64.ln())).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn figures_stay_in_their_ranges(
            values in prop::collection::vec(-5f32..5.0, 24),
            (patches, dim) in prop::sample::select(vec![(1usize, 4usize), (2, 3), (3, 2), (4, 6), (1, 24), (24, 1)]),
        ) {
            let health = Health::new(&features(values, patches, dim).unwrap());
            prop_assert!(health.effective_rank >= 1.0 && health.effective_rank <= health.rank_limit as f64 + 1e-6);
            prop_assert!((-1e-12..=1.0 + 1e-9).contains(&health.coding_rate_share));
            prop_assert!(health.cosine_within.is_none_or(|cosine| (-1.0 - 1e-9..=1.0 + 1e-9).contains(&cosine)));
            prop_assert!((0.0..=1.0).contains(&health.raw.dead) && health.raw.min <= health.raw.mean + 1e-12);
        }
    }
}
