//! A weighted nearest-neighbor classifier.

mod early;

use crate::error::{Error, Result};
use crate::features::samples::{Samples, Score, TOP_K, check_finite};
use crate::features::table::RowsView;
use crate::numerics::similarity::{nearest, unit_rows};

/// Classifies by the `neighbors` nearest training samples by cosine similarity `s`, each voting
/// with weight `exp(s / temperature)`. If there are fewer samples than `neighbors`, all of them
/// vote. Ties between samples are broken by order, and ties between classes by the smallest class.
///
/// # Example
/// ```
/// use bagssl_core::embed::Rows;
/// use bagssl_eval::Knn;
/// use bagssl_eval::Samples;
/// let train = Samples::new(Rows { values: vec![1.0, 0.0, 0.0, 1.0], dim: 2 }, vec![4, 7])?;
/// let test = Samples::new(Rows { values: vec![5.0, 1.0, 1.0, 3.0], dim: 2 }, vec![4, 4])?;
/// let score = Knn::default().evaluate(&train, &test)?;
/// assert_eq!((score.predictions, score.accuracy), (vec![4, 7], 50.0));
/// # Ok::<(), bagssl_eval::Error>(())
/// ```
///
/// # Source
/// Wu et al., *Unsupervised feature learning via non-parametric instance discrimination*, CVPR
/// 2018. k = 20 and T = 0.07 are EMP-SSL's settings (arXiv:2304.03977); k = 200 and T = 0.1 are
/// also common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knn {
    /// The number of samples that vote; at least 1.
    pub neighbors: usize,
    /// The temperature; greater than 0. A smaller temperature gives the nearest samples more
    /// weight.
    pub temperature: f64,
}

impl Default for Knn {
    fn default() -> Self {
        Knn { neighbors: 20, temperature: 0.07 }
    }
}

impl Knn {
    /// Describes the classifier in one line, for a report.
    pub fn describe(&self) -> String {
        let Knn { neighbors, temperature } = self;
        format!("{neighbors} nearest training images by cosine similarity s, each voting with exp(s / {temperature})")
    }

    /// Classifies `test` by its neighbors in `train`.
    ///
    /// # Errors
    /// The errors of [`Knn::predict`].
    pub fn evaluate(&self, train: &Samples, test: &Samples) -> Result<Score> {
        Ok(Score::new(&self.rank(train, test.rows(), TOP_K)?, test.labels()))
    }

