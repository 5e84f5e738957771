//! Training of BagSSL encoders on Burn.
//!
//! - [`preset`]: recipes by name. A [`config`] holds the settings of a run; [`memory`] estimates what it needs.
//! - [`loss`]: the loss of a batch's projections. [`optimizer`] and [`schedule`]: the step that follows.
//! - [`trainer`]: the training loop. With [`distributed`], several workers share each batch.
//! - [`run_state`]: saving and resuming. [`metrics`]: what is logged.
//! - [`backend`]: the devices.
//!
//! ```
//! use bagssl_core::model::Stock;
//! use bagssl_train::{Loss, backend::NdArray};
//! use burn::{backend::Autodiff, tensor::Tensor};
//!
//! // Projections of two images with three patches each, in two dimensions: [batch, patch, dim].
//! let values =
//!     [[[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]], [[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]];
//! let projections = Tensor::<Autodiff<NdArray>, 3>::from_floats(values, &Default::default());
//! let value = Loss::tcr(200.0, 0.2).check()?.value::<_, Stock>(projections)?;
//! // Patches of one image agree, and the images are as far apart as possible: the lower bound.
//! let bound = -(1.0 + 2.0 / (2.0 * 0.2_f64)).ln();
//! assert!((value.metric("tcr").unwrap() - bound).abs() < 1e-6);
//! # Ok::<(), bagssl_train::Error>(())
//! ```
//!
//! # Source
//! BagSSL, arXiv:2206.08954.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;

pub mod loss;
pub mod schedule;
pub mod optimizer;
pub mod config;
pub mod memory;
pub mod preset;
pub mod distributed;
pub mod trainer;
pub mod run_state;
pub mod metrics;
pub mod backend;

pub use config::{CheckedConfig, TrainConfig};
pub use error::{Error, Result};
pub use loss::Loss;
pub use optimizer::{Optimizer, OptimizerConfig};
pub use preset::{PRESETS, Preset};
pub use run_state::{Nowhere, StateStore};
pub use trainer::{Ended, RunInfo, Trainer};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
