//! Evaluation of patch embeddings: what does a representation know?
//!
//! In the order in which an image goes through: a network (or a [`baselines`] one, in [`color`] or not) gives the
//! [`features`] of its patches, in a [`table`] in memory or in a [`feature_cache`] on disk, whose mean is its representation; labeled [`samples`] of these are classified by [`knn`]
//! and by a linear [`probe`] under a [`protocol`] that has a name, with what is taken for what as
//! [`confusion`]; a [`classifier`] is one of these that is kept in a file. [`health`] tells a collapsed representation by its spectrum, [`convergence`] compares the
//! mean of patches to the whole image, [`neighbors`] shows what a representation takes to be alike, [`projection_2d`] draws a map of it, [`locality`] whether it knows where a
//! patch lies, [`cooccurrence`] checks the
//! theory where all is known, [`stats`] says what a
//! difference is worth, and the [`report`] shows it all.
//!
//! ```
//! use bagssl_core::embed::{Rows, FeatureLayer};
//! use bagssl_eval::features::{Features, Order};
//! use bagssl_eval::knn::Knn;
//! use bagssl_eval::probe::Linear;
//!
//! // Two patches of each of three images, embedded in two dimensions: [image, patch, dim].
//! let features = |values: [f32; 12], labels: [u32; 3]| {
//!     Features::new(FeatureLayer::Embedding, Rows { values: values.to_vec(), dim: 2 }, 2, vec![0, 1, 2], labels.to_vec())
//! };
//! let train = features([4.0, 1.0, 6.0, 1.0, 1.0, 5.0, 1.0, 9.0, 8.0, 2.0, 8.0, 0.0], [0, 1, 0])?;
//! let test = features([5.0, 0.0, 7.0, 2.0, 0.0, 6.0, 2.0, 2.0, 1.0, 4.0, 3.0, 8.0], [0, 1, 1])?;
//! assert_eq!(test.mean()?.row(0), [6.0, 1.0]);
//!
//! // An image is the mean of its patches.
//! let (train, test) = (train.samples(2, Order::Given)?, test.samples(2, Order::Given)?);
//! assert_eq!(Knn { neighbors: 2, ..Knn::default() }.evaluate(&train, &test)?.accuracy, 100.0);
//! assert_eq!(Linear::default().evaluate(&train, &test)?.predictions, [0, 1, 1]);
//! # Ok::<(), bagssl_eval::Error>(())
//! ```
//!
//! # Source
//! BagSSL, arXiv:2206.08954.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;
mod draw;
mod files;
mod matrix;
mod lbfgs;

pub mod color;
pub mod baselines;
pub mod table;
pub mod features;
pub mod feature_cache;
pub mod samples;
mod similarity;
pub mod knn;
pub mod probe;
pub mod confusion;
pub mod protocol;
pub mod classifier;

mod spectrum;
pub mod health;
pub mod convergence;
pub mod neighbors;
pub mod projection_2d;
pub mod locality;
pub mod cooccurrence;
pub mod stats;

pub mod report;

pub use error::{Error, Result};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
