//! Locality: whether a representation encodes the position of a patch in its image.

use nalgebra::{Cholesky, DMatrix};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, same_length};
use crate::features::Features;
use crate::features::table::RowsView;
use crate::numerics::matrix::{Matrix, multiply};
use crate::numerics::similarity::{nearest, unit_rows};

/// The layout of a patch grid in row-major order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridLayout {
    /// The number of patches from top to bottom.
    pub rows: usize,
    /// The number of patches from left to right.
    pub columns: usize,
}

/// Metrics of the positional information in features.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Locality {
    /// The percentage of patches whose nearest patch in the same image by cosine is one of the up
    /// to eight adjacent ones.
    pub adjacent: f64,
    /// The same percentage for a random other patch of the image.
    pub adjacent_by_chance: f64,
    /// The R² of a linear regression from the feature to a patch's row, on images that it was not
    /// fitted to. 1 is perfect, 0 is no better than the mean, and negative is worse.
    pub row: f64,
    /// The R² of the regression to a patch's column.
    pub column: f64,
}

impl GridLayout {
    fn position(self, patch: usize) -> (usize, usize) {
        (patch / self.columns, patch % self.columns)
    }

    fn is_adjacent(self, a: usize, b: usize) -> bool {
        let ((row, column), (other_row, other_column)) = (self.position(a), self.position(b));
        a != b && row.abs_diff(other_row) <= 1 && column.abs_diff(other_column) <= 1
    }

    fn check(self, features: &Features) -> Result<()> {
        if self.rows < 2 || self.columns < 2 {
            let got = format!("{} by {}", self.rows, self.columns);
            return Err(Error::Setting { name: "grid", expected: "at least 2 by 2 patches".into(), got });
        }
        same_length("grid patches", self.rows * self.columns, features.patches())
    }
}

/// Fits the regression on `train` and computes all metrics on `test`.
///
/// # Errors
/// [`Error::Setting`] if the grid has fewer than two rows or columns. [`Error::Length`] if the
/// number of patches does not match the grid, or the features have different dimensions.
///
/// # Source
/// The claim of BagSSL, arXiv:2206.08954, that the embedding preserves more locality than the
/// projection. The metrics are ours.
pub fn locality(train: &Features, test: &Features, layout: GridLayout) -> Result<Locality> {
    layout.check(train)?;
    layout.check(test)?;
    same_length("feature length", train.dim(), test.dim())?;
    let [row, column] = position(train, test, layout);
    Ok(Locality { adjacent: adjacent(test, layout), adjacent_by_chance: chance_adjacent(layout), row, column })
}

fn adjacent(features: &Features, layout: GridLayout) -> f64 {
    let (patches, dim) = (features.patches(), features.dim());
    let mut right = 0;
    for values in features.values().chunks_exact(patches * dim) {
        let image = RowsView { values, dim };
        let found = nearest(&unit_rows(image), image, 1, |query, item| query != item);
        right += found.iter().enumerate().filter(|(patch, near)| layout.is_adjacent(*patch, near[0].0)).count();
    }
    100.0 * right as f64 / (features.len() * patches) as f64
}

fn chance_adjacent(layout: GridLayout) -> f64 {
    let patches = layout.rows * layout.columns;
    let pairs = (0..patches).flat_map(|a| (0..patches).map(move |b| (a, b)));
    100.0 * pairs.filter(|&(a, b)| layout.is_adjacent(a, b)).count() as f64 / (patches * (patches - 1)) as f64
}

/// The ridge added to the covariance, relative to its mean diagonal, so that unused dimensions are
/// harmless.
const RIDGE: f64 = 1e-9;

