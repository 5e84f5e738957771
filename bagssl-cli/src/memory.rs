//! Memory limits.
//!
//! Decoded images share one [`Budget`] across all threads and data sets of a command. Commands that
//! embed images in a stream can limit their total memory. They measure the memory in use after the
//! network has processed a batch. The rest of the limit is shared by images that are being decoded
//! or cut and by patches that wait for the network.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use bagssl::Error;
use bagssl_data::Budget;
pub(crate) use bagssl_data::MIB;

use crate::embedding::by_flag;
use crate::input::files;

/// The memory limit for images.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct ImageMemoryArgs {
    /// Memory limit for images that all threads decode and cut, in MiB [default: 512]
    ///
    /// Further images wait. An image that needs more than the limit is unusable.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) memory_limit: Option<u64>,
}

impl ImageMemoryArgs {
    /// Returns the budget that all data sets of the command share.
    pub(crate) fn budget(self) -> Arc<Budget> {
        static BUDGET: OnceLock<Arc<Budget>> = OnceLock::new();
        let new = |limit: u64| Budget::new(limit.saturating_mul(MIB));
        BUDGET.get_or_init(|| self.memory_limit.map_or_else(Budget::shared, new)).clone()
    }
}

/// The limit on a command's total memory.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct MemoryArgs {
    /// Limit on the total memory, in MiB [default: no limit, but 512 for images that are being
    /// decoded and cut]
    ///
    /// With a lower limit, fewer images are decoded at a time. An image that needs more is
    /// unusable.
    #[arg(long, value_name = "MIB")]
    memory_limit: Option<u64>,
}

impl MemoryArgs {
    /// Returns the limit in bytes.
    pub(crate) fn bytes(self) -> Option<u64> {
        self.memory_limit.map(|limit| limit.saturating_mul(MIB))
    }

    /// Returns the budget that the data sets of the command share until the total limit is divided
    /// up.
    pub(crate) fn budget(self) -> Arc<Budget> {
        ImageMemoryArgs { memory_limit: self.memory_limit }.budget()
    }

    /// Reads a checkpoint file.
    ///
    /// # Errors
    /// If the file is larger than the memory limit, or cannot be read.
    pub(crate) fn read(self, path: &Path) -> Result<Vec<u8>> {
        if let (Some(limit), Ok(meta)) = (self.bytes(), path.metadata())
            && meta.len() > limit
        {
            return Err(by_flag(Error::MemoryLimit { needed: meta.len(), limit, what: "the checkpoint's bytes" }));
        }
        files::read_checkpoint(path)
    }
}
