//! Training of BagSSL encoders.
//!
//! In the order in which a step uses them: the [`loss`] of the projections of a batch, the [`optimizer`] with its
//! learning rate's [`schedule`], the [`trainer`] whose loop they run in ([`distributed`] share its batches), the [`run_state`] that its states are saved to, and the
//! [`metrics`] that are written down. A [`config`] holds the settings of a run, [`memory`] estimates what it takes; [`preset`] has recipes by name;
//! [`backend`] names the devices it may run on.
//!
//! ```
//! use bagssl_core::model::Stock;
//! use bagssl_train::backend::NdArray;
//! use bagssl_train::loss::Loss;
//! use burn::backend::Autodiff;
//! use burn::tensor::Tensor;
//!
//! // The projections of two images with three patches each, in two dimensions: [batch, patch, dim].
//! let projections = Tensor::<Autodiff<NdArray>, 3>::from_floats(
//!     [[[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]], [[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]],
//!     &Default::default(),
//! );
//! let value = Loss::tcr(200.0, 0.2).check()?.value::<_, Stock>(projections)?;
//! // Patches of one image agree, and the two images are as far apart as they can be: the lower bound.
//! let bound = -(1.0 + 2.0 / (2.0 * 0.2_f64)).ln();
//! assert!((value.figure("tcr").unwrap() - bound).abs() < 1e-6);
//! assert!((value.figure("invariance").unwrap() - 1.0).abs() < 1e-6);
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

pub use error::{Error, Result};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
