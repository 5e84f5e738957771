//! The weighted nearest-neighbour classifier.

use std::collections::BTreeMap;

use bagssl_core::embed::Rows;

use crate::error::{Error, Result};
use crate::samples::{Samples, Score, check_finite};
use crate::similarity::{nearest, unit_rows};

/// What rounding may change of a cosine in `f32`.
const ROUNDING: f64 = 1e-6;

/// Classifies by the `neighbours` nearest training samples by cosine similarity `s`, each voting with `exp(s /
/// temperature)`. More neighbours than samples means all. Among equally near samples the first counts, among classes with
/// equal votes the smallest.
///
/// # Example
/// ```
/// use bagssl_core::embed::Rows;
/// use bagssl_eval::knn::Knn;
/// use bagssl_eval::samples::Samples;
/// let train = Samples::new(Rows { values: vec![1.0, 0.0, 0.0, 1.0], dim: 2 }, vec![4, 7])?;
/// let test = Samples::new(Rows { values: vec![5.0, 1.0, 1.0, 3.0], dim: 2 }, vec![4, 4])?;
/// let score = Knn::default().evaluate(&train, &test)?;
/// assert_eq!((score.predictions, score.accuracy), (vec![4, 7], 50.0));
/// # Ok::<(), bagssl_eval::Error>(())
/// ```
///
/// # Source
/// Wu et al., *Unsupervised feature learning via non-parametric instance discrimination*, CVPR 2018. k = 20 and T = 0.07
/// are EMP-SSL's (arXiv:2304.03977); k = 200 and T = 0.1 are in use too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knn {
    /// How many samples vote: at least 1.
    pub neighbours: usize,
    /// Greater than 0; the smaller, the more the nearest count.
    pub temperature: f64,
}

impl Default for Knn {
    fn default() -> Self {
        Knn { neighbours: 20, temperature: 0.07 }
    }
}

impl Knn {
    /// One line on the protocol, for a report.
    pub fn describe(&self) -> String {
        let Knn { neighbours, temperature } = self;
        format!("{neighbours} nearest training images by cosine similarity s, each voting with exp(s / {temperature})")
    }

    /// Classifies `test` by `train`.
    ///
    /// # Errors
    /// Those of [`Knn::predict`].
    pub fn evaluate(&self, train: &Samples, test: &Samples) -> Result<Score> {
        Ok(Score::new(self.predict(train, test.rows())?, test.labels()))
    }

    /// The class of each row.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range, [`Error::Length`] if the rows are not as long as the samples',
    /// [`Error::NotFinite`] if a value is not finite.
    pub fn predict(&self, train: &Samples, rows: &Rows) -> Result<Vec<u32>> {
        self.check()?;
        train.check_dim(rows)?;
        check_finite("samples", rows)?;
        let found = nearest(&unit_rows(rows), &unit_rows(train.rows()), self.neighbours, |_, _| true);
        Ok(found.iter().map(|near| self.vote(near, train.labels())).collect())
    }

    /// The class of every embedding within `radius` of `mean`, if it is the same for all; `None` if it may not be. With the
    /// ball in which an image's representation lies
    /// ([`RunningMean::radius`](bagssl_core::aggregate::RunningMean::radius)), this says whether more patches could change
    /// its class.
    ///
    /// Votes are not linear in the embedding, so there is no error to compute for them; the bound is geometric. Within the
    /// ball the direction turns by up to `asin(radius / |mean|)`, and each cosine changes by at most twice the sine of half
    /// of that, `change`. Against the leading class count only those of its samples that are among the nearest in any case,
    /// each with `s - change`, and for every other class all that may be, with `s + change`. All cosines do not change to the
    /// worst at once: more balls than those found have one class.
    ///
    /// A ball that holds the representation with some confidence keeps it for one look. Looks while patches come in are
    /// those of [`Looks`](bagssl_core::anytime::Looks), with its confidence for each.
    ///
    /// # Errors
    /// Those of [`Knn::predict`]; [`Error::Setting`] if the radius is not a number of at least 0.
    ///
    /// # Example
    /// ```
    /// use bagssl_core::embed::Rows;
    /// use bagssl_eval::knn::Knn;
    /// use bagssl_eval::samples::Samples;
    /// let train = Samples::new(Rows { values: vec![1.0, 0.0, 0.0, 1.0], dim: 2 }, vec![4, 7])?;
    /// let knn = Knn { neighbours: 1, ..Knn::default() };
    /// assert_eq!(knn.predict_within(&train, &[5.0, 1.0], 0.5)?, Some(4));
    /// assert_eq!(knn.predict_within(&train, &[5.0, 1.0], 4.0)?, None);
    /// # Ok::<(), bagssl_eval::Error>(())
    /// ```
    pub fn predict_within(&self, train: &Samples, mean: &[f32], radius: f64) -> Result<Option<u32>> {
        if radius.is_nan() || radius < 0.0 {
            let expected = "a number of at least 0".into();
            return Err(Error::Setting { name: "radius", expected, got: radius.to_string() });
        }
        let row = Rows { values: mean.to_vec(), dim: mean.len() };
        let class = self.predict(train, &row)?[0];
        let length = mean.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        // A ball around 0 has every direction.
        if radius >= length {
            return Ok(None);
        }
        let change = 2.0 * (0.5 * (radius / length).asin()).sin() + ROUNDING;
        let near = nearest(&unit_rows(&row), &unit_rows(train.rows()), train.len(), |_, _| true).remove(0);
        Ok(self.wins_in_any_case(class, &near, train.labels(), change).then_some(class))
    }

