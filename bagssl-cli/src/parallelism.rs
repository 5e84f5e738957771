//! The number of threads that work runs on.

use anyhow::{Context, Result};

/// Runs `work` with its parallel parts on one thread, for jobs that run one per core.
pub(crate) fn on_one_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().context("a thread cannot be started")?;
    Ok(pool.install(|| bagssl_core::cpu::serially(work)))
}

/// Returns the number of cores available to this program.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}
