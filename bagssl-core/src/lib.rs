//! Bags of image patches: the parts of BagSSL that need no operating system and no deep-learning
//! framework. The feature `burn` adds the models.
//!
//! The modules follow an image through the pipeline. [`patch`] and [`bag`] cut it into patches,
//! with numbers from [`random`]. A [`batch`] carries the patches to a network, which [`embed`]s
//! them. [`aggregate`] turns the embeddings into the representation of the image; [`anytime`] stops
//! early once the estimate is good enough. [`explain`] computes what each patch contributes to a
//! decision, and [`heat`] draws these contributions over the image.
//!
//! ```
//! use bagssl_core::{Address, Bag, ImageSize, PatchSide, PatchSpec, RunningMean};
//!
//! let size = ImageSize { height: 4, width: 6 };
//! let image: Vec<f32> = (0..24).map(|pixel| pixel as f32).collect();
//! let spec = PatchSpec::new(PatchSide::Pixels(2), 2)?; // 2x2 pixels, not resampled
//! let mut representation = RunningMean::new(1);
//! for crop in (Bag::Grid { spec, stride: 2 }).crops(size, Address::default())? {
//!     // In place of a network: the first pixel of each patch.
//!     representation.push(&[image[(crop.top * size.width + crop.left) as usize]])?;
//! }
//! assert_eq!(representation.mean(), Some(vec![8.0])); // of 0, 2, 4, 12, 14 and 16
//! # Ok::<(), bagssl_core::Error>(())
//! ```
//!
//! # Source
//! BagSSL, arXiv:2206.08954.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]

extern crate no_std_compat as std;

pub mod error;
pub mod random;
pub mod text;

mod patches;
pub mod embed;
mod aggregation;

#[cfg(feature = "checkpoint")]
mod network;
#[cfg(feature = "checkpoint")]
pub mod checkpoint;
#[cfg(feature = "import")]
pub mod import;
#[cfg(feature = "onnx")]
pub mod onnx;

#[cfg(feature = "cpu")]
pub mod cpu;

#[cfg(feature = "burn")]
pub mod model;

#[cfg(feature = "std")]
pub mod memory;
pub mod observe;
pub mod profile;

pub use aggregation::{aggregate, anytime, coding_rate, explain, heat, quantile};
#[cfg(feature = "checkpoint")]
pub(crate) use network::limits;
#[cfg(feature = "checkpoint")]
pub use network::{architecture, plan};
pub use patches::{bag, batch, color, normalize, patch};

pub use aggregate::RunningMean;
pub use anytime::{AnyTime, StopRule};
#[cfg(feature = "checkpoint")]
pub use architecture::Architecture;
pub use bag::{Bag, Grid, Views};
pub use batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
#[cfg(feature = "checkpoint")]
pub use checkpoint::{Checkpoint, ModelPlan, Spec};
pub use color::Color;
pub use embed::{Embed, FeatureLayer, Rows};
pub use error::{Error, Result};
pub use normalize::Normalization;
pub use patch::{Crop, Filter, ImageSize, MultiScale, PatchSide, PatchSpec};
#[cfg(feature = "checkpoint")]
pub use plan::Plan;
pub use random::{Address, Purpose};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
