//! Command-line argument for the cache of features.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The location of the feature cache.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct FeatureArgs {
    /// Cache features in .npy files below this folder, and reuse them
    ///
    /// The features may exceed the memory. Interrupted extractions resume, later evaluations skip
    /// the embedding, and any program that reads .npy can load the files. Features of changed
    /// images are not reused.
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
}

impl FeatureArgs {
    /// Returns the cache's folder, or `None` without `--features`.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.features.as_deref()
    }

    /// Checks, before the work begins, that `--features` names a folder or a path that does not
    /// exist.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(folder) = self.features.as_ref().filter(|folder| folder.exists() && !folder.is_dir()) {
            bail!("--features: expected a folder, got {}", folder.display());
        }
        Ok(())
    }
}
