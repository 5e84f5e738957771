//! The linear probe by stochastic gradient descent, as in the literature.

use std::f64::consts::PI;

use super::softmax::{SoftmaxModel, add_cross_entropy, targets};
use crate::draw::Draw;
use crate::error::{Error, Result};
use crate::features::samples::Samples;

/// Softmax regression by SGD with momentum on the unmodified features. Weights start at 0. The
/// learning rate follows a cosine schedule to 0, step by step. The samples are shuffled in each
/// epoch, and the last batch may be smaller. Weight decay applies to weights and bias. The result
/// is the state after the last epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// The initial learning rate; positive.
    pub learning_rate: f64,
    /// The momentum: 0 to less than 1.
    pub momentum: f64,
    /// The weight decay; at least 0.
    pub weight_decay: f64,
    /// The batch size; at least 1.
    pub batch: usize,
    /// The number of epochs; at least 1.
    pub epochs: u32,
    /// The seed of the shuffles.
    pub seed: u64,
}

impl Sgd {
    /// The recipe of EMP-SSL (arXiv:2304.03977).
    pub const EMP_SSL: Self =
        Sgd { learning_rate: 0.03, momentum: 0.9, weight_decay: 5e-5, batch: 100, epochs: 100, seed: 0 };

    /// The optimizer settings of VICReg's linear probe (arXiv:2105.04906). VICReg draws new crops
    /// of each image in every epoch; here the features are fixed.
    pub const VICREG: Self =
        Sgd { learning_rate: 0.02, momentum: 0.9, weight_decay: 1e-6, batch: 256, epochs: 100, seed: 0 };

    /// Trains a classifier.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range, and [`Error::Diverged`] if the weights
    /// become infinite.
    pub fn fit(&self, train: &Samples) -> Result<SoftmaxModel> {
        self.check()?;
        let mut model = SoftmaxModel::zero(train);
        let targets = targets(train, &model.classes);
        let mut speed = vec![0.0; model.parameters.len()];
        let steps = train.len().div_ceil(self.batch) * self.epochs as usize;
        let mut step = 0;
        for epoch in 0..self.epochs {
            let order = Draw::Shuffle { epoch }.stream(self.seed).permutation(train.len() as u32);
            for numbers in order.chunks(self.batch) {
                let rate = self.learning_rate * 0.5 * (1.0 + (PI * step as f64 / steps as f64).cos());
                self.step(&mut model, &mut speed, &Batch::new(train, &targets, numbers), rate);
                step += 1;
            }
            if !model.parameters.iter().all(|value| value.is_finite()) {
                return Err(Error::Diverged { rate: self.learning_rate, epoch });
            }
        }
        Ok(model)
    }

    fn step(&self, model: &mut SoftmaxModel, speed: &mut [f64], batch: &Batch, learning_rate: f64) {
        let mut gradient = vec![0.0; speed.len()];
        add_cross_entropy(&model.parameters, model.classes.len(), &batch.rows, &batch.targets, &mut gradient);
        let count = batch.targets.len() as f64;
        for ((value, speed), gradient) in model.parameters.iter_mut().zip(speed).zip(gradient) {
            *speed = self.momentum * *speed + gradient / count + self.weight_decay * *value;
            *value -= learning_rate * *speed;
        }
    }

    fn check(&self) -> Result<()> {
        let check = |name, holds, expected: &str, got: String| {
            if holds { Ok(()) } else { Err(Error::Setting { name, expected: expected.into(), got }) }
        };
        let Sgd { learning_rate, momentum, weight_decay, batch, epochs, .. } = *self;
        check(
            "probe.learning_rate",
            learning_rate > 0.0 && learning_rate.is_finite(),
            "a positive number",
            learning_rate.to_string(),
        )?;
        check("probe.momentum", (0.0..1.0).contains(&momentum), "0 to less than 1", momentum.to_string())?;
        check(
            "probe.weight_decay",
            weight_decay >= 0.0 && weight_decay.is_finite(),
            "0 or more",
            weight_decay.to_string(),
        )?;
        check("probe.batch", batch > 0, "at least 1", batch.to_string())?;
        check("probe.epochs", epochs > 0, "at least 1", epochs.to_string())
    }
}

/// The samples of one step.
struct Batch {
    rows: Vec<f64>,
    targets: Vec<usize>,
}

impl Batch {
    fn new(train: &Samples, targets: &[usize], numbers: &[u32]) -> Self {
        let row = |&number: &u32| train.rows().row(number as usize).iter().map(|&value| f64::from(value));
        Batch {
            rows: numbers.iter().flat_map(row).collect(),
            targets: numbers.iter().map(|&number| targets[number as usize]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::Rows;

    fn two() -> Samples {
        Samples::new(Rows { values: vec![2.0, -1.0], dim: 1 }, vec![0, 1]).unwrap()
    }

    /// One step over both samples from zero weights. The errors are -1/2 and 1/2 for the first
    /// sample, 1/2 and -1/2 for the second, so the mean gradient is (-0.75, 0.75), and 0 for the
    /// bias. With two steps, the second has half the learning rate.
    #[test]
    fn steps_by_hand() {
        let sgd = Sgd { learning_rate: 0.4, momentum: 0.5, weight_decay: 0.1, batch: 2, epochs: 1, seed: 0 };
        let one = sgd.fit(&two()).unwrap();
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        close(one.weights()[0], 0.3);
        close(one.weights()[1], -0.3);
        assert_eq!(one.bias(), [0.0, 0.0]);

        let model = Sgd { epochs: 2, ..sgd }.fit(&two()).unwrap();
        // Errors of the first class: for x = 2 with logits 0.6 and -0.6, and for x = -1 with logits
        // -0.3 and 0.3.
        let (first, second) = (1.0 / (1.0 + (-1.2f64).exp()) - 1.0, 1.0 / (1.0 + 0.6f64.exp()));
        let gradient = (2.0 * first - second) / 2.0 + 0.1 * 0.3;
        close(model.weights()[0], 0.3 - 0.2 * (0.5 * -0.75 + gradient));
        close(model.bias()[0], -0.2 * (first + second) / 2.0);
    }

    #[test]
    fn the_seed_is_all_that_is_random() {
        let values = (0..60).map(|i| (i as f32 * 0.9).sin()).collect();
        let train = Samples::new(Rows { values, dim: 3 }, (0..20).map(|i| i % 4).collect()).unwrap();
        let with = |seed| Sgd { batch: 7, epochs: 3, seed, ..Sgd::EMP_SSL }.fit(&train).unwrap();
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn bad_settings_are_refused() {
        let good = Sgd::EMP_SSL;
        let bad = [
            Sgd { learning_rate: 0.0, ..good },
            Sgd { learning_rate: f64::NAN, ..good },
            Sgd { momentum: 1.0, ..good },
            Sgd { weight_decay: -1.0, ..good },
            Sgd { batch: 0, ..good },
            Sgd { epochs: 0, ..good },
        ];
        assert!(bad.iter().all(|sgd| matches!(sgd.fit(&two()), Err(Error::Setting { .. }))));
        let wild = Sgd { learning_rate: 1e308, ..good };
        assert!(matches!(wild.fit(&two()), Err(Error::Diverged { .. })));
    }
}
