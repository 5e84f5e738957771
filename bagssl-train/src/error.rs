//! What can go wrong in training.

use std::path::PathBuf;

use bagssl_core::batch::{BatchShape, SourceError};
use bagssl_core::checkpoint::Change;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting lies outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// The setting's name, as in a config file.
        name: &'static str,
        /// What is allowed.
        expected: String,
        /// What came.
        got: String,
    },
    /// A config cannot be read.
    #[error("config: {0}")]
    Config(String),
    /// A value became infinite or not a number.
    #[error("{what} is not finite{}", at_step(*.step, .images))]
    NotFinite {
        /// What it was.
        what: String,
        /// The step, if it is known.
        step: Option<u64>,
        /// The images of the batch that it comes from, as far as that is known; by their index in the data set.
        images: Vec<u32>,
    },
    /// Workers that share a batch could not exchange what they have.
    #[error("workers: {0}")]
    Workers(String),
    /// The source of batches failed.
    #[error("{0}")]
    Source(SourceError),
    /// An observer failed.
    #[error("{0}")]
    Observer(SourceError),
    /// A batch has another shape than the source said.
    #[error("batch: expected shape {expected:?}, got {got:?}")]
    Batch {
        /// What the source said.
        expected: BatchShape,
        /// What came.
        got: BatchShape,
    },
    /// A source gave another number of batches than it said.
    #[error("batches of an epoch: expected {expected}, got {got}")]
    Batches {
        /// What the source said, or needs to.
        expected: u64,
        /// How many came.
        got: u64,
    },
    /// A state is not one of the run that is to be resumed.
    #[error("{}: {}", .path.display(), other_run(*.is_fixed, .changed))]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// Whether these are settings that a run keeps to its end, or images; others may be changed on purpose.
        is_fixed: bool,
        /// The settings that are others, if it is known which. `images` is the fingerprint of what is trained on.
        changed: Vec<Change>,
    },
    /// There is no state to resume from, though there was a run.
    #[error("{path}: expected {expected}, got {got}")]
    NoState {
        /// Where it was looked for.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is.
        got: String,
    },
    /// Somebody else writes to the run's folder.
    #[error("{path}: expected nobody else to train there, got {holder}")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who it is.
        holder: String,
    },
    /// The model or its optimizer has a value that nothing can be computed with.
    #[error("after step {step} the model is of no use: {error}")]
    Unusable {
        /// Steps done.
        step: u64,
        /// Which tensor has which value.
        error: bagssl_core::Error,
    },
    /// All steps so far have changed nothing.
    #[error("nothing was trained: all {steps} steps so far changed nothing, as their loss or gradient was not finite")]
    NothingTrained {
        /// Steps done.
        steps: u64,
    },
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The CUDA backend cannot run here, or has failed.
    #[error("cuda: {0}")]
    Cuda(String),
    /// Work that the kernels had queued has failed.
    #[error("{0}")]
    Kernels(String),
    /// An error of the core.
    #[error(transparent)]
    Core(#[from] bagssl_core::Error),
}

impl Error {
    /// A value that is not finite, of which nothing else is known.
    pub(crate) fn not_finite(what: &str) -> Self {
        Error::NotFinite { what: what.into(), step: None, images: Vec::new() }
    }
}

/// The result of a function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn other_run(is_fixed: bool, changed: &[Change]) -> String {
    let list = |value: fn(&Change) -> &String| {
        let settings = changed.iter().map(|change| format!("{} {}", change.setting, value(change)));
        settings.collect::<Vec<_>>().join(", ")
    };
    let advice = match is_fixed {
        true => "begin anew with --force, or in another folder",
        false => "go on with them by --resume-from, or begin anew with --force",
    };
    match changed {
        [] => format!("expected a run with the same settings, got one with others; {advice}"),
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
