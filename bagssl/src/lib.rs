//! Represents images by the mean of their patch embeddings (BagSSL).
//!
//! [`Encoder`] loads a checkpoint and embeds images on the CPU. [`embed`] does the same with any network, for example one of
//! `bagssl-backend` on a GPU.
//!
//! ```no_run
//! use bagssl::{EmbedOptions, Encoder, StopOptions};
//!
//! let encoder = Encoder::load("run/checkpoint.safetensors")?;
//! // Up to 32 patches per image, fewer if their mean has a standard error below 5 %.
//! let stop = StopOptions { tolerance: Some(0.05), max_patches: Some(32), ..StopOptions::default() };
//! let found = encoder.embed_files(&["a.jpg", "b.png"], &EmbedOptions { stop, ..EmbedOptions::default() })?;
//! for image in &found.images {
//!     println!("image {}: {} of {} patches, {:?}", image.image, image.used, image.total, image.mean);
//! }
//! # Ok::<(), bagssl::Error>(())
//! ```
//!
//! [`Encoder::evaluate`] measures how much a representation knows, on a data set with two splits:
//!
//! ```no_run
//! use bagssl::{Encoder, EvalOptions, Splits};
//!
//! let encoder = Encoder::load("run/checkpoint.safetensors")?;
//! let splits = Splits::open("photos")?; // a folder with train/CLASS/ and val/CLASS/
//! let evaluation = encoder.evaluate(&splits, &EvalOptions::default())?;
//! for it in &evaluation.accuracies {
//!     let (layer, color, view) = (it.space.name(), it.color.name(), it.view);
//!     println!("{layer}, {color}, {view:?}, {} patches: kNN {:.1} %, linear {:.1} %", it.patches, it.knn, it.linear);
//! }
//! # Ok::<(), bagssl::Error>(())
//! ```
//!
//! [`evaluate`] does the same with any network and any of its layers, [`claims`] checks the claims of the paper, and
//! [`evaluate_baselines`] evaluates pixels and color histograms. None of them prints anything: [`Event`] says what happens.
//!
//! # Source
//! BagSSL, arXiv:2206.08954.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod embed;
mod splits;
mod groups;
mod eval_options;
mod model;
mod feature_extraction;
mod evaluation;
mod thumbnails;
pub mod claims;
mod encoder;

pub use bagssl_core::anytime::Reason;
pub use bagssl_core::checkpoint::{Checkpoint, Spec};
pub use bagssl_core::color::Color;
pub use bagssl_core::embed::{Embed, FeatureLayer, Rows};
pub use bagssl_core::patch::{Crop, ImageSize};
pub use bagssl_data::{Budget, Dataset, Image, OnBadImage, Skipped, Split};
pub use bagssl_eval::Classifier;
pub use bagssl_eval::Protocol;
pub use bagssl_eval::report::{Space, View};
pub use embed::{EmbedOptions, Embeddings, ImageEmbedding, MAX_PATCHES, Patches, StopOptions, embed};
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use eval_options::{EvalOptions, Event};
pub use evaluation::{
    AccuracyDetails, BOOTSTRAP_DRAWS, Baselines, Evaluation, NearestPatches, ViewAccuracy, evaluate, evaluate_baselines,
};
pub use feature_extraction::extract_features;
pub use groups::Groups;
pub use model::{Model, evaluated_layers};
pub use splits::Splits;
pub use thumbnails::{Thumbnails, image_thumbnail};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
