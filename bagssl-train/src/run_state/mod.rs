//! A run on disk: its [`folder`](RunFolder) with a single writer, and its [`States`], which are
//! written atomically.

mod folder;
mod states;

pub use folder::{CHECKPOINT, CONFIG, METRICS, OLD_STATE, RunFolder, STATES};
pub(crate) use states::parse_state;
pub use states::{Retention, SaveInterval, SavedState, States};

use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// The position of a run in its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The number of completed steps.
    pub step: u64,
    /// The number of completed epochs.
    pub epoch: u32,
    /// The number of completed batches of the current epoch; 0 at an epoch boundary.
    pub batch: u64,
}

/// Stores a run's states.
pub trait StateStore {
    /// Whether the store saves states at all. If not, states are not serialized.
    fn saves_states(&self) -> bool {
        true
    }

    /// Whether a state should be saved at this position. A state is always saved before a run ends.
    fn is_due(&self, _: Position) -> bool {
        false
    }

    /// Saves a state.
    ///
    /// # Errors
    /// Any error of saving. The previous state remains intact.
    fn save(&mut self, position: Position, bytes: &[u8]) -> Result<()>;
}

/// A store that discards all states.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl StateStore for Nowhere {
    fn saves_states(&self) -> bool {
        false
    }

    fn save(&mut self, _: Position, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Returns the error of a file.
fn failed(path: &Path, error: io::Error) -> Error {
    Error::File { path: path.into(), error }
}
