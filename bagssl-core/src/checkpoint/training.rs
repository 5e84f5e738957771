//! What a state holds besides the weights: where the run stands.

use std::prelude::v1::*;

use serde::{Deserialize, Serialize};

/// Where a run that is not over stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The epoch that comes next, or goes on.
    pub epoch: u32,
    /// Batches of that epoch that are done.
    pub batch: u64,
    /// Steps done, those that changed nothing among them.
    pub step: u64,
    /// Steps that changed nothing, because a value was not finite.
    pub skipped: u64,
    /// Steps of the epoch whose figures are in `sums`.
    pub summed: u64,
    /// For each figure its sum over these steps, as the bits of an `f64`: JSON would round it.
    pub sums: Vec<u64>,
    /// A hash of all settings that have to stay as they are.
    pub config: u64,
    /// These settings, by name, so that it can be said which is another one.
    #[serde(default)]
    pub fixed: Vec<(String, String)>,
    /// The settings that may be changed when the run is resumed, by name.
    pub settings: Vec<(String, String)>,
    /// What was changed when the run was resumed before.
    pub changes: Vec<Change>,
}

/// A setting that was changed when a run was resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Steps that were done before.
    pub step: u64,
    /// The setting's name.
    pub setting: String,
    /// What it was.
    pub from: String,
    /// What it is from then on.
    pub to: String,
}
