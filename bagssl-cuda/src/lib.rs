//! Training on NVIDIA GPUs: cuDNN convolutions, cuBLAS matrix products, and custom kernels for the
//! rest.
//!
//! Burn's CUDA backend provides tensors, memory management and autodiff. This crate provides the
//! operations that dominate the run time as [`Cudnn`], an implementation of
//! [`Kernels`](bagssl_core::model::Kernels). All CUDA libraries are loaded at run time, so building
//! requires no CUDA installation.
//!
//! [`probe`] reports what is missing on a machine. It must be called before the first tensor is
//! created. [`self_check`] compares each operation with the CPU.
//!
//! To train: `Trainer<Autodiff<Cuda>, Cudnn>` (not `Differentiable<Cudnn>`, which leaves pooling and products to Burn), with
//! [`FusedStep`] for its steps; on several GPUs, with an end of [`Nccl`] for each.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(unsafe_code, reason = "CUDA's libraries are C")]

mod gpu;
pub mod probe;
mod libraries;
mod settings;
mod ops;
mod backend;
mod runtime;
pub mod self_check;
pub mod panics;
pub mod warnings;

// Links the precompiled crate instead of compiling its generic code again for the tests.
#[cfg(test)]
use bagssl_backend as _;

/// Burn's CUDA backend.
pub type Cuda = burn_cuda::Cuda<f32, i32>;

pub use backend::kernels::{Bf16, Cudnn, F32, Precision, Tf32};
/// A GPU, identified by its index.
pub use burn_cuda::CudaDevice;
pub use ops::fused_optimizer::FusedStep;
pub use ops::run::{OnCuda, Plain};
pub use runtime::job::check;
pub use runtime::memory::{Memory, memory};
pub use runtime::nccl::Nccl;

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
