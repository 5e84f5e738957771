//! Maps of representations: high-dimensional rows as points in a plane.

use bhtsne::{Neighbor, tSNE};
use nalgebra::DMatrix;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::features::samples::check_finite;
use crate::features::table::RowsView;
use crate::numerics::matrix::{Matrix, multiply};

/// The principal components of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// The scores, `[row, direction]`, centered, in descending order of variance. Each direction is
    /// signed so that its largest absolute score is positive.
    pub scores: Vec<f64>,
    /// The number of directions: at most the number of dimensions, and at most the number of rows
    /// minus one.
    pub directions: usize,
    /// The share of the total variance of each direction, in percent.
    pub explained: Vec<f64>,
}

/// Computes the first `max_directions` principal components, from the smaller one of the covariance and the
/// Gram matrix.
///
/// # Errors
/// [`Error::Setting`] if there are fewer than two rows, or all rows are equal. [`Error::NotFinite`]
/// with the row.
///
/// # Source
/// Pearson, *On lines and planes of closest fit to systems of points in space*, 1901.
pub fn pca<'a>(rows: impl Into<RowsView<'a>>, max_directions: usize) -> Result<Pca> {
    let rows = rows.into();
    let (count, dim) = (rows.len(), rows.dim);
    let refuse = |got: String| Error::Setting { name: "rows", expected: "at least two different rows".into(), got };
    if count < 2 {
        return Err(refuse(count.to_string()));
    }
    check_finite("features", rows)?;
    let mean: Vec<f64> =
        (0..dim).map(|at| (0..count).map(|row| f64::from(rows.row(row)[at])).sum::<f64>() / count as f64).collect();
    let centered: Vec<f64> = (0..count)
        .flat_map(|row| rows.row(row).iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean))
        .collect();
    let view = Matrix::new(&centered, count, dim);
    let side = count.min(dim);
    let mut gram = vec![0.0; side * side];
    match count < dim {
        true => multiply(view, view.t(), 0.0, &mut gram),
        false => multiply(view.t(), view, 0.0, &mut gram),
    }
    let gram = DMatrix::from_vec(side, side, gram);
    let all = gram.trace();
    let eigen = gram.symmetric_eigen();
    let mut order: Vec<usize> = (0..side).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let noise = all * f64::EPSILON * side as f64;
    order.retain(|&at| eigen.eigenvalues[at] > noise);
    order.truncate(max_directions);
    if order.is_empty() {
        return Err(refuse(format!("{count} identical rows")));
    }
    let directions = order.len();
    let mut scores = vec![0.0; count * directions];
    for (direction, &at) in order.iter().enumerate() {
        let vector = eigen.eigenvectors.column(at);
        let score = |row: usize| match count < dim {
            // The eigenvectors of the Gram matrix are the scores up to their length.
            true => vector[row] * eigen.eigenvalues[at].sqrt(),
            false => centered[row * dim..][..dim].iter().zip(vector.iter()).map(|(value, weight)| value * weight).sum(),
        };
        let values: Vec<f64> = (0..count).map(score).collect();
        let farthest = values.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
        values.iter().enumerate().for_each(|(row, value)| {
            scores[row * directions + direction] = value * farthest.signum();
        });
    }
    let explained = order.iter().map(|&at| 100.0 * eigen.eigenvalues[at] / all).collect();
    Ok(Pca { scores, directions, explained })
}

impl Pca {
    /// Returns the first two scores of each row. The second is 0 if there is only one direction.
    pub fn points(&self) -> Vec<[f64; 2]> {
        let second = |row: &[f64]| row.get(1).copied().unwrap_or(0.0);
        self.scores.chunks(self.directions).map(|row| [row[0], second(row)]).collect()
    }
}

/// t-distributed stochastic neighbor embedding. Neighboring rows stay close; distances between
/// clusters mean little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tsne {
    /// The effective number of neighbors: 1 to a third of the number of rows minus one.
    pub perplexity: f64,
    /// The number of gradient descent steps.
    pub steps: usize,
}

