//! Memory limits.
//!
//! Decoded images share one [`Budget`] across all threads and data sets of a command. The budget is
//! made once, when the flag is parsed, and handed on with the arguments. Commands that embed images
//! in a stream can limit their total memory. They measure the memory in use after the network has
//! processed a batch. The rest of the limit is shared by images that are being decoded or cut and by
//! patches that wait for the network.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bagssl::Error;
use bagssl_core::memory::process_memory;
use bagssl_data::Budget;
pub(crate) use bagssl_data::MIB;
use clap::builder::TypedValueParser;

use crate::embedding::by_flag;
use crate::input::files;

/// The arguments that limit a command's memory.
pub(crate) trait LimitArgs: clap::Args {
    /// Returns the budget that all data sets of the command share.
    fn budget(&self) -> Arc<Budget>;
}

/// The memory limit for images.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ImageMemoryArgs {
    /// Memory limit for images that all threads decode and cut, in MiB [default: 512]
    ///
    /// Further images wait. An image that needs more than the limit is unusable. Training keeps
    /// decoded images for later epochs in up to half of the limit.
    #[arg(long, value_name = "MIB", value_parser = mebibytes())]
    memory_limit: Option<Arc<Budget>>,
}

impl LimitArgs for ImageMemoryArgs {
    fn budget(&self) -> Arc<Budget> {
        self.memory_limit.clone().unwrap_or_else(Budget::shared)
    }
}

/// The limit on a command's total memory.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct MemoryArgs {
    /// Limit on the total memory, in MiB [default: no limit, but 512 for images that are being
    /// decoded and cut]
    ///
    /// With a lower limit, fewer images are decoded at a time. An image that needs more is
    /// unusable.
    #[arg(long, value_name = "MIB", value_parser = mebibytes())]
    memory_limit: Option<Arc<Budget>>,
}

impl LimitArgs for MemoryArgs {
    /// Returns the budget that the data sets of the command share until the total limit is divided
    /// up.
    fn budget(&self) -> Arc<Budget> {
        self.memory_limit.clone().unwrap_or_else(Budget::shared)
    }
}

/// Parses a number of MiB, at least 1, and makes the budget.
fn mebibytes() -> impl TypedValueParser<Value = Arc<Budget>> {
    clap::value_parser!(u64).range(1..).map(|limit| Budget::new(limit.saturating_mul(MIB)))
}

impl MemoryArgs {
    /// Returns the limit in bytes.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.memory_limit.as_ref().map(|budget| budget.bytes())
    }

    /// Returns the budget for an image that is decoded besides all that the process holds.
    ///
    /// # Errors
    /// If the process holds more than the limit, or the system does not say how much it holds.
    pub(crate) fn left(&self) -> Result<Arc<Budget>> {
        let Some(limit) = self.bytes() else { return Ok(self.budget()) };
        let needed = process_memory().ok_or_else(|| by_flag(Error::UnknownMemory))?.current;
        let what = "the network";
        let left = limit.checked_sub(needed).ok_or_else(|| by_flag(Error::MemoryLimit { needed, limit, what }))?;
        Ok(Budget::new(left))
    }

    /// Reads a checkpoint file.
    ///
    /// # Errors
    /// If the file does not fit in what the memory limit leaves, or cannot be read.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        self.check_file(path, 1, "the checkpoint's bytes")?;
        files::read_checkpoint(path)
    }

    /// Reads a classifier file.
    ///
    /// # Errors
    /// If the file's bytes and the numbers in them do not fit in what the memory limit leaves, or it
    /// cannot be read.
    pub(crate) fn read_classifier(&self, path: &Path) -> Result<Vec<u8>> {
        self.check_file(path, 2, "the classifier")?;
        files::read_tensors(path)
    }

    fn check_file(&self, path: &Path, times: u64, what: &'static str) -> Result<()> {
        if let (Some(limit), Ok(meta)) = (self.bytes(), path.metadata()) {
            // What the process holds stays. Where the system does not say it, the embedding will.
            let now = process_memory().map_or(0, |memory| memory.current);
            let needed = meta.len().saturating_mul(times).saturating_add(now);
            if needed > limit {
                return Err(by_flag(Error::MemoryLimit { needed, limit, what }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli<M: clap::Args> {
        #[command(flatten)]
        memory: M,
    }

    /// The data sets of one command share a budget, those of two commands do not.
    #[test]
    fn each_command_has_a_budget_of_its_own() {
        let images = |limit: &str| Cli::<ImageMemoryArgs>::try_parse_from(["x", "--memory-limit", limit]);
        let [one, two] = ["3", "5"].map(|limit| images(limit).unwrap().memory);
        assert_eq!([&one, &two].map(|args| args.budget().bytes()), [3 * MIB, 5 * MIB]);
        let of_copy = one.clone().budget();
        let room = of_copy.try_take(2 * MIB, "x").unwrap();
        assert!(room.is_some() && one.budget().try_take(2 * MIB, "x").unwrap().is_none(), "it is the same budget");
        assert!(images("3").unwrap().memory.budget().try_take(2 * MIB, "x").unwrap().is_some());
        assert_eq!(ImageMemoryArgs::default().budget().bytes(), 512 * MIB);
        for other in ["0", "-1", "x", "18446744073709551616"] {
            assert!(images(other).is_err(), "{other}");
        }
        let total = |words: &[&str]| Cli::<MemoryArgs>::try_parse_from(words).unwrap().memory.bytes();
        assert_eq!(total(&["x"]), None);
        assert_eq!(total(&["x", "--memory-limit", "18446744073709551615"]), Some(u64::MAX));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_process_holds_is_not_left_for_images() {
        let memory = |limit| MemoryArgs { memory_limit: Some(Budget::new(limit)) };
        let left = memory(1 << 40).left().unwrap().bytes();
        assert!(left < 1 << 40 && left > 1 << 39);
        let error = memory(1).left().unwrap_err().to_string();
        assert!(
            error.starts_with("--memory-limit: expected at least ") && error.ends_with(" MiB for the network, got 0"),
            "{error}"
        );
    }
}
