//! The backends that BagSSL trains and embeds on.
//!
//! Burn's code is generic over its backend and compiles slowly. This crate compiles each backend
//! once and hides it behind the trait [`Backend`]. Dispatch through the trait happens once per run
//! or batch.
//!
//! - [`ndarray`]: the CPU, with this project's kernels
//! - `candle` and `ndarray_stock` (feature `candle`): the CPU, with Burn's own operations
//! - `cuda` (feature `cuda`): NVIDIA GPUs
//!
//! ```
//! use bagssl_backend::{Backend, CpuOptions, ndarray};
//! use bagssl_core::architecture::{Architecture, mlp};
//! use bagssl_core::batch::{BatchShape, PatchBatch};
//! use bagssl_core::checkpoint::ModelPlan;
//! use bagssl_core::embed::FeatureLayer;
//!
//! let encoder = Architecture::ResNetSmall.plan();
//! let projector = mlp(encoder.output_dim(), &[8])?;
//! let plan = ModelPlan::new(encoder, projector)?;
//! let network = ndarray(CpuOptions::default()).random(&plan, 0, 16, &[FeatureLayer::Embedding])?;
//! // One image of two patches, each three channels of 16 rows and 12 columns.
//! let shape = BatchShape { images: 1, patches: 2, channels: 3, height: 16, width: 12 };
//! let batch = PatchBatch::new(shape, vec![0.5; 2 * 3 * 16 * 12], vec![0], vec![0])?;
//! let embeddings = network.embed(&batch, &[FeatureLayer::Embedding]).map_err(|error| error.to_string())?;
//! assert_eq!((embeddings[0].len(), embeddings[0].dim), (2, plan.dim(FeatureLayer::Embedding)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod backend;
mod target;
mod on_ndarray;
#[cfg(feature = "candle")]
mod stock;
#[cfg(feature = "cuda")]
mod on_cuda;

pub use backend::{AnyTrainer, Backend, Inference, Weights, Worker};
pub use error::{Error, Result};
#[cfg(feature = "cuda")]
pub use on_cuda::{Precision, check_cuda, cuda};
pub use on_ndarray::{CpuOptions, ndarray};
#[cfg(feature = "candle")]
pub use stock::{candle, ndarray_stock};

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