impl Default for Tsne {
    /// The defaults of scikit-learn.
    fn default() -> Self {
        Tsne { perplexity: 30.0, steps: 1000 }
    }
}

/// The number of principal components in which neighbors are searched.
const PCA_DIMENSIONS: usize = 50;
/// The Barnes-Hut parameter: a cell of points acts as one point if its size is below this fraction
/// of its distance.
const THETA: f32 = 0.5;

impl Tsne {
    /// Maps rows to the plane, on one thread. The initial map is the first two principal
    /// components. So the same rows give the same map, and distant clusters keep their relative
    /// positions. `progress` is called with each step.
    ///
    /// # Errors
    /// The errors of [`pca`], and [`Error::Setting`] if the perplexity is out of range.
    ///
    /// # Source
    /// Van der Maaten and Hinton, *Visualizing data using t-SNE*, JMLR 2008. Barnes-Hut
    /// approximation: van der Maaten, JMLR 2014. Initialization: Kobak and Berens, *The art of
    /// using t-SNE for single-cell transcriptomics*, 2019.
    pub fn map<'a>(
        &self,
        rows: impl Into<RowsView<'a>>,
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<Vec<[f64; 2]>> {
        let rows = rows.into();
        let reduced = pca(rows, PCA_DIMENSIONS)?;
        let (count, dim) = (rows.len(), reduced.directions);
        let max_directions = (count - 1) as f64 / 3.0;
        if !(1.0..=max_directions).contains(&self.perplexity) {
            let expected = format!("1 to {max_directions:.1} (a third of the {count} points minus one)");
            return Err(Error::Setting { name: "perplexity", expected, got: self.perplexity.to_string() });
        }
        let wanted = (3.0 * self.perplexity) as usize;
        let row = |at: usize| &reduced.scores[at * dim..][..dim];
        let distance =
            |a: usize, b: usize| row(a).iter().zip(row(b)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt() as f32;
        let nearest = |at: usize| {
            let mut others: Vec<Neighbor<f32>> = (0..count)
                .filter(|&other| other != at)
                .map(|index| Neighbor { index, distance: distance(at, index) })
                .collect();
            others.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.index.cmp(&b.index)));
            others.truncate(wanted);
            others
        };
        let neighbors: Vec<Vec<Neighbor<f32>>> = (0..count).into_par_iter().map(nearest).collect();
        let points = reduced.points();
        // The initial map is scaled down so that the first steps can rearrange it.
        let deviation = (points.iter().map(|[x, _]| x * x).sum::<f64>() / count as f64).sqrt();
        let begin: Vec<f32> = points.iter().flatten().map(|value| (1e-4 * value / deviation) as f32).collect();
        let none = vec![(); count];
        let fit = || {
            let mut fit = tSNE::<f32, ()>::new(&none);
            fit.perplexity(self.perplexity as f32).epochs(self.steps).initial_embedding(begin);
            fit.learning_rate((count as f32 / 12.0).max(200.0)).epoch_callback(move |step, _| progress(step));
            fit.barnes_hut_with_neighbors(THETA, &neighbors).embedding()
        };
        // Several threads would sum the forces in a different order in each run, so that equal
        // inputs would give different maps.
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|error| Error::Setting {
            name: "threads",
            expected: "one for the map".into(),
            got: error.to_string(),
        })?;
        let map = one.install(fit);
        Ok(map.as_chunks().0.iter().map(|point| point.map(f64::from)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::Rows;
    use proptest::prelude::*;

    fn rows(values: Vec<f32>, dim: usize) -> Rows {
        Rows { values, dim }
    }

    /// The four corners of a 6 by 2 rectangle in a plane in three dimensions.
    #[test]
    fn a_rectangle_by_hand() {
        let found = pca(&rows(vec![6.0, 5.0, 2.0, 0.0, 5.0, 2.0, 6.0, 5.0, 0.0, 0.0, 5.0, 0.0], 3), 9).unwrap();
        assert_eq!(found.directions, 2);
        // The variances are 9 and 1.
        assert!((found.explained[0] - 90.0).abs() < 1e-9 && (found.explained[1] - 10.0).abs() < 1e-9);
        let points = found.points();
        assert!(points.iter().all(|[x, y]| (x.abs() - 3.0).abs() < 1e-9 && (y.abs() - 1.0).abs() < 1e-9), "{points:?}");
        assert!((points[0][0] - points[2][0]).abs() < 1e-9 && (points[0][1] - points[1][1]).abs() < 1e-9);
    }

    /// Points on a line, with more dimensions than points: one direction, by the Gram matrix.
    #[test]
    fn a_line_has_one_direction() {
        let along = [-1.0, 0.0, 3.0];
        let found = pca(&rows(along.iter().flat_map(|t| [2.0 * t, t + 1.0, 2.0 * t, 7.0]).collect(), 4), 2).unwrap();
        assert_eq!((found.directions, found.explained.len()), (1, 1));
        // Steps of length 3 around the mean of 2/3, with the farthest point on the positive side.
        for (point, t) in found.points().iter().zip(along) {
            assert!((point[0] - 3.0 * (f64::from(t) - 2.0 / 3.0)).abs() < 1e-6 && point[1] == 0.0, "{point:?}");
        }
    }

    proptest! {
        /// All components together preserve all distances, for either matrix.
        #[test]
        fn distances_are_kept(values in prop::collection::vec(-4.0f32..4.0, 30), dim in prop::sample::select(vec![3usize, 10])) {
            let rows = rows(values, dim);
            let found = pca(&rows, dim).unwrap();
            let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            let wide: Vec<f64> = rows.values.iter().map(|&value| f64::from(value)).collect();
            for a in 0..rows.len() {
                for b in 0..a {
                    let of = |all: &[f64], dim: usize| apart(&all[a * dim..][..dim], &all[b * dim..][..dim]);
                    let (expected, got) = (of(&wide, dim), of(&found.scores, found.directions));
                    prop_assert!((expected - got).abs() < 1e-6, "{expected} {got}");
                }
            }
            prop_assert!((found.explained.iter().sum::<f64>() - 100.0).abs() < 1e-6);
        }
    }

    #[test]
    fn nothing_to_map_is_refused() {
        for (values, dim, words) in [
            (vec![1.0, 2.0], 2, "expected at least two different rows, got 1"),
            (vec![1.0, 2.0, 1.0, 2.0], 2, "got 2 identical rows"),
            (vec![1.0, f32::NAN, 1.0, 2.0], 2, "expected a finite number"),
        ] {
            let error = pca(&rows(values, dim), 2).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let points = rows((0..40).map(|i| (i * i) as f32).collect(), 2);
        let error = Tsne { perplexity: 7.0, ..Tsne::default() }.map(&points, |_| {}).unwrap_err().to_string();
        assert_eq!(error, "perplexity: expected 1 to 6.3 (a third of the 20 points minus one), got 7");
    }

    /// Three distant clusters stay separate, and the same rows give the same map.
    #[test]
    fn clouds_stay_apart() {
        let value = |at: usize| {
            let (row, dim) = (at / 5, at % 5);
            let center = if row % 3 == dim { 40.0 } else { 0.0 };
            center + ((at * at + 7 * at) as f32 * 0.7).sin()
        };
        let points = rows((0..90 * 5).map(value).collect(), 5);
        let (tsne, mut steps) = (Tsne { perplexity: 10.0, steps: 400 }, 0);
        let map = tsne.map(&points, |_| steps += 1).unwrap();
        assert_eq!((map.len(), steps), (90, 400));
        let apart = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        for (row, &point) in map.iter().enumerate() {
            let others = map.iter().enumerate().filter(|(other, _)| *other != row);
            let nearest = others.min_by(|a, b| apart(point, *a.1).total_cmp(&apart(point, *b.1))).unwrap().0;
            assert_eq!(nearest % 3, row % 3, "{row}");
        }
        assert_eq!(tsne.map(&points, |_| {}).unwrap(), map);
    }
}
