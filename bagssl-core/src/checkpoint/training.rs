//! The training state of a checkpoint: the position in the run, and its settings.

use std::prelude::v1::*;

use serde::{Deserialize, Serialize};

/// The position of an unfinished run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The current or next epoch.
    pub epoch: u32,
    /// Number of batches done in that epoch.
    pub batch: u64,
    /// Number of steps done, including skipped ones.
    pub step: u64,
    /// Number of steps skipped because a value was not finite.
    pub skipped: u64,
    /// Number of steps of the epoch that are included in `sums`.
    pub summed: u64,
    /// The sum of each metric over these steps, as the bits of an `f64`, because JSON would round
    /// it.
    pub sums: Vec<u64>,
    /// A hash of all settings that must not change.
    pub config: u64,
    /// These settings by name, so that an error can name the one that changed.
    #[serde(default)]
    pub fixed: Vec<(String, String)>,
    /// The settings that may change when the run is resumed, by name.
    pub settings: Vec<(String, String)>,
    /// The changes made by earlier resumes.
    pub changes: Vec<SettingChange>,
}

/// A setting that was changed when a run was resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingChange {
    /// Number of steps done before the change.
    pub step: u64,
    /// The setting's name.
    pub setting: String,
    /// The old value.
    pub from: String,
    /// The new value.
    pub to: String,
}
