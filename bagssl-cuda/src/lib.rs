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
//! Internally, the module `operation` describes an operation and checks shapes and types without a
//! GPU. The module `run` (or `fusion` under Burn's fusion) executes it on the backend. A `job`
//! resolves tensors to pointers and submits the work to the thread that owns the GPU. On that
//! thread, a `context` caches handles, the stream, compiled kernels and convolution plans.
//!
//! For training, use `Trainer<Autodiff<Cuda>, Cudnn>` with [`FusedStep`] as the optimizer. (With
//! `Differentiable<Cudnn>`, pooling and matrix products would be left to Burn.) On several GPUs,
//! give each worker one of the handles that [`Nccl`] creates.

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
