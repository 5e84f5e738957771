//! Linear probes: how well a linear classifier predicts the classes from fixed features.

mod softmax;
mod row_space;
mod logistic;
mod sgd;

pub use logistic::Logistic;
pub use sgd::Sgd;
pub use softmax::SoftmaxModel;

use crate::error::{Error, Result};
use crate::features::samples::{Fit, Samples, Score, TOP_K};

/// A recipe for training a linear classifier.
///
/// # Example
/// ```
/// use bagssl_core::embed::Rows;
/// use bagssl_eval::Linear;
/// use bagssl_eval::Samples;
/// let train = Samples::new(Rows { values: vec![1.0, 2.0, 7.0, 9.0], dim: 1 }, vec![0, 0, 3, 3])?;
/// for name in Linear::NAMES {
///     assert_eq!(Linear::preset(name)?.evaluate(&train, &train)?.accuracy, 100.0, "{name}");
/// }
/// # Ok::<(), bagssl_eval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Linear {
    /// Regularized logistic regression on standardized features, solved to its optimum.
    Logistic(Logistic),
    /// Stochastic gradient descent on the unmodified features, using the last epoch.
    Sgd(Sgd),
}

impl Default for Linear {
    fn default() -> Self {
        Linear::Logistic(Logistic::default())
    }
}

impl Linear {
    /// The names of the presets.
    pub const NAMES: [&str; 3] = ["logistic", "emp-ssl", "vicreg"];

    /// Returns a recipe by name.
    ///
    /// # Errors
    /// [`Error::Setting`] if the name is unknown.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "logistic" => Ok(Linear::default()),
            "emp-ssl" => Ok(Linear::Sgd(Sgd::EMP_SSL)),
            "vicreg" => Ok(Linear::Sgd(Sgd::VICREG)),
            _ => Err(Error::Setting { name: "probe", expected: Self::NAMES.join(", "), got: name.into() }),
        }
    }

    /// Describes the recipe in one line, for a report.
    pub fn describe(&self) -> String {
        match self {
            Linear::Logistic(Logistic { strength, .. }) => {
                format!(
                    "multinomial logistic regression on standardized features, C = {strength}, L-BFGS to the optimum"
                )
            }
            Linear::Sgd(Sgd { learning_rate, momentum, weight_decay, batch, epochs, .. }) => format!(
                "SGD on the unscaled features, learning rate {learning_rate}, momentum {momentum}, weight decay {weight_decay}, batch \
                 {batch}, {epochs} epochs, cosine schedule to 0, last epoch"
            ),
        }
    }

    /// Trains on `train`.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range, and [`Error::Diverged`] if the weights
    /// become infinite.
    pub fn fit(&self, train: &Samples) -> Result<SoftmaxModel> {
        Ok(self.solve(train)?.0)
    }

    fn solve(&self, train: &Samples) -> Result<(SoftmaxModel, Option<Fit>)> {
        match self {
            Linear::Logistic(logistic) => logistic.solve(train).map(|(model, fit)| (model, Some(fit))),
            Linear::Sgd(sgd) => Ok((sgd.fit(train)?, None)),
        }
    }

    /// Trains on `train` and classifies `test`.
    ///
    /// # Errors
    /// The errors of [`Linear::fit`], and [`Error::Length`] if the samples have different
    /// dimensions.
    pub fn evaluate(&self, train: &Samples, test: &Samples) -> Result<Score> {
        train.check_dim(test.rows())?;
        let (model, fit) = self.solve(train)?;
        Ok(Score { fit, ..Score::new(&model.rank(test.rows(), TOP_K)?, test.labels()) })
    }
}

