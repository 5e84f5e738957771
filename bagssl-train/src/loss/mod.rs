//! Loss functions on a batch of projections.

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

/// A loss function and its weights, as in a config file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Cosine similarity to the mean patch, with the total coding rate to prevent collapse.
    Tcr {
        /// The weight of the invariance term.
        invariance: f64,
        /// The distortion `eps` of the coding rate (not squared).
        epsilon: f64,
    },
    /// VICReg: variance, invariance and covariance.
    VicReg {
        /// The weight of the invariance term.
        invariance: f64,
        /// The weight of the variance term.
        variance: f64,
        /// The weight of the covariance term.
        covariance: f64,
    },
    /// NT-Xent: contrasts each pair of patches of an image with the patches of all other images.
    SimClr {
        /// The temperature: cosine similarities are divided by it.
        temperature: f64,
    },
    /// The spectral contrastive loss, on projections that are not normalized.
    Spectral {
        /// The weight of the squared dot products of patches of different images.
        lambda: f64,
    },
}

impl Loss {
    /// Returns the total coding rate with cosine invariance.
    pub fn tcr(invariance: f64, epsilon: f64) -> Self {
        Loss::Tcr { invariance, epsilon }
    }

    /// Returns VICReg with its published weights 25, 25 and 1 (arXiv:2105.04906).
    pub fn vicreg() -> Self {
        Loss::VicReg { invariance: 25.0, variance: 25.0, covariance: 1.0 }
    }

    /// Returns SimCLR's loss with temperature 0.5, which its authors used on CIFAR-10
    /// (arXiv:2002.05709, appendix B.9).
    pub fn simclr() -> Self {
        Loss::SimClr { temperature: 0.5 }
    }

    /// Returns the spectral contrastive loss with `lambda = w / 2` and `w = 1`, which makes it the
    /// co-occurrence loss.
    pub fn spectral() -> Self {
        Loss::Spectral { lambda: 0.5 }
    }

    /// Checks the weights.
    ///
    /// # Errors
    /// [`Error::Setting`] if a weight is negative or not finite, or `epsilon`, `temperature` or
    /// `lambda` is not positive.
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
    /// Computes the loss of a batch of projections, using the linear algebra of `A`.
    ///
    /// # Shapes
    /// - `projections`: `[batch, patch, dim]`
    ///
    /// # Errors
    /// [`Error::Setting`] if there are fewer than two images or fewer than two patches. Non-finite
    /// projections are not an error: they make the loss NaN.
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

/// Checks that a batch is large enough for a loss.
///
/// # Errors
/// [`Error::Setting`] if there are fewer than two images or fewer than two patches.
pub(crate) fn check_batch(images: usize, patches: usize) -> Result<()> {
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
    /// The tensor to call `backward` on. Its gradient is the gradient of the loss. Its value may
    /// differ from the loss (see [`total_coding_rate`]).
    pub objective: Tensor<B, 1>,
    /// The names of the loss and its terms; the first is `loss`.
    pub names: Vec<&'static str>,
    /// The value of each, `[1]`. The values stay on the device until they are read.
    pub values: Vec<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> LossValue<B> {
    fn new<const N: usize>(objective: Tensor<B, 1>, metrics: [(&'static str, Tensor<B::InnerBackend, 1>); N]) -> Self {
        let (names, values): (Vec<_>, Vec<_>) = metrics.into_iter().unzip();
        LossValue { objective, names, values }
    }

    /// Returns the loss and its terms, by name.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let values = Tensor::cat(self.values.clone(), 0)
            .into_data()
            .convert::<f32>()
            .into_vec::<f32>()
            .expect("converted to f32");
        self.names.iter().copied().zip(values.into_iter().map(f64::from)).collect()
    }

    /// Returns one of the values by name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Added to a row's squared length, so that a row of zeros has a gradient of zeros.
const MIN_SQUARE: f64 = 1e-24;

/// Normalizes each row to unit length.
fn unit<B: Backend>(rows: Tensor<B, 3>) -> Tensor<B, 3> {
    let length = (rows.clone() * rows.clone()).sum_dim(2).add_scalar(MIN_SQUARE).sqrt();
    rows / length
}

/// Returns a scalar whose gradient with respect to `tensor` is `gradient`. Both have the same
/// shape. The scalar's value is meaningless.
fn with_gradient<B: AutodiffBackend>(tensor: Tensor<B, 3>, gradient: Tensor<B::InnerBackend, 3>) -> Tensor<B, 1> {
    (tensor * Tensor::from_inner(gradient)).sum()
}

/// Returns a square matrix of ones with zeros on the diagonal.
fn off_diagonal_mask<B: Backend>(side: usize, device: &B::Device) -> Tensor<B, 2> {
    Tensor::<B, 2>::eye(side, device).mul_scalar(-1.0).add_scalar(1.0)
}
