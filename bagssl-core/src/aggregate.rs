//! Aggregation: from the embeddings of patches to the representation of an image.
//!
//! # Source
//! BagSSL, arXiv:2206.08954: an image's representation is the mean of the embeddings of its patches.

use std::prelude::v1::*;

use crate::bag::Grid;
use crate::error::{Error, Result};

/// The mean of embeddings that arrive one by one, with its standard error, in memory for two vectors.
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
/// Welford, *Note on a method for calculating corrected sums of squares and products*, Technometrics 1962.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningMean {
    count: u64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl RunningMean {
    /// The mean of nothing yet, of vectors of length `dim`.
    pub fn new(dim: usize) -> Self {
        RunningMean { count: 0, mean: vec![0.0; dim], squares: vec![0.0; dim] }
    }

    /// The length of the vectors.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// How many vectors have come.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes one more embedding in.
    ///
    /// # Errors
    /// [`Error::Length`] if it has another length.
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

    /// Takes in all that another mean has seen (Chan, Golub, LeVeque 1979).
    ///
    /// # Errors
    /// [`Error::Length`] if its vectors have another length.
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

    /// The mean; `None` before the first embedding.
    pub fn mean(&self) -> Option<Vec<f32>> {
        (self.count > 0).then(|| self.mean.iter().map(|&mean| mean as f32).collect())
    }

    /// The standard error of each component of the mean, the patches taken as independent draws: the sample's
    /// deviation (`n - 1`) over the root of `n`. `None` before the second embedding.
    pub fn standard_error(&self) -> Option<Vec<f32>> {
        (self.count > 1).then(|| {
            let scale = (self.count as f64) * (self.count - 1) as f64;
            self.squares.iter().map(|&squares| libm::sqrt(squares / scale) as f32).collect()
        })
    }
}

fn check_dim(expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { what: "embedding", expected, got }) }
}

/// Averages the embeddings of a grid of patches over `cells x cells` parts of the image and puts the parts one after
/// the other, row by row. One cell gives the mean of all patches. Part `r` holds the grid rows from
/// `floor(r rows / cells)` to `ceil((r + 1) rows / cells)`, and columns likewise (as adaptive average pooling does), so
/// that parts share patches where the grid does not divide evenly.
///
/// # Shapes
/// - `embeddings`: `[patch, dim]`, the patches of `grid` row by row
/// - returns: `[cell, dim]`, cell `i` at row `i / cells`, column `i % cells`
///
/// # Errors
/// [`Error::Length`] if `embeddings` is not as long as the grid needs, [`Error::Setting`] if `cells` is 0 or more than
/// the grid has rows or columns.
pub fn pool(embeddings: &[f32], dim: usize, grid: Grid, cells: u32) -> Result<Vec<f32>> {
    let expected = grid.patches() * dim;
    if embeddings.len() != expected {
        return Err(Error::Length { what: "embeddings of a grid", expected, got: embeddings.len() });
    }
    if cells == 0 || cells > grid.rows().min(grid.columns()) {
        return Err(Error::Setting {
            name: "cells",
            expected: "at least 1, at most the grid's rows and columns",
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
    fn nothing_has_no_mean_and_one_has_no_error() {
        let mut mean = RunningMean::new(1);
        assert_eq!((mean.mean(), mean.standard_error()), (None, None));
        mean.push(&[2.0]).unwrap();
        assert_eq!((mean.mean(), mean.standard_error()), (Some(vec![2.0]), None));
        assert!(mean.push(&[1.0, 2.0]).is_err());
        assert_eq!(mean.count(), 1);
    }

    /// 2, 4, 9: mean 5, deviation sqrt(26 / 2), error sqrt(13 / 3).
    #[test]
    fn the_standard_error_by_hand() {
        let mut mean = RunningMean::new(1);
        for value in [2.0, 4.0, 9.0] {
            mean.push(&[value]).unwrap();
        }
        assert_eq!(mean.mean(), Some(vec![5.0]));
        assert!((mean.standard_error().unwrap()[0] - libm::sqrtf(13.0 / 3.0)).abs() < 1e-6);
    }

    /// A grid of 3 rows and 2 columns in 2x2 parts: each part has two rows (the middle one twice) and one column.
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
        fn merging_equals_one_pass(values in prop::collection::vec(-100f32..100.0, 2..40), cut in 0usize..40) {
            let cut = cut.min(values.len());
            let of = |part: &[f32]| {
                let mut mean = RunningMean::new(1);
                part.iter().for_each(|&value| mean.push(&[value]).unwrap());
                mean
            };
            let mut merged = of(&values[..cut]);
            merged.merge(&of(&values[cut..])).unwrap();
            let whole = of(&values);
            prop_assert_eq!(merged.count(), whole.count());
            prop_assert!((merged.mean().unwrap()[0] - whole.mean().unwrap()[0]).abs() < 1e-4);
            prop_assert!((merged.standard_error().unwrap()[0] - whole.standard_error().unwrap()[0]).abs() < 1e-4);
        }

        #[test]
        fn one_cell_is_the_mean(rows in 1u32..7, columns in 1u32..7, seed in 0f32..10.0) {
            let grid = grid(rows, columns);
            let embeddings: Vec<f32> = (0..grid.patches() * 2).map(|i| libm::sinf(i as f32 * seed)).collect();
            let mut mean = RunningMean::new(2);
            embeddings.chunks(2).for_each(|patch| mean.push(patch).unwrap());
            prop_assert_eq!(pool(&embeddings, 2, grid, 1).unwrap(), mean.mean().unwrap());
        }
    }
}
