//! Stamps: how a stage says that it is done, and with what.

use std::path::Path;

use anyhow::{Context, Result};
use bagssl_eval::classify::protocol::fnv1a;
use serde::{Deserialize, Serialize};

use crate::input::files;

/// What a stage that is done leaves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StageStamp {
    /// A hash of all that the stage's results depend on.
    pub(super) hash: String,
    /// The settings and images among it, so that it can be said what has changed.
    #[serde(default)]
    pub(super) of: Settings,
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

/// What results depend on, by name.
pub(super) type Settings = Vec<(String, String)>;

/// A hash of all of it.
pub(super) fn hash(settings: &Settings) -> String {
    let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    fnv1a(lines.concat().as_bytes())
}

pub(super) const STAMP: &str = "stage.json";

impl StageStamp {
    /// The stamp in a folder, if one is there.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(STAMP)).ok()?).ok()
    }

    /// Why what was done no longer holds, if something was done: what it depends on is another now, or it is damaged.
    pub(super) fn why_not(folder: &Path, now: &Settings) -> Option<String> {
        if !folder.join(STAMP).is_file() {
            return None;
        }
        let before = Self::read(folder).map_or_else(Settings::new, |stamp| stamp.of);
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
