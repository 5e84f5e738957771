//! Command-line arguments for early stopping.

use std::time::Duration;

use anyhow::Result;
use bagssl::StopOptions;

use crate::embedding::by_flag;

/// The rules that end the embedding of an image early.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct StopArgs {
    /// Embed patches in random order, and stop once the standard error of the mean is below this
    /// share of the mean's length
    #[arg(long, value_name = "SHARE")]
    tolerance: Option<f64>,
    /// Embed patches in random order, at most N per image (at least 2)
    #[arg(long, value_name = "N")]
    max_patches: Option<u64>,
    /// Embed patches in random order, and stop after this time per image in milliseconds
    ///
    /// The time includes reading and decoding the image. The result is the mean of the patches
    /// embedded so far.
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
}

impl StopArgs {
    /// Returns the options that the arguments ask for.
    pub(crate) fn options(&self) -> Result<StopOptions> {
        let StopArgs { tolerance, max_patches, deadline_ms } = *self;
        let options = StopOptions { tolerance, max_patches, deadline: deadline_ms.map(Duration::from_millis) };
        options.check().map_err(by_flag)?;
        Ok(options)
    }
}
