//! Evaluation of patch embeddings: what does a representation know?
//!
//! - [`Features`]: the embeddings of all patches of a data set, in memory or in a [`FeatureCache`] on disk; [`extract`]
//!   computes them. Their mean per image is the image's representation, a row of [`Samples`].
//! - [`Knn`] and [`Linear`] classify these, under a named [`Protocol`]; a [`Classifier`] is stored in a file.
//! - [`analysis`]: collapse, convergence of the mean, nearest neighbors, locality, co-occurrence, projections to two dimensions.
//! - [`baselines`]: raw pixels and color histograms in place of a network.
//! - [`stats`]: confidence intervals and paired differences.
//! - [`report`]: all of it as HTML, Markdown, JSON and CSV.
//!
//! ```
//! use bagssl_core::embed::{FeatureLayer, Rows};
//! use bagssl_eval::{Features, Knn, Linear, Order};
//!
//! // Two images with two patches each, embedded in two dimensions: [image, patch, dim].
//! let values = vec![4.0, 1.0, 6.0, 1.0, 1.0, 5.0, 1.0, 9.0];
//! let features = Features::new(FeatureLayer::Embedding, Rows { values, dim: 2 }, 2, vec![0, 1], vec![0, 1])?;
//! let samples = features.samples(2, Order::Given)?; // an image is the mean of its two patches: (5, 1) and (1, 7)
//! assert_eq!(Knn { neighbors: 1, ..Knn::default() }.evaluate(&samples, &samples)?.accuracy, 100.0);
//! assert_eq!(Linear::default().evaluate(&samples, &samples)?.predictions, [0, 1]);
//! # Ok::<(), bagssl_eval::Error>(())
//! ```
//!
//! # Source
//! BagSSL, arXiv:2206.08954.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod draw;
mod numerics;
mod color;
mod features;
mod classify;

pub mod analysis;
pub mod baselines;
pub mod report;
pub mod stats;

pub use classify::classifier::{Classifier, ClassifierKind, Search};
pub use classify::confusion::Confusion;
pub use classify::knn::Knn;
pub use classify::probe::{Linear, Logistic, Sgd, SoftmaxModel};
#[doc(hidden)]
pub use classify::protocol::fnv1a;
pub use classify::protocol::{Origin, Protocol};
pub use error::{Error, Result};
#[doc(hidden)]
pub use features::cache::npy::header as npy_header;
pub use features::cache::{CacheEntry, FeatureCache, cached_features};
pub use features::samples::{Fit, Samples, Score};
pub use features::table::{RowsView, Table, Values};
pub use features::{Features, Order, extract, intersect_images};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