/// Returns the candidate with the best accuracy on a held-out share of the training samples; ties
/// go to the first. The test samples are not used. Candidates that diverge are skipped.
///
/// # Errors
/// [`Error::Empty`] without candidates. [`Error::Setting`] if the share cannot be held out. The
/// error of a candidate that fails otherwise than by diverging, or the last divergence if all
/// candidates diverge.
pub(crate) fn choose(candidates: &[Linear], train: &Samples, share: f64, seed: u64) -> Result<Linear> {
    let (fitted, held_out) = train.hold_out(share, seed)?;
    let mut best: Option<(Linear, f64)> = None;
    let mut failure = Error::Empty("candidates");
    for candidate in candidates {
        match candidate.evaluate(&fitted, &held_out) {
            Ok(score) if best.is_none_or(|(_, accuracy)| score.accuracy > accuracy) => {
                best = Some((*candidate, score.accuracy));
            }
            Ok(_) => {}
            Err(error @ Error::Diverged { .. }) => failure = error,
            Err(error) => return Err(error),
        }
    }
    best.map(|(candidate, _)| candidate).ok_or(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::Rows;
    use bagssl_core::random::{Address, Purpose};

    /// Three overlapping clusters, one per class.
    fn clouds(count: usize, seed: u64) -> Samples {
        let mut random = Address { seed, ..Address::default() }.stream(Purpose::Evaluation);
        let labels: Vec<u32> = (0..count as u32).map(|i| [2, 5, 9][i as usize % 3]).collect();
        let center = |label| {
            if label == 2 {
                (0.0, 0.0)
            } else if label == 5 {
                (3.0, 0.0)
            } else {
                (0.0, 3.0)
            }
        };
        let mut point = |label| {
            let ((x, y), (dx, dy)) = (center(label), random.normal_pair());
            [(x + dx) as f32, (y + dy) as f32, random.unit_f32()]
        };
        let values = labels.iter().flat_map(|&label| point(label)).collect();
        Samples::new(Rows { values, dim: 3 }, labels).unwrap()
    }

    #[test]
    fn each_recipe_separates_clouds() {
        let (train, test) = (clouds(300, 1), clouds(300, 2));
        for name in Linear::NAMES {
            let accuracy = Linear::preset(name).unwrap().evaluate(&train, &test).unwrap().accuracy;
            assert!((85.0..97.0).contains(&accuracy), "{name}: {accuracy}");
        }
        assert!(Linear::preset("Logistic").is_err());
    }

    /// For each recipe, the evidence of the patches and the bias add up to the logits of their
    /// mean, also with standardized features.
    #[test]
    fn evidence_sums_to_the_logits_of_the_mean() {
        let (train, patches) = (clouds(300, 1), clouds(40, 2));
        let mean = |dim: usize| patches.rows().values.iter().skip(dim).step_by(3).sum::<f32>() / 40.0;
        let mean = Rows { values: (0..3).map(mean).collect(), dim: 3 };
        for name in Linear::NAMES {
            let model = Linear::preset(name).unwrap().fit(&train).unwrap();
            let evidence = model.evidence(&patches.rows().to_rows()).unwrap();
            for (class, logit) in model.logits(&mean).unwrap().into_iter().enumerate() {
                let sum: f64 = evidence.iter().skip(class).step_by(3).sum();
                assert!((sum + model.bias()[class] - logit).abs() < 1e-5, "{name}: {sum}");
            }
        }
    }

    #[test]
    fn one_that_learns_is_chosen() {
        let with = |learning_rate| Linear::Sgd(Sgd { learning_rate, epochs: 5, ..Sgd::EMP_SSL });
        let chosen = choose(&[with(1e-9), with(0.1), with(1e300)], &clouds(200, 3), 0.25, 1).unwrap();
        assert_eq!(chosen, with(0.1));
        assert!(matches!(choose(&[], &clouds(20, 3), 0.25, 1), Err(Error::Empty(_))));
        assert!(matches!(choose(&[with(1e300)], &clouds(20, 3), 0.25, 1), Err(Error::Diverged { .. })));
    }

    #[test]
    fn unseen_classes_are_not_predicted() {
        let train = Samples::new(Rows { values: vec![0.0, 1.0], dim: 1 }, vec![u32::MAX, 0]).unwrap();
        let test = Samples::new(Rows { values: vec![1.0], dim: 1 }, vec![4]).unwrap();
        let score = Linear::default().evaluate(&train, &test).unwrap();
        assert_eq!((score.predictions, score.accuracy), (vec![0], 0.0));
    }
}
