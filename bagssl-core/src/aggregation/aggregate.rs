//! Aggregation: turns the embeddings of patches into the representation of an image.
//!
//! # Source
//! BagSSL, arXiv:2206.08954: the representation of an image is the mean of the embeddings of its
//! patches.

use std::prelude::v1::*;

use crate::bag::Grid;
use crate::error::{Error, Result};
use crate::quantile::{check_confidence, student_t};

/// The running mean of embeddings, with its standard error. It stores two vectors.
///
/// # Example
/// ```
/// use bagssl_core::aggregate::RunningMean;
/// let mut mean = RunningMean::new(2);
/// mean.push(&[1.0, 4.0])?;
/// mean.push(&[3.0, 4.0])?;
/// assert_eq!(mean.mean(), Some(vec![2.0, 4.0]));
/// assert_eq!(mean.standard_error(), Some(vec![1.0, 0.0]));
/// # Ok::<(), bagssl_core::Error>(())
/// ```
///
/// # Source
/// Welford, *Note on a method for calculating corrected sums of squares and products*,
/// Technometrics 1962.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningMean {
    count: u64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl RunningMean {
    /// Creates an empty mean of vectors of length `dim`.
    pub fn new(dim: usize) -> Self {
        RunningMean { count: 0, mean: vec![0.0; dim], squares: vec![0.0; dim] }
    }

    /// Returns the length of the vectors.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Returns the number of vectors added so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds an embedding.
    ///
    /// # Errors
    /// [`Error::Length`] if the embedding does not have length [`RunningMean::dim`].
    pub fn push(&mut self, embedding: &[f32]) -> Result<()> {
        check_dim(self.dim(), embedding.len())?;
        self.count += 1;
        let count = self.count as f64;
        for ((mean, squares), &value) in self.mean.iter_mut().zip(&mut self.squares).zip(embedding) {
            let before = f64::from(value) - *mean;
            *mean += before / count;
            *squares += before * (f64::from(value) - *mean);
        }
        Ok(())
    }

    /// Adds all vectors of another mean (Chan, Golub, LeVeque 1979).
    ///
    /// # Errors
    /// [`Error::Length`] if the other mean's vectors have a different length.
    pub fn merge(&mut self, other: &RunningMean) -> Result<()> {
        check_dim(self.dim(), other.dim())?;
        if other.count == 0 {
            return Ok(());
        }
        let total = (self.count + other.count) as f64;
        let weight = other.count as f64 / total;
        for dim in 0..self.dim() {
            let shift = other.mean[dim] - self.mean[dim];
            self.mean[dim] += shift * weight;
            self.squares[dim] += other.squares[dim] + shift * shift * weight * self.count as f64;
        }
        self.count += other.count;
        Ok(())
    }

    /// Returns the mean, or `None` before the first embedding.
    pub fn mean(&self) -> Option<Vec<f32>> {
        (self.count > 0).then(|| self.mean.iter().map(|&mean| mean as f32).collect())
    }

    /// Returns the standard error of each component of the mean, treating the patches as
    /// independent draws: the sample standard deviation (with divisor `n - 1`) divided by
    /// `sqrt(n)`. Returns `None` before the second embedding.
    pub fn standard_error(&self) -> Option<Vec<f32>> {
        (self.count > 1).then(|| {
            let scale = (self.count as f64) * (self.count - 1) as f64;
            self.squares.iter().map(|&squares| libm::sqrt(squares / scale) as f32).collect()
        })
    }

    /// Returns the standard error of each component, treating the patches as drawn without
    /// replacement from a grid of `patches`: `sqrt(s^2 / n (1 - n / N))`. Its square is an unbiased
    /// estimate. Returns 0 once all patches have been added, and `None` for fewer than two
    /// embeddings of a larger grid.
    ///
    /// # Panics
    /// If the mean holds more embeddings than the grid has patches.
    ///
    /// # Source
    /// Cochran, *Sampling Techniques*, 3rd edition 1977, theorem 2.2 and equation 2.20.
    pub fn standard_error_within(&self, patches: u64) -> Option<Vec<f32>> {
        let factor = self.variance_factor(patches)?;
        Some(self.squares.iter().map(|&squares| libm::sqrt(squares * factor) as f32).collect())
    }

    /// Returns the uncertainty of the embedding as one number: the expected distance between this
    /// mean and the mean of all `patches` of the grid, relative to the length of this mean.
    ///
    /// It is `sqrt(sum of the squared standard errors) / |mean|`, where the numerator is the root
    /// of the expected squared distance. At 0.1, the two directions differ by about 0.1 radians (a
    /// cosine of 0.995). The uncertainty is an upper bound of the relative standard error of the
    /// mean's length, because only errors along the mean change its length. It is infinite if the
    /// mean is 0 and its error is not. Returns `None` for fewer than two embeddings of a larger
    /// grid.
    ///
    /// # Panics
    /// If the mean holds more embeddings than the grid has patches.
    ///
    /// # Example
    /// ```
    /// use bagssl_core::aggregate::RunningMean;
    /// let mut mean = RunningMean::new(2);
    /// mean.push(&[1.0, 2.0])?;
    /// mean.push(&[5.0, 6.0])?;
    /// // Each component: s^2 = 8, 8 / 2 (1 - 2 / 4) = 2. The mean is (3, 4), its length 5.
    /// assert_eq!(mean.uncertainty(4), Some(2.0 / 5.0));
    /// assert_eq!(mean.uncertainty(2), Some(0.0));
    /// # Ok::<(), bagssl_core::Error>(())
    /// ```
    pub fn uncertainty(&self, patches: u64) -> Option<f64> {
        let error = self.distance_error(patches)?;
        Some(if error == 0.0 { 0.0 } else { error / self.length() })
    }

    /// Returns a confidence interval per component for the mean of all `patches` of the grid, from
    /// Student's t with `n - 1` degrees of freedom. Returns `None` for fewer than two embeddings of
    /// a larger grid.
    ///
    /// The confidence holds for each component separately and for a number of patches that was
    /// fixed in advance. If the stopping time depends on the patches, the intervals are slightly
    /// too narrow. The level is exact for normal embeddings of a large grid. It is nearly exact for
    /// others, unless the sample is small and skewed.
    ///
    /// # Errors
    /// [`Error::Setting`] if the confidence is not between 0.5 and 0.9999.
    ///
    /// # Panics
    /// If the mean holds more embeddings than the grid has patches.
    pub fn intervals(&self, patches: u64, confidence: f64) -> Result<Option<Intervals>> {
        let Some(t) = self.errors_for(confidence)? else {
            return Ok(self
                .variance_factor(patches)
                .and(self.mean())
                .map(|mean| Intervals { low: mean.clone(), high: mean }));
        };
        let Some(factor) = self.variance_factor(patches) else { return Ok(None) };
        let bounds =
            || self.mean.iter().zip(&self.squares).map(|(mean, squares)| (mean, t * libm::sqrt(squares * factor)));
        Ok(Some(Intervals {
            low: bounds().map(|(mean, half_width)| (mean - half_width) as f32).collect(),
            high: bounds().map(|(mean, half_width)| (mean + half_width) as f32).collect(),
        }))
    }

    /// Returns the radius of a ball around this mean that contains the mean of all `patches` of the
    /// grid with at least the given confidence: the two-sided quantile of Student's t times the
    /// root of the expected squared distance.
    ///
    /// The radius is exact if all uncertainty lies in one direction, and conservative otherwise:
    /// the more directions share it, the larger the overestimate. It holds under the same
    /// conditions as [`RunningMean::intervals`]. Returns `None` for fewer than two embeddings of a
    /// larger grid.
    ///
    /// # Errors
    /// [`Error::Setting`] if the confidence is not between 0.8 and 0.9999.
    ///
    /// # Panics
    /// If the mean holds more embeddings than the grid has patches.
    ///
    /// # Source
    /// Székely and Bakirov, *Extremal probabilities for Gaussian quadratic forms*, Probability
    /// Theory and Related Fields 2003. Among all such forms with expectation 1, the one of rank 1
    /// is the most likely to exceed any bound above 1.5364 (confidences from 0.79). The paper
    /// assumes a known variance; Student's t instead of the normal quantile accounts for the
    /// estimated variance.
    pub fn radius(&self, patches: u64, confidence: f64) -> Result<Option<f64>> {
        if confidence < 0.8 {
            let got = format!("{confidence}");
            return Err(Error::Setting { name: "confidence of a ball", expected: "0.8 to 0.9999", got });
        }
        let t = self.errors_for(confidence)?.unwrap_or(0.0);
        Ok(self.distance_error(patches).map(|error| t * error))
    }

    /// Returns the Euclidean norm of the mean; 0 before the first embedding.
    pub(crate) fn length(&self) -> f64 {
        libm::sqrt(self.mean.iter().map(|mean| mean * mean).sum())
    }

    /// The root of the expected squared distance between this mean and the mean of all patches.
    fn distance_error(&self, patches: u64) -> Option<f64> {
        Some(libm::sqrt(self.squares.iter().sum::<f64>() * self.variance_factor(patches)?))
    }

    /// The factor that converts the sum of squared deviations to the variance of the mean.
    fn variance_factor(&self, patches: u64) -> Option<f64> {
        assert!(self.count <= patches, "{} embeddings for a grid of {patches} patches", self.count);
        match self.count {
            0 => None,
            count if count == patches => Some(0.0),
            1 => None,
            count => Some((1.0 - count as f64 / patches as f64) / (count as f64 * (count - 1) as f64)),
        }
    }

    /// The half-width of a two-sided interval in standard errors; `None` before the second
    /// embedding.
    fn errors_for(&self, confidence: f64) -> Result<Option<f64>> {
        check_confidence(confidence)?;
        let degrees = u32::try_from(self.count.saturating_sub(1)).unwrap_or(u32::MAX);
        Ok((degrees > 0).then(|| student_t(0.5 + 0.5 * confidence, degrees)))
    }
}