    /// Whether a class has the most votes whichever way each similarity changes by up to `change`; `near` are all samples.
    fn wins_in_any_case(&self, class: u32, near: &[(usize, f32)], labels: &[u32], change: f64) -> bool {
        let last = |place: usize| near.get(place).map_or(f64::NEG_INFINITY, |&(_, similarity)| f64::from(similarity));
        let (last_in, first_out) = (last(self.neighbours.min(near.len()) - 1), last(self.neighbours));
        let weight = |similarity: f64| ((similarity - last(0)) / self.temperature).exp();
        let (mut least, mut most) = (0.0, BTreeMap::new());
        for &(sample, similarity) in near {
            let similarity = f64::from(similarity);
            if labels[sample] != class && similarity + 2.0 * change >= last_in {
                let (count, votes) = most.entry(labels[sample]).or_insert((0, 0.0));
                if *count < self.neighbours {
                    (*count, *votes) = (*count + 1, *votes + weight(similarity + change));
                }
            } else if labels[sample] == class && similarity - 2.0 * change > first_out {
                least += weight(similarity - change);
            }
        }
        most.values().all(|&(_, votes)| least > votes)
    }

    fn check(&self) -> Result<()> {
        if self.neighbours == 0 {
            return Err(Error::Setting { name: "knn.neighbours", expected: "at least 1".into(), got: "0".into() });
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let got = self.temperature.to_string();
            return Err(Error::Setting { name: "knn.temperature", expected: "a positive number".into(), got });
        }
        Ok(())
    }

