//! How another crate uses an NVIDIA GPU: it asks what is missing, and takes the CPU if something is.
//!
//! The gate `package` checks this crate against the packed crates, with the versions in the lock file of the workspace, without
//! `.cargo/config.toml` and without CUDA.

use bagssl_backend::{Backend, CpuOptions, Precision, cuda, ndarray};
use bagssl_cuda::probe::probe;
use bagssl_train::error::Result;

/// The GPU if it can be used, else the CPU and what the GPU lacks.
pub fn backend() -> Result<(Box<dyn Backend>, Vec<String>)> {
    let missing = probe().missing();
    let backend = if missing.is_empty() { cuda(Precision::F32)? } else { ndarray(CpuOptions::default()) };
    Ok((backend, missing))
}