/// Returns the R² of a least-squares regression to row and column on `test`.
fn position(train: &Features, test: &Features, layout: GridLayout) -> [f64; 2] {
    let (dim, count) = (train.dim(), train.values().len() / train.dim());
    let mut mean = vec![0.0; dim];
    for row in train.values().chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value) / count as f64);
    }
    let middle = [(layout.rows - 1) as f64 / 2.0, (layout.columns - 1) as f64 / 2.0];
    let target = |number: usize| {
        let (row, column) = layout.position(number % (layout.rows * layout.columns));
        [row as f64 - middle[0], column as f64 - middle[1]]
    };
    let centered = |rows: &[f32]| -> Vec<f64> {
        rows.iter().zip(mean.iter().cycle()).map(|(&value, mean)| f64::from(value) - mean).collect()
    };
    const BLOCK: usize = 1024;
    let (mut gram, mut products) = (vec![0.0; dim * dim], vec![0.0; dim * 2]);
    for (block, rows) in train.values().chunks(BLOCK * dim).enumerate() {
        let rows = centered(rows);
        let targets: Vec<f64> = (0..rows.len() / dim).flat_map(|row| target(block * BLOCK + row)).collect();
        let view = Matrix::new(&rows, rows.len() / dim, dim);
        multiply(view.t(), view, 1.0, &mut gram);
        multiply(view.t(), Matrix::new(&targets, targets.len() / 2, 2), 1.0, &mut products);
    }
    let mut gram = DMatrix::from_vec(dim, dim, gram);
    let ridge = RIDGE * gram.trace() / dim as f64;
    (0..dim).for_each(|at| gram[(at, at)] += ridge);
    let products = DMatrix::from_row_slice(dim, 2, &products);
    // If all features are equal, they explain nothing.
    let weights = Cholesky::new(gram).map_or(DMatrix::zeros(dim, 2), |factor| factor.solve(&products));
    let (mut left, mut all) = ([0.0; 2], [0.0; 2]);
    for (number, row) in test.values().chunks_exact(dim).enumerate() {
        let (row, target) = (centered(row), target(number));
        for axis in 0..2 {
            let ranks: f64 = row.iter().zip(weights.column(axis).iter()).map(|(a, b)| a * b).sum();
            left[axis] += (ranks - target[axis]).powi(2);
            all[axis] += target[axis].powi(2);
        }
    }
    [1.0 - left[0] / all[0], 1.0 - left[1] / all[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::{FeatureLayer, Rows};
    use bagssl_core::random::{Address, Purpose};

    const LAYOUT: GridLayout = GridLayout { rows: 3, columns: 4 };

    /// Features of 40 images as a function of image, row and column.
    fn features(layout: GridLayout, seed: u64, of: impl Fn(usize, f64, f64, f64) -> Vec<f32>) -> Features {
        let mut random = Address { seed, ..Address::default() }.stream(Purpose::Evaluation);
        let mut values = vec![];
        for image in 0..40 {
            for patch in 0..layout.rows * layout.columns {
                let (row, column) = layout.position(patch);
                values.extend(of(image, row as f64, column as f64, random.normal_pair().0));
            }
        }
        let dim = values.len() / (40 * layout.rows * layout.columns);
        let images: Vec<u32> = (0..40).collect();
        Features::new(
            FeatureLayer::Embedding,
            Rows { values, dim },
            layout.rows * layout.columns,
            images.clone(),
            images,
        )
        .unwrap()
    }

    /// In 3 by 4 patches, 4 corners have 3 neighbors, 6 edge patches have 5, and 2 inner patches
    /// have 8: 58 of 132 pairs.
    #[test]
    fn chance_by_hand() {
        assert!((chance_adjacent(LAYOUT) - 100.0 * 58.0 / 132.0).abs() < 1e-12);
        assert_eq!(chance_adjacent(GridLayout { rows: 2, columns: 2 }), 100.0);
    }

    /// Directions that rotate with the position: the nearest patch is adjacent, and row and column
    /// are predictable.
    #[test]
    fn encoded_positions_are_decoded() {
        let of = |image: usize, row: f64, column: f64, noise: f64| {
            vec![9.0, row as f32 + 1e-3 * noise as f32, column as f32, (image as f32).sin()]
        };
        let (train, test) = (features(LAYOUT, 1, of), features(LAYOUT, 2, of));
        let found = locality(&train, &test, LAYOUT).unwrap();
        assert_eq!(found.adjacent, 100.0);
        assert!(found.row > 0.999 && found.column > 0.999, "{found:?}");
        // With rows and columns swapped, they are not.
        let turned = locality(&train, &test, GridLayout { rows: 4, columns: 3 }).unwrap();
        assert!(turned.column < 0.1 && turned.adjacent < 90.0, "{turned:?}");
    }

    /// The features encode only the row: the column is not explained.
    #[test]
    fn one_axis_is_not_the_other() {
        let of = |_: usize, row: f64, _: f64, noise: f64| vec![2.0, row as f32, 0.1 * noise as f32];
        let found = locality(&features(LAYOUT, 1, of), &features(LAYOUT, 2, of), LAYOUT).unwrap();
        assert!(found.row > 0.999 && found.column.abs() < 0.05, "{found:?}");
    }

    #[test]
    fn noise_has_no_position() {
        let of =
            |_: usize, row: f64, _: f64, noise: f64| vec![noise as f32, (noise * 7.0).sin() as f32, 0.0 * row as f32];
        let layout = GridLayout { rows: 5, columns: 5 };
        let found = locality(&features(layout, 1, of), &features(layout, 2, of), layout).unwrap();
        assert!((found.adjacent - found.adjacent_by_chance).abs() < 6.0, "{found:?}");
        assert!(found.row.abs() < 0.05 && found.column.abs() < 0.05, "{found:?}");
    }

    /// Of four rows, those farther apart are similar: the nearest patch is never adjacent.
    #[test]
    fn distant_similar_patches_are_not_adjacent() {
        let layout = GridLayout { rows: 4, columns: 2 };
        let of = |_: usize, row: f64, column: f64, _: f64| {
            let half = row as usize % 2;
            vec![
                f32::from(half == 0 && column < 0.5),
                f32::from(half == 0 && column > 0.5),
                f32::from(half == 1 && column < 0.5),
                f32::from(half == 1 && column > 0.5),
            ]
        };
        let found = locality(&features(layout, 1, of), &features(layout, 2, of), layout).unwrap();
        assert_eq!(found.adjacent, 0.0);
    }

    #[test]
    fn other_grids_are_refused() {
        let all = features(LAYOUT, 1, |_, row, column, _| vec![row as f32, column as f32]);
        assert!(locality(&all, &all, GridLayout { rows: 3, columns: 3 }).is_err());
        assert!(locality(&all, &all, GridLayout { rows: 1, columns: 12 }).is_err());
    }

    #[test]
    fn constant_features_know_nothing() {
        let all = features(LAYOUT, 1, |_, _, _, _| vec![1.0, 2.0]);
        let found = locality(&all, &all, LAYOUT).unwrap();
        assert_eq!((found.row, found.column), (0.0, 0.0));
    }
}
