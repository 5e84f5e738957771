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
//! # Source
//! BagSSL, arXiv:2206.08954.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod embed;
mod encoder;

pub use bagssl_core::anytime::Reason;
pub use bagssl_core::checkpoint::Spec;
pub use bagssl_core::embed::{Embed, FeatureLayer, Rows};
pub use bagssl_core::patch::{Crop, ImageSize};
pub use bagssl_data::{Budget, Dataset, Image, OnBadImage, Skipped, Split};
pub use bagssl_eval::classify::classifier::Classifier;
pub use embed::{EmbedOptions, Embeddings, ImageEmbedding, MOST_PATCHES, Patches, StopOptions, embed};
pub use encoder::Encoder;
pub use error::{Error, Result};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