/// A confidence interval for each component of a mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    /// Lower bounds.
    pub low: Vec<f32>,
    /// Upper bounds.
    pub high: Vec<f32>,
}

fn check_dim(expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { name: "embedding", expected, got }) }
}

/// Averages the embeddings of a grid of patches over `cells x cells` parts of the image and
/// concatenates the parts row by row. One cell gives the mean of all patches.
///
/// Part `r` covers the grid rows from `floor(r rows / cells)` to `ceil((r + 1) rows / cells)`, and
/// columns likewise, as in adaptive average pooling. Parts therefore overlap if `cells` does not
/// divide the grid.
///
/// # Shapes
/// - `embeddings`: `[patch, dim]`, the patches of `grid` row by row
/// - returns: `[cell, dim]`, cell `i` at row `i / cells`, column `i % cells`
///
/// # Errors
/// [`Error::Length`] if the length of `embeddings` does not fit the grid. [`Error::Setting`] if
/// `cells` is 0 or exceeds the number of rows or columns of the grid.
pub fn pool(embeddings: &[f32], dim: usize, grid: Grid, cells: u32) -> Result<Vec<f32>> {
    let expected = grid.patches() * dim;
    if embeddings.len() != expected {
        return Err(Error::Length { name: "grid embeddings", expected, got: embeddings.len() });
    }
    if cells == 0 || cells > grid.rows().min(grid.columns()) {
        return Err(Error::Setting {
            name: "cells",
            expected: "1 to the smaller of the grid's rows and columns",
            got: format!("{cells} for a grid of {}x{}", grid.rows(), grid.columns()),
        });
    }
    let span = |cell: u32, length: u32| (cell * length / cells)..((cell + 1) * length).div_ceil(cells);
    let mut pooled = Vec::with_capacity((cells * cells) as usize * dim);
    for cell in 0..cells * cells {
        let mut mean = RunningMean::new(dim);
        for row in span(cell / cells, grid.rows()) {
            for column in span(cell % cells, grid.columns()) {
                let patch = (row * grid.columns() + column) as usize;
                mean.push(&embeddings[patch * dim..][..dim])?;
            }
        }
        pooled.extend(mean.mean.iter().map(|&value| value as f32));
    }
    Ok(pooled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::{ImageSize, PatchSide, PatchSpec};
    use proptest::prelude::*;

    fn grid(rows: u32, columns: u32) -> Grid {
        let spec = PatchSpec::new(PatchSide::Pixels(1), 1).unwrap();
        Grid::new(spec, ImageSize { height: rows, width: columns }, 1).unwrap()
    }

    #[test]
    fn mean_and_error_of_few_patches() {
        let mut mean = RunningMean::new(1);
        assert_eq!((mean.mean(), mean.standard_error()), (None, None));
        mean.push(&[2.0]).unwrap();
        assert_eq!((mean.mean(), mean.standard_error()), (Some(vec![2.0]), None));
        assert!(mean.push(&[1.0, 2.0]).is_err());
        assert_eq!(mean.count(), 1);
    }

    /// 2, 4, 9: mean 5, standard deviation sqrt(26 / 2), standard error sqrt(13 / 3).
    #[test]
    fn standard_error_by_hand() {
        let mut mean = RunningMean::new(1);
        for value in [2.0, 4.0, 9.0] {
            mean.push(&[value]).unwrap();
        }
        assert_eq!(mean.mean(), Some(vec![5.0]));
        assert!((mean.standard_error().unwrap()[0] - libm::sqrtf(13.0 / 3.0)).abs() < 1e-6);
    }

    fn of(values: &[f32]) -> RunningMean {
        let mut mean = RunningMean::new(1);
        values.iter().for_each(|&value| mean.push(&[value]).unwrap());
        mean
    }

    /// 2, 4, 9 of 12: s^2 = 13, 13 / 3 (1 - 3 / 12) = 13 / 4; t with 2 degrees of freedom is
    /// 4.3027.
    #[test]
    fn standard_error_within_grid_by_hand() {
        let mean = of(&[2.0, 4.0, 9.0]);
        let error = libm::sqrt(13.0 / 4.0);
        assert!((mean.standard_error_within(12).unwrap()[0] - error as f32).abs() < 1e-6);
        assert!((mean.uncertainty(12).unwrap() - error / 5.0).abs() < 1e-12);
        let found = mean.intervals(12, 0.95).unwrap().unwrap();
        assert!((found.low[0] - 5.0 + (4.3027 * error) as f32).abs() < 1e-3);
        assert!((found.high[0] - 5.0 - (4.3027 * error) as f32).abs() < 1e-3);
        assert!((mean.radius(12, 0.95).unwrap().unwrap() - 4.3027 * error).abs() < 1e-3);
        assert!(mean.intervals(12, 1.0).is_err() && mean.radius(12, 0.7).is_err());
    }

    #[test]
    fn uncertainty_of_full_grid_and_single_patch() {
        for values in [&[2.0, 4.0][..], &[3.0]] {
            let (mean, patches) = (of(values), values.len() as u64);
            assert_eq!((mean.standard_error_within(patches), mean.uncertainty(patches)), (Some(vec![0.0]), Some(0.0)));
            let exact = Intervals { low: vec![3.0], high: vec![3.0] };
            assert_eq!(mean.intervals(patches, 0.95).unwrap(), Some(exact));
            assert_eq!(mean.radius(patches, 0.95).unwrap(), Some(0.0));
        }
        for mean in [of(&[]), of(&[3.0])] {
            assert_eq!((mean.standard_error_within(7), mean.uncertainty(7)), (None, None));
            assert_eq!((mean.intervals(7, 0.95).unwrap(), mean.radius(7, 0.95).unwrap()), (None, None));
        }
        assert_eq!(of(&[-1.0, 1.0]).uncertainty(7), Some(f64::INFINITY));
    }

    /// All samples of 2 from 1, 2, 6, 11: the mean of the squared standard errors equals the mean
    /// squared distance to 5.
    #[test]
    fn squared_error_is_unbiased() {
        let grid = [1.0, 2.0, 6.0, 11.0];
        let (mut stated, mut found) = (0.0, 0.0);
        for first in 0..4 {
            for second in first + 1..4 {
                let mean = of(&[grid[first], grid[second]]);
                stated += mean.distance_error(4).unwrap().powi(2);
                found += (mean.mean[0] - 5.0).powi(2);
            }
        }
        assert!((stated - found).abs() < 1e-9, "{stated} {found}");
    }

    /// A grid of 3 rows and 2 columns in 2x2 parts: each part has two rows (sharing the middle one)
    /// and one column.
    #[test]
    fn pooling_by_hand() {
        let embeddings = [1.0, 10.0, 3.0, 30.0, 5.0, 50.0];
        assert_eq!(pool(&embeddings, 1, grid(3, 2), 2).unwrap(), [2.0, 20.0, 4.0, 40.0]);
        assert!(pool(&embeddings, 1, grid(3, 2), 3).is_err());
        assert!(pool(&embeddings, 1, grid(3, 2), 0).is_err());
        assert!(pool(&embeddings[1..], 1, grid(3, 2), 1).is_err());
    }

    proptest! {
        #[test]
        fn merge_equals_one_pass(values in prop::collection::vec(-100f32..100.0, 2..40), cut in 0usize..40) {
            let cut = cut.min(values.len());
            let mut merged = of(&values[..cut]);
            merged.merge(&of(&values[cut..])).unwrap();
            let whole = of(&values);
            prop_assert_eq!(merged.count(), whole.count());
            prop_assert!((merged.mean().unwrap()[0] - whole.mean().unwrap()[0]).abs() < 1e-4);
            prop_assert!((merged.standard_error().unwrap()[0] - whole.standard_error().unwrap()[0]).abs() < 1e-4);
        }

        #[test]
        fn pool_to_one_cell_is_the_mean(rows in 1u32..7, columns in 1u32..7, seed in 0f32..10.0) {
            let grid = grid(rows, columns);
            let embeddings: Vec<f32> = (0..grid.patches() * 2).map(|i| libm::sinf(i as f32 * seed)).collect();
            let mut mean = RunningMean::new(2);
            embeddings.chunks(2).for_each(|patch| mean.push(patch).unwrap());
            prop_assert_eq!(pool(&embeddings, 2, grid, 1).unwrap(), mean.mean().unwrap());
        }
    }
}
