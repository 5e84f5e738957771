//! Nearest neighbors on any-time bags: whether more patches could change an image's class.

use bagssl_core::aggregate::RunningMean;
use bagssl_core::embed::Rows;
use bagssl_core::quantile::student_t;

use super::Knn;
use crate::error::{Error, Result};
use crate::features::samples::{Samples, check_finite};
use crate::features::table::RowsView;
use crate::numerics::similarity::{nearest, unit_rows};

impl Knn {
    /// Returns the class of an image if the patches seen so far decide it: at the given confidence,
    /// its votes exceed those of every other class. `patches` are drawn without replacement from a
    /// grid of `total_patches`. When patches arrive one by one, call this only at the looks of a
    /// [`DecisionSchedule`](bagssl_core::anytime::DecisionSchedule), with its confidence for each
    /// look.
    ///
    /// The logarithm of a class's votes is not linear in the embedding. It is linearized around the
    /// current mean (the delta method), with the nearest samples of that mean. Each patch then has
    /// a margin of one class over another. The mean margin has a standard error by Student's t,
    /// with the confidence split over the other classes (Bonferroni). The approximation is good if
    /// the errors of the cosines are small compared to the temperature. To be conservative, each
    /// other class votes with its own nearest samples, up to the total number of voters.
    ///
    /// # Shapes
    /// - `patches`: `[patch, dim]`
    ///
    /// # Errors
    /// The errors of [`Knn::predict`]. [`Error::Setting`] if the confidence is not at least 0.5 and
    /// less than 1. [`Error::Length`] if there are fewer than 2 patches or more than `total_patches`.
    pub fn decide(&self, train: &Samples, patches: &Rows, total_patches: u64, confidence: f64) -> Result<Option<u32>> {
        if !(0.5..1.0).contains(&confidence) {
            let expected = "0.5 to less than 1".into();
            return Err(Error::Setting { name: "confidence", expected, got: confidence.to_string() });
        }
        let count = patches.len();
        if count < 2 || count as u64 > total_patches {
            return Err(Error::Length { what: "patches", expected: total_patches.max(2) as usize, got: count });
        }
        train.check_dim(patches.into())?;
        check_finite("patches", patches.into())?;
        let mut mean = RunningMean::new(patches.dim);
        patches.values.chunks_exact(patches.dim).try_for_each(|patch| mean.push(patch))?;
        let mean = Rows { values: mean.mean().expect("two patches"), dim: patches.dim };
        let class = self.predict(train, &mean)?[0];
        if count as u64 == total_patches {
            return Ok(Some(class));
        }
        let length = mean.values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let margins = self.margins(train, &unit_rows(&mean), class);
        let t = student_t(1.0 - (1.0 - confidence) / margins.len().max(1) as f64, count as u32 - 1);
        let is_certain = |margin: &Tangent| {
            let mut changes = RunningMean::new(1);
            patches.values.chunks_exact(patches.dim).for_each(|patch| {
                changes.push(&[(margin.along(patch) / length) as f32]).expect("one number");
            });
            let error = changes.standard_error_within(total_patches).expect("two patches")[0];
            margin.value - t * f64::from(error) > 0.0
        };
        Ok((length > 0.0 && margins.iter().all(is_certain)).then_some(class))
    }

    /// Returns the log ratio of the class's votes to those of each other class, linearized around a
    /// query of unit length.
    fn margins(&self, train: &Samples, query: &Rows, class: u32) -> Vec<Tangent> {
        let near = nearest(query, train.rows(), train.len(), |_, _| true).remove(0);
        let votes = |label: u32, among: usize| {
            let of_class = near[..among].iter().filter(|(sample, _)| train.labels()[*sample] == label);
            let unit = |sample| unit_rows(RowsView { values: train.rows().row(sample), dim: query.dim });
            let voters = of_class.take(self.neighbors).map(|&(sample, cosine)| (unit(sample), f64::from(cosine)));
            self.log_votes(&voters.collect::<Vec<_>>(), query.row(0))
        };
        let own = votes(class, self.neighbors.min(near.len()));
        let others = train.classes().into_iter().filter(|&label| label != class);
        others.map(|label| own.minus(&votes(label, near.len()))).collect()
    }

    /// Returns the logarithm of the votes of samples (at least one), given with their cosines,
    /// linearized around a query of unit length.
    fn log_votes(&self, voters: &[(Rows, f64)], query: &[f32]) -> Tangent {
        let weight = |cosine: f64| ((cosine - voters[0].1) / self.temperature).exp();
        let sum: f64 = voters.iter().map(|&(_, cosine)| weight(cosine)).sum();
        let mut slope = vec![0.0; query.len()];
        for (sample, cosine) in voters {
            let share = weight(*cosine) / (sum * self.temperature);
            // The component of the sample orthogonal to the query: moving the query toward it
            // raises the cosine.
            for (slope, (&sample, &query)) in slope.iter_mut().zip(sample.values.iter().zip(query)) {
                *slope += share * (f64::from(sample) - cosine * f64::from(query));
            }
        }
        Tangent { value: voters[0].1 / self.temperature + sum.ln(), slope }
    }
}