    /// Weights are taken relative to the nearest sample's, so that a small temperature does not overflow.
    fn vote(&self, near: &[(usize, f32)], labels: &[u32]) -> u32 {
        let best = f64::from(near[0].1);
        let mut votes: Vec<(u32, f64)> = Vec::new();
        for &(sample, similarity) in near {
            let weight = ((f64::from(similarity) - best) / self.temperature).exp();
            match votes.iter_mut().find(|(label, _)| *label == labels[sample]) {
                Some((_, votes)) => *votes += weight,
                None => votes.push((labels[sample], weight)),
            }
        }
        let (label, _) = votes.into_iter().min_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))).expect("a neighbour");
        label
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

    /// The nearest is of class 0 with similarity 1, two of class 1 have 0.8: 1 against 2 exp(-0.2 / T). The classes
    /// change places at T = 0.2 / ln 2 = 0.289.
    #[test]
    fn the_temperature_decides_by_hand() {
        let train = Rows { values: vec![2.0, 0.0, 0.8, 0.6, 4.0, -3.0], dim: 2 };
        let train = Samples::new(train, vec![0, 1, 1]).unwrap();
        let query = Rows { values: vec![1.0, 0.0], dim: 2 };
        for (temperature, expected) in [(0.07, 0), (0.28, 0), (0.30, 1), (1e-6, 0), (1e6, 1)] {
            let said = Knn { neighbours: 20, temperature }.predict(&train, &query).unwrap();
            assert_eq!(said, [expected], "T = {temperature}");
        }
    }

    /// A query at 0 degrees, samples at 30 and -60: the nearer one stays the nearer up to 15 degrees. The bound allows for
    /// one cosine to rise while the other falls: 0.866 - 0.5 is 2 * 2 sin(angle / 2) at 10.5 degrees, a radius of 0.182 * 3.
    #[test]
    fn a_ball_by_hand() {
        let at = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let train = Samples::new(Rows { values: [at(30.0), at(-60.0)].concat(), dim: 2 }, vec![6, 2]).unwrap();
        let knn = Knn { neighbours: 1, temperature: 0.1 };
        let within = |radius| knn.predict_within(&train, &[3.0, 0.0], radius);
        assert_eq!([0.0, 0.54, 0.55, 3.0].map(|radius| within(radius).unwrap()), [Some(6), Some(6), None, None]);
        assert!([-1.0, f64::NAN].iter().all(|&radius| within(radius).is_err()));
        assert_eq!(knn.predict_within(&train, &[0.0, 0.0], 0.0).unwrap(), None);
        assert!(knn.predict_within(&train, &[1.0], 0.0).is_err());
    }

    #[test]
    fn ties_go_to_the_first_sample_and_the_smallest_class() {
        let train = Samples::new(Rows { values: vec![1.0, 1.0, 1.0], dim: 1 }, vec![5, 2, 2]).unwrap();
        let said = |neighbours| Knn { neighbours, temperature: 0.1 }.predict(&train, train.rows()).unwrap();
        assert_eq!(said(1), [5, 5, 5]);
        assert_eq!(said(2), [2, 2, 2]);
    }

    #[test]
    fn settings_and_shapes_are_checked() {
        let train = samples(5, 3, 0);
        for (neighbours, temperature) in [(0, 0.1), (1, 0.0), (1, -1.0), (1, f64::NAN), (1, f64::INFINITY)] {
            assert!(Knn { neighbours, temperature }.predict(&train, train.rows()).is_err());
        }
        let predict = |values, dim| Knn::default().predict(&train, &Rows { values, dim });
        assert!(matches!(predict(vec![0.0; 4], 2), Err(Error::Length { expected: 3, got: 2, .. })));
        assert!(matches!(predict(vec![0.0, f32::NAN, 0.0], 3), Err(Error::NotFinite { .. })));
    }

    proptest! {
        /// Points of the ball, many of them on its surface, have the class that is said.
        #[test]
        fn no_point_of_the_ball_has_another_class(neighbours in 1usize..12, temperature in 0.05f64..0.5, radius in 0.001f64..0.3, seed: u64) {
            let (train, queries) = (samples(12, 3, seed), samples(20, 3, seed ^ 1));
            let knn = Knn { neighbours, temperature };
            let mut random = Address { seed, ..Address::default() }.stream(Purpose::Augment);
            for query in queries.rows().values.chunks(3) {
                let Some(class) = knn.predict_within(&train, query, radius).unwrap() else { continue };
                for _ in 0..20 {
                    let step = [0; 3].map(|_| random.normal_pair().0);
                    let length = step.iter().map(|x| x * x).sum::<f64>().sqrt();
                    let reach = radius * [1.0, 0.999, 0.5][random.below(3) as usize] / length;
                    let values = query.iter().zip(step).map(|(&x, step)| (f64::from(x) + reach * step) as f32).collect();
                    prop_assert_eq!(knn.predict(&train, &Rows { values, dim: 3 }).unwrap(), [class]);
                }
            }
        }

        /// Powers of two, so that the scaled row has the very same direction.
        #[test]
        fn the_length_of_a_row_does_not_matter(count in 1usize..40, dim in 1usize..9, neighbours in 1usize..50, seed: u64) {
            let (train, test) = (samples(count, dim, seed), samples(30, dim, seed ^ 1));
            let scale = |samples: &Samples| {
                let mut rows = samples.rows().clone();
                for (row, values) in rows.values.chunks_mut(dim).enumerate() {
                    values.iter_mut().for_each(|value| *value *= [0.25, 1.0, 1024.0][row % 3]);
                }
                Samples::new(rows, samples.labels().to_vec()).unwrap()
            };
            let knn = Knn { neighbours, ..Knn::default() };
            prop_assert_eq!(knn.evaluate(&train, &test).unwrap(), knn.evaluate(&scale(&train), &scale(&test)).unwrap());
        }

        #[test]
        fn the_order_of_the_training_samples_does_not_matter(count in 1usize..40, neighbours in 1usize..50, seed: u64) {
            let (train, test) = (samples(count, 6, seed), samples(30, 6, seed ^ 1));
            let order = Address { seed, ..Address::default() }.stream(Purpose::Shuffle).permutation(count as u32);
            let values = order.iter().flat_map(|&i| train.rows().row(i as usize)).copied().collect();
            let labels = order.iter().map(|&i| train.labels()[i as usize]).collect();
            let other = Samples::new(Rows { values, dim: 6 }, labels).unwrap();
            let knn = Knn { neighbours, ..Knn::default() };
            prop_assert_eq!(knn.evaluate(&train, &test).unwrap(), knn.evaluate(&other, &test).unwrap());
        }
    }
}
