//! Errors of training.

use std::path::PathBuf;

use bagssl_core::batch::{BatchShape, SourceError};
use bagssl_core::checkpoint::SettingChange;

/// The error type of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// The name of the setting, as in a config file.
        name: &'static str,
        /// The allowed range.
        expected: String,
        /// The value received.
        got: String,
    },
    /// A config cannot be parsed.
    #[error("config: {0}")]
    Config(String),
    /// A value is infinite or NaN.
    #[error("{value} is not finite{}", at_step(*.step, .images))]
    NotFinite {
        /// The name of the value.
        value: String,
        /// The step, if known.
        step: Option<u64>,
        /// The images of the batch that caused it, as far as known, as indices into the data set.
        images: Vec<u32>,
    },
    /// Workers that share a batch failed to exchange tensors.
    #[error("workers: {0}")]
    Workers(String),
    /// The source of batches failed.
    #[error("{0}")]
    Source(SourceError),
    /// An observer failed.
    #[error("{0}")]
    Observer(SourceError),
    /// The shape of a batch differs from the shape that the source declared.
    #[error("batch: expected shape {expected:?}, got {got:?}")]
    Batch {
        /// The shape that the source declared.
        expected: BatchShape,
        /// The shape of the batch.
        got: BatchShape,
    },
    /// A source yielded a different number of batches than it declared.
    #[error("batches of an epoch: expected {expected}, got {got}")]
    Batches {
        /// The number that the source declared, or the minimum required.
        expected: u64,
        /// The number received.
        got: u64,
    },
    /// The state belongs to a different run than the one to resume.
    #[error("{}: {}", .path.display(), other_run(*.is_fixed, .changed))]
    OtherRun {
        /// The state's file.
        path: PathBuf,
        /// Whether the differences are in settings that must not change during a run, or in the
        /// images. Other settings may be changed deliberately.
        is_fixed: bool,
        /// The settings that differ, if known. `images` is the fingerprint of the training images.
        changed: Vec<SettingChange>,
    },
    /// A previous run exists, but none of its states can be resumed from.
    #[error("{path}: expected {expected}, got {got}")]
    NoState {
        /// The path that was searched.
        path: PathBuf,
        /// The expected state.
        expected: String,
        /// The state found instead.
        got: String,
    },
    /// Another process is writing to the run's folder.
    #[error("{path}: expected no other process to train there, got {holder}")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// A description of the process.
        holder: String,
    },
    /// A value of the model or its optimizer cannot be computed with, such as a NaN.
    #[error("after step {step} the model is unusable: {error}")]
    Unusable {
        /// The number of completed steps.
        step: u64,
        /// The tensor and its value.
        error: bagssl_core::Error,
    },
    /// Every step so far was skipped.
    #[error("nothing was trained: all {steps} steps so far were skipped because their loss or gradient was not finite")]
    NothingTrained {
        /// The number of completed steps.
        steps: u64,
    },
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The CUDA backend is unavailable or has failed.
    #[error("cuda: {0}")]
    Cuda(String),
    /// A queued kernel has failed.
    #[error("{0}")]
    Kernels(String),
    /// An error of the core.
    #[error(transparent)]
    Core(#[from] bagssl_core::Error),
}

impl Error {
    /// Returns an error for a non-finite value of unknown step and images.
    pub(crate) fn not_finite(value: &str) -> Self {
        Error::NotFinite { value: value.into(), step: None, images: Vec::new() }
    }
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn other_run(is_fixed: bool, changed: &[SettingChange]) -> String {
    let list = |value: fn(&SettingChange) -> &String| {
        let settings = changed.iter().map(|change| format!("{} {}", change.setting, value(change)));
        settings.collect::<Vec<_>>().join(", ")
    };
    let advice = match is_fixed {
        true => "start over with --force, or use another folder",
        false => "resume with the new settings with --resume-from, or start over with --force",
    };
    match changed {
        [] => format!("expected a run with the same settings, got one with other settings; {advice}"),
        _ => {
            let [from, to] = [list(|change| &change.from), list(|change| &change.to)];
            format!("expected the run's settings ({from}), got others ({to}); {advice}")
        }
    }
}

fn at_step(step: Option<u64>, images: &[u32]) -> String {
    let mut text = step.map_or_else(String::new, |step| format!(" at step {step}"));
    if !images.is_empty() {
        const SHOWN: usize = 8;
        let shown: Vec<String> = images.iter().take(SHOWN).map(u32::to_string).collect();
        let more = if images.len() > SHOWN { format!(" and {} more", images.len() - SHOWN) } else { String::new() };
        text += &format!(", from images {}{more}", shown.join(", "));
    }
    text
}
