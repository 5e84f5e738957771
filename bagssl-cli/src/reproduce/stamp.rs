//! Stamps: files that record a finished stage and its settings.

use std::path::Path;

use anyhow::{Context, Result};
use bagssl_eval::fnv1a;
use serde::{Deserialize, Serialize};

use crate::input::files;

/// The record of a finished stage.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StageStamp {
    /// A hash of everything that the stage's results depend on.
    pub(super) hash: String,
    /// The settings and image fingerprints in the hash, to report what has changed.
    #[serde(default, rename = "of")]
    pub(super) settings: Settings,
    /// The duration in seconds, including training.
    pub(super) seconds: f64,
    /// The training, if the stage had one. It is reused if only the evaluation changes.
    #[serde(default)]
    pub(super) training: Option<TrainingStamp>,
}

/// The record of a finished training.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TrainingStamp {
    /// A hash of everything that the weights depend on, and a hash of the weights.
    pub(super) hash: String,
    /// The duration in seconds.
    pub(super) seconds: f64,
}

/// Everything that results depend on, by name.
pub(super) type Settings = Vec<(String, String)>;

/// Returns a hash of the settings.
pub(super) fn hash(settings: &Settings) -> String {
    let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    fnv1a(lines.concat().as_bytes())
}

pub(super) const STAMP: &str = "stage.json";

impl StageStamp {
    /// Reads the stamp of a folder. Returns `None` if there is none or it is invalid.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(STAMP)).ok()?).ok()
    }

    /// Returns why a finished stage is outdated, because its settings changed or files are damaged.
    /// Returns `None` if the folder has no stamp.
    pub(super) fn describe_changes(folder: &Path, now: &Settings) -> Option<String> {
        if !folder.join(STAMP).is_file() {
            return None;
        }
        let before = Self::read(folder).map_or_else(Settings::new, |stamp| stamp.settings);
        let change = |(name, value): &(String, String)| match before.iter().find(|(other, _)| other == name) {
            Some((_, before)) if before == value => None,
            Some((_, before)) => Some(format!("{name} is {value}, was {before}")),
            None => Some(format!("{name} is new")),
        };
        let is_known = !before.is_empty() && !now.is_empty();
        let changed: Vec<String> = if is_known { now.iter().filter_map(change).collect() } else { Vec::new() };
        Some(match &changed[..] {
            [] => "files have changed or are missing".into(),
            _ => changed.join(", "),
        })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        files::write(&folder.join(STAMP), &serde_json::to_vec(self)?)
    }

    /// Removes an outdated stamp, if there is one.
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
