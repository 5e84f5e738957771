//! Losses: what a batch of projections is worth.

mod linalg;
mod similarity;
mod simclr;
mod spectral;
mod tcr;
mod vicreg;

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use linalg::LinAlg;
pub use similarity::similarity;
pub use tcr::total_coding_rate;

/// A loss and its weights, as in a config file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Cosine invariance to the mean patch, and the total coding rate against collapse.
    Tcr {
        /// The weight of the invariance.
        invariance: f64,
        /// The distortion `eps` of the coding rate (not squared).
        epsilon: f64,
    },
    /// Variance, invariance and covariance.
    VicReg {
        /// The weight of the invariance.
        invariance: f64,
        /// The weight of the variance.
        variance: f64,
        /// The weight of the covariance.
        covariance: f64,
    },
    /// NT-Xent: each pair of patches of an image against the patches of all other images.
    SimClr {
        /// What cosines are divided by.
        temperature: f64,
    },
    /// The spectral contrastive loss, on projections that keep their length.
    Spectral {
        /// The weight of the squared products of patches of different images.
        lambda: f64,
    },
}

impl Loss {
    /// The total coding rate with cosine invariance.
    pub fn tcr(invariance: f64, epsilon: f64) -> Self {
        Loss::Tcr { invariance, epsilon }
    }

    /// VICReg with its published weights 25, 25 and 1 (arXiv:2105.04906).
    pub fn vicreg() -> Self {
        Loss::VicReg { invariance: 25.0, variance: 25.0, covariance: 1.0 }
    }

    /// SimCLR's loss with the temperature 0.5, at which its authors trained on CIFAR-10 (arXiv:2002.05709, appendix B.9).
    pub fn simclr() -> Self {
        Loss::SimClr { temperature: 0.5 }
    }

    /// The spectral contrastive loss at `lambda = w / 2` with `w = 1`, where it is the co-occurrence loss.
    pub fn spectral() -> Self {
        Loss::Spectral { lambda: 0.5 }
    }

    /// Checks the weights.
    ///
    /// # Errors
    /// [`Error::Setting`] if a weight is negative or not finite, or `epsilon`, `temperature` or `lambda` is not positive.
    pub fn check(self) -> Result<CheckedLoss> {
        let weight = |name, value: f64| {
            if value.is_finite() && value >= 0.0 {
                return Ok(());
            }
            Err(Error::Setting { name, expected: "a finite weight of at least 0".into(), got: value.to_string() })
        };
        let positive = |name, value: f64| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            Err(Error::Setting { name, expected: "a positive number".into(), got: value.to_string() })
        };
        match self {
            Loss::Tcr { invariance, epsilon } => {
                weight("loss.tcr.invariance", invariance)?;
                positive("loss.tcr.epsilon", epsilon)?;
            }
            Loss::VicReg { invariance, variance, covariance } => {
                weight("loss.vic_reg.invariance", invariance)?;
                weight("loss.vic_reg.variance", variance)?;
                weight("loss.vic_reg.covariance", covariance)?;
            }
            Loss::SimClr { temperature } => positive("loss.sim_clr.temperature", temperature)?,
            Loss::Spectral { lambda } => positive("loss.spectral.lambda", lambda)?,
        }
        Ok(CheckedLoss(self))
    }
}

/// A loss whose weights have been checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckedLoss(Loss);

impl CheckedLoss {
    /// The loss of a batch of projections, with the algebra of `A`.
    ///
    /// # Shapes
    /// - `projections`: `[batch, patch, dim]`
    ///
    /// # Errors
    /// [`Error::Setting`] if there are fewer than two images or two patches. Projections that are not finite are no error:
    /// the loss is then no number either.
    pub fn value<B: AutodiffBackend, A: LinAlg<B::InnerBackend>>(
        self,
        projections: Tensor<B, 3>,
    ) -> Result<LossValue<B>> {
        let [images, patches, _] = projections.dims();
        check_batch(images, patches)?;
        Ok(match self.0 {
            Loss::Tcr { invariance, epsilon } => tcr::loss::<B, A>(projections, invariance, epsilon),
            Loss::VicReg { invariance, variance, covariance } => {
                vicreg::loss::<B, A>(projections, [invariance, variance, covariance])
            }
            Loss::SimClr { temperature } => simclr::loss::<B, A>(projections, temperature),
            Loss::Spectral { lambda } => spectral::loss::<B, A>(projections, lambda),
        })
    }
}

/// Refuses a batch that a loss has no value for.
///
/// # Errors
/// [`Error::Setting`] if there are fewer than two images or two patches.
pub fn check_batch(images: usize, patches: usize) -> Result<()> {
    for (name, value) in [("batch.images", images), ("batch.patches", patches)] {
        if value < 2 {
            return Err(Error::Setting { name, expected: "at least 2".into(), got: value.to_string() });
        }
    }
    Ok(())
}

/// The value of a loss.
#[derive(Debug)]
pub struct LossValue<B: AutodiffBackend> {
    /// What to call `backward` on. Its gradient is that of the loss; its value need not be (see [`total_coding_rate`]).
    pub objective: Tensor<B, 1>,
    /// The names of the loss and its terms; the first is `loss`.
    pub names: Vec<&'static str>,
    /// The value of each, `[1]`, which waits on the device until somebody reads it.
    pub values: Vec<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> LossValue<B> {
    fn new<const N: usize>(objective: Tensor<B, 1>, figures: [(&'static str, Tensor<B::InnerBackend, 1>); N]) -> Self {
        let (names, values): (Vec<_>, Vec<_>) = figures.into_iter().unzip();
        LossValue { objective, names, values }
    }

    /// The loss and its terms, by name.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let values = Tensor::cat(self.values.clone(), 0)
            .into_data()
            .convert::<f32>()
            .into_vec::<f32>()
            .expect("converted to f32");
        self.names.iter().copied().zip(values.into_iter().map(f64::from)).collect()
    }

    /// A figure by name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Keeps the length of a row away from 0, so that a row of zeros has a gradient of zeros.
const SMALLEST_SQUARE: f64 = 1e-24;

/// The rows at unit length.
fn unit<B: Backend>(rows: Tensor<B, 3>) -> Tensor<B, 3> {
    let length = (rows.clone() * rows.clone()).sum_dim(2).add_scalar(SMALLEST_SQUARE).sqrt();
    rows / length
}

/// A scalar whose gradient by `tensor` is `gradient`, of the same shape. Its value means nothing.
fn with_gradient<B: AutodiffBackend>(tensor: Tensor<B, 3>, gradient: Tensor<B::InnerBackend, 3>) -> Tensor<B, 1> {
    (tensor * Tensor::from_inner(gradient)).sum()
}

/// 1 but for the diagonal, which is 0.
fn off_diagonal_mask<B: Backend>(side: usize, device: &B::Device) -> Tensor<B, 2> {
    Tensor::<B, 2>::eye(side, device).mul_scalar(-1.0).add_scalar(1.0)
}
