//! Training on NVIDIA's GPUs: convolution through cuDNN, products through cuBLAS, and kernels of our own for the rest.
//!
//! Burn's CUDA backend keeps the tensors, the memory and the autodiff; here are the operations that decide the speed, as
//! [`Cudnn`], an implementation of [`Kernels`](bagssl_core::model::Kernels). All libraries are loaded at run time, so that
//! nothing of CUDA is needed to build.
//!
//! What is missing on a machine is said by [`probe`], which must be asked before the first tensor; [`self_check`] compares each
//! operation with the CPU. Inside, an operation is described (`operation`: shapes and types are checked there, without a
//! GPU), then run by the backend (`run`, or `fusion` under Burn's fusion): a `job` takes tensors to pointers and submits the
//! work to the thread that owns the GPU, where a `context` keeps handles, stream, kernels and the plans of convolutions.
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

// Links what is compiled there, instead of compiling it here.
#[cfg(test)]
use bagssl_backend as _;

/// Burn's CUDA backend.
pub type Cuda = burn_cuda::Cuda<f32, i32>;

pub use backend::kernels::{Bf16, Cudnn, F32, Precision, Tf32};
/// A GPU, by its number.
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
