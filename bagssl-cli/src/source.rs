//! The images that a command works on.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use bagssl_data::dataset::{Dataset, Split};

/// Where images come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DataArgs {
    /// Images: a folder with train/ and val/, such a folder in a .tar, or CIFAR-10/100's binary files
    /// [default: the photographs that the program carries]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Threads that decode and cut images [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) threads: usize,
}

impl DataArgs {
    /// One half of the data set.
    pub(crate) fn open(&self, split: Split) -> Result<Arc<Dataset>> {
        let dataset = match &self.data {
            Some(path) => Dataset::open(path, split)?,
            None => Dataset::embedded(split)?,
        };
        Ok(Arc::new(dataset))
    }

    /// What the data set is called.
    pub(crate) fn name(&self) -> String {
        match &self.data {
            Some(path) => path.display().to_string(),
            None => "photo-tiles-mini".into(),
        }
    }
}
