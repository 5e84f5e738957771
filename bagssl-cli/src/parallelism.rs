//! On how many threads work runs.

use anyhow::{Context, Result};

/// Runs work whose parallel parts take one thread: for jobs of which as many run as there are cores.
pub(crate) fn on_one_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().context("a thread cannot be started")?;
    Ok(pool.install(|| bagssl_core::cpu::serially(work)))
}

/// Cores that this program may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}