    /// Returns the class of each row.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range, [`Error::Length`] if the rows and the
    /// samples have different dimensions, and [`Error::NotFinite`] if a value is not finite.
    pub fn predict<'a>(&self, train: &Samples, rows: impl Into<RowsView<'a>>) -> Result<Vec<u32>> {
        Ok(self.rank(train, rows, 1)?.iter().map(|ranks| ranks[0]).collect())
    }

    /// Returns the classes with the most votes for each row, at most `count`, in descending order.
    ///
    /// # Errors
    /// The errors of [`Knn::predict`].
    pub(crate) fn rank<'a>(
        &self,
        train: &Samples,
        rows: impl Into<RowsView<'a>>,
        count: usize,
    ) -> Result<Vec<Vec<u32>>> {
        let rows = rows.into();
        self.check()?;
        train.check_dim(rows)?;
        check_finite("samples", rows)?;
        let found = nearest(&unit_rows(rows), train.rows(), self.neighbors, |_, _| true);
        Ok(found.iter().map(|near| self.vote(near, train.labels(), count.max(1))).collect())
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] if `neighbors` is 0, or the temperature is not positive.
    pub fn check(&self) -> Result<()> {
        if self.neighbors == 0 {
            return Err(Error::Setting { name: "knn.neighbors", expected: "at least 1".into(), got: "0".into() });
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let got = self.temperature.to_string();
            return Err(Error::Setting { name: "knn.temperature", expected: "a positive number".into(), got });
        }
        Ok(())
    }

    /// Returns the classes by votes. Weights are relative to the nearest sample's, so that a small
    /// temperature does not overflow.
    fn vote(&self, near: &[(usize, f32)], labels: &[u32], count: usize) -> Vec<u32> {
        let best = f64::from(near[0].1);
        let mut votes: Vec<(u32, f64)> = Vec::new();
        for &(sample, similarity) in near {
            let weight = ((f64::from(similarity) - best) / self.temperature).exp();
            match votes.iter_mut().find(|(label, _)| *label == labels[sample]) {
                Some((_, votes)) => *votes += weight,
                None => votes.push((labels[sample], weight)),
            }
        }
        votes.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        votes.into_iter().map(|(label, _)| label).take(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::Rows;
    use bagssl_core::random::{Address, Purpose};
    use proptest::prelude::*;

    fn samples(count: usize, dim: usize, seed: u64) -> Samples {
        let mut random = Address { seed, ..Address::default() }.stream(Purpose::Evaluation);
        let values = (0..count * dim).map(|_| random.normal_pair().0 as f32).collect();
        let labels = (0..count).map(|_| random.below(3)).collect();
        Samples::new(Rows { values, dim }, labels).unwrap()
    }

    /// The nearest sample is of class 0 with similarity 1, two of class 1 have 0.8: 1 against 2
    /// exp(-0.2 / T). The winner changes at T = 0.2 / ln 2 = 0.289.
    #[test]
    fn the_temperature_decides_by_hand() {
        let train = Rows { values: vec![2.0, 0.0, 0.8, 0.6, 4.0, -3.0], dim: 2 };
        let train = Samples::new(train, vec![0, 1, 1]).unwrap();
        let query = Rows { values: vec![1.0, 0.0], dim: 2 };
        for (temperature, expected) in [(0.07, 0), (0.28, 0), (0.30, 1), (1e-6, 0), (1e6, 1)] {
            let ranks = Knn { neighbors: 20, temperature }.predict(&train, &query).unwrap();
            assert_eq!(ranks, [expected], "T = {temperature}");
        }
    }

    #[test]
    fn ties_go_to_the_first_sample_and_the_smallest_class() {
        let train = Samples::new(Rows { values: vec![1.0, 1.0, 1.0], dim: 1 }, vec![5, 2, 2]).unwrap();
        let ranks = |neighbors| Knn { neighbors, temperature: 0.1 }.predict(&train, train.rows()).unwrap();
        assert_eq!(ranks(1), [5, 5, 5]);
        assert_eq!(ranks(2), [2, 2, 2]);
    }

    #[test]
    fn settings_and_shapes_are_checked() {
        let train = samples(5, 3, 0);
        for (neighbors, temperature) in [(0, 0.1), (1, 0.0), (1, -1.0), (1, f64::NAN), (1, f64::INFINITY)] {
            assert!(Knn { neighbors, temperature }.predict(&train, train.rows()).is_err());
        }
        let predict = |values, dim| Knn::default().predict(&train, &Rows { values, dim });
        assert!(matches!(predict(vec![0.0; 4], 2), Err(Error::Length { expected: 3, got: 2, .. })));
        assert!(matches!(predict(vec![0.0, f32::NAN, 0.0], 3), Err(Error::NotFinite { .. })));
    }

    proptest! {
        /// Scale factors are powers of two, so that a scaled row has exactly the same direction.
        #[test]
        fn the_length_of_a_row_does_not_matter(count in 1usize..40, dim in 1usize..9, neighbors in 1usize..50, seed: u64) {
            let (train, test) = (samples(count, dim, seed), samples(30, dim, seed ^ 1));
            let scale = |samples: &Samples| {
                let mut rows = samples.rows().to_rows();
                for (row, values) in rows.values.chunks_mut(dim).enumerate() {
                    values.iter_mut().for_each(|value| *value *= [0.25, 1.0, 1024.0][row % 3]);
                }
                Samples::new(rows, samples.labels().to_vec()).unwrap()
            };
            let knn = Knn { neighbors, ..Knn::default() };
            prop_assert_eq!(knn.evaluate(&train, &test).unwrap(), knn.evaluate(&scale(&train), &scale(&test)).unwrap());
        }

        #[test]
        fn the_order_of_the_training_samples_does_not_matter(count in 1usize..40, neighbors in 1usize..50, seed: u64) {
            let (train, test) = (samples(count, 6, seed), samples(30, 6, seed ^ 1));
            let order = Address { seed, ..Address::default() }.stream(Purpose::Shuffle).permutation(count as u32);
            let values = order.iter().flat_map(|&i| train.rows().row(i as usize)).copied().collect();
            let labels = order.iter().map(|&i| train.labels()[i as usize]).collect();
            let other = Samples::new(Rows { values, dim: 6 }, labels).unwrap();
            let knn = Knn { neighbors, ..Knn::default() };
            prop_assert_eq!(knn.evaluate(&train, &test).unwrap(), knn.evaluate(&other, &test).unwrap());
        }
    }
}
