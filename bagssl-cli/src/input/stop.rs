//! Early stops on the command line.

use std::time::Duration;

use anyhow::{Result, bail};
use bagssl::StopOptions;

/// When the patches embedded so far are enough.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct StopArgs {
    /// Look at patches in random order, and stop when the mean's standard error is below this share of its length
    #[arg(long, value_name = "SHARE")]
    tolerance: Option<f64>,
    /// Look at patches in random order, and at no more than N (at least 2)
    #[arg(long, value_name = "N")]
    max_patches: Option<u64>,
    /// Look at patches in random order, and stop when an image has taken so long since it began to be read and decoded; what has
    /// been embedded by then counts
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
}

impl StopArgs {
    /// The options that they ask for.
    pub(crate) fn options(&self) -> Result<StopOptions> {
        let StopArgs { tolerance, max_patches, deadline_ms } = *self;
        let options = StopOptions { tolerance, max_patches, deadline: deadline_ms.map(Duration::from_millis) };
        if let Err(error) = options.check() {
            bail!("--{error}");
        }
        Ok(options)
    }
}
