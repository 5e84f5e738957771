//! Limits on memory.
//!
//! Images take theirs from one [`Budget`] for all threads and data sets of a command. Commands that embed images as they come can
//! limit all of their memory: what the program holds once its network has looked at a batch is measured, not guessed, and the
//! rest of the limit is shared by images that are being decoded and cut and by patches that wait for the network.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use bagssl_data::Budget;
pub(crate) use bagssl_data::MIB;

use crate::input::files;

/// The memory that images may take.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct ImageMemoryArgs {
    /// Memory that all threads together may take for images that are being decoded and cut: others wait, and one that needs more
    /// cannot be used [default: 512]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) memory_limit: Option<u64>,
}

impl ImageMemoryArgs {
    /// The budget of all data sets of the command.
    pub(crate) fn budget(self) -> Arc<Budget> {
        static BUDGET: OnceLock<Arc<Budget>> = OnceLock::new();
        let new = |limit: u64| Budget::new(limit.saturating_mul(MIB));
        BUDGET.get_or_init(|| self.memory_limit.map_or_else(Budget::shared, new)).clone()
    }
}

/// All memory that a command may take.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct MemoryArgs {
    /// Take at most so much memory in all: fewer images are decoded at a time, and one that is too large cannot be used
    /// [default: no limit, but 512 for images that are being decoded and cut]
    #[arg(long, value_name = "MIB")]
    memory_limit: Option<u64>,
}

impl MemoryArgs {
    /// The limit in bytes.
    pub(crate) fn bytes(self) -> Option<u64> {
        self.memory_limit.map(|limit| limit.saturating_mul(MIB))
    }

    /// What the data sets of the command take their memory from while nobody shares the limit out.
    pub(crate) fn budget(self) -> Arc<Budget> {
        ImageMemoryArgs { memory_limit: self.memory_limit }.budget()
    }

    /// All bytes of a checkpoint, if the limit has room for them.
    pub(crate) fn read(self, path: &Path) -> Result<Vec<u8>> {
        if let (Some(limit), Ok(meta)) = (self.bytes(), path.metadata())
            && meta.len() > limit
        {
            return Err(limit_error(limit, meta.len(), "the checkpoint's bytes"));
        }
        files::read_checkpoint(path)
    }
}

/// A limit that is too low.
pub(crate) fn limit_error(limit: u64, needed: u64, what: &str) -> anyhow::Error {
    let (needed, limit) = (needed.div_ceil(MIB), limit / MIB);
    anyhow!("--memory-limit: expected at least {needed} MiB for {what}, got {limit}")
}