/// A linearized function of the direction of an embedding: its value and its gradient, `[dim]`.
struct Tangent {
    value: f64,
    slope: Vec<f64>,
}

impl Tangent {
    fn minus(&self, other: &Tangent) -> Tangent {
        let slope = self.slope.iter().zip(&other.slope).map(|(a, b)| a - b).collect();
        Tangent { value: self.value - other.value, slope }
    }

    fn along(&self, patch: &[f32]) -> f64 {
        self.slope.iter().zip(patch).map(|(slope, &value)| slope * f64::from(value)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::random::{Address, Purpose};
    use proptest::prelude::*;

    fn samples(count: usize, dim: usize, seed: u64) -> Samples {
        let mut random = Address { seed, ..Address::default() }.stream(Purpose::Evaluation);
        let values = (0..count * dim).map(|_| random.normal_pair().0 as f32).collect();
        let labels = (0..count).map(|_| random.below(3)).collect();
        Samples::new(Rows { values, dim }, labels).unwrap()
    }

    /// One sample of each of two classes, on the axes. The patches (2, 1) and (4, 1) have the mean
    /// (3, 1). The logarithms of the votes are 3 and 1 over sqrt 10 T, so the margin is 0.632 / T.
    /// Its gradient is (e1 - e2) / T without its component along the mean, (0.4, -1.2) / T. Patches
    /// change it by (-0.4, 0.4) / (sqrt 10 T), a standard error of 0.4 sqrt(1 - 2 / N) / (sqrt 10
    /// T). With one degree of freedom, t is 6.31 at 95 % and 3.08 at 90 %. With 100 patches, the
    /// lower bounds are -0.158 and 0.247 over T.
    #[test]
    fn a_decision_by_hand() {
        let train = Samples::new(Rows { values: vec![1.0, 0.0, 0.0, 1.0], dim: 2 }, vec![6, 2]).unwrap();
        let patches = Rows { values: vec![2.0, 1.0, 4.0, 1.0], dim: 2 };
        let knn = Knn { neighbors: 1, temperature: 0.1 };
        let decide = |total_patches, confidence| knn.decide(&train, &patches, total_patches, confidence);
        assert_eq!(decide(100, 0.95).unwrap(), None);
        assert_eq!(decide(100, 0.90).unwrap(), Some(6));
        assert_eq!(decide(2, 0.99).unwrap(), Some(6), "all patches");
        let unit = unit_rows(&Rows { values: vec![3.0, 1.0], dim: 2 });
        let margin = &knn.margins(&train, &unit, 6)[0];
        assert!((margin.value - 20.0 / 10f64.sqrt()).abs() < 1e-5);
        assert!((margin.slope[0] - 4.0).abs() < 1e-5 && (margin.slope[1] + 12.0).abs() < 1e-5, "{:?}", margin.slope);
        assert!(decide(1, 0.9).is_err() && decide(100, 1.0).is_err() && decide(100, 0.4).is_err());
    }

    proptest! {
        /// The gradient matches a finite difference of the value in some direction.
        #[test]
        fn slopes_are_those_of_the_votes(neighbors in 1usize..9, temperature in 0.1f64..1.0, seed: u64) {
            let (train, queries) = (samples(9, 4, seed), unit_rows(samples(2, 4, seed ^ 1).rows()));
            let knn = Knn { neighbors, temperature };
            let (query, step) = (queries.row(0), queries.row(1));
            let unit = unit_rows(train.rows());
            let at = |size: f64| {
                let moved = query.iter().zip(step).map(|(&q, &s)| f64::from(q) + size * f64::from(s)).collect::<Vec<_>>();
                let length = moved.iter().map(|x| x * x).sum::<f64>().sqrt();
                let cosine = |row: &[f32]| row.iter().zip(&moved).map(|(&x, m)| f64::from(x) * m).sum::<f64>() / length;
                let row = |i| Rows { values: unit.row(i).to_vec(), dim: 4 };
                let voters: Vec<(Rows, f64)> = (0..9).map(|i| (row(i), cosine(unit.row(i)))).collect();
                knn.log_votes(&voters, query)
            };
            let expected = (at(1e-4).value - at(-1e-4).value) / 2e-4;
            prop_assert!((at(0.0).along(step) - expected).abs() < 1e-4 * (1.0 + expected.abs()) + 1e-4);
        }
    }
}
