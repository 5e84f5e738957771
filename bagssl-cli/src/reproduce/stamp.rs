//! Stamps: how a stage says that it is done, and with what.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::files;

/// What a stage that is done leaves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// A hash of all that the stage's results depend on.
    pub(super) hash: String,
    /// The seconds that it took, training among it.
    pub(super) seconds: f64,
    /// What was trained, if something was: it is not trained anew where it is measured in another way.
    #[serde(default)]
    pub(super) training: Option<TrainingStamp>,
}

/// A training that is done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TrainingStamp {
    /// A hash of all that the weights depend on, and that of the weights.
    pub(super) hash: String,
    /// The seconds that it took.
    pub(super) seconds: f64,
}

pub(super) const STAMP: &str = "stage.json";

impl Stamp {
    /// The stamp in a folder, if one is there.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(STAMP)).ok()?).ok()
    }

    /// Whether a stamp is there, if only a damaged one.
    pub(super) fn is_there(folder: &Path) -> bool {
        folder.join(STAMP).is_file()
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        files::write(&folder.join(STAMP), &serde_json::to_vec(self)?)
    }

    /// Takes a stamp away that no longer holds.
    pub(super) fn remove(folder: &Path) -> Result<()> {
        let path = folder.join(STAMP);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(path.display().to_string())
            }
            _ => Ok(()),
        }
    }
}
