//! Where a run is kept: its [`folder`](RunFolder) has one writer at a time, its [`States`] are files that are there as a whole
//! or not at all ([`Staged`]).

mod folder;
mod staged;
mod states;

pub use folder::{CHECKPOINT, CONFIG, METRICS, OLD_STATE, RunFolder, STATES};
pub(crate) use staged::regular;
pub use staged::{Staged, write_whole};
pub use states::{Every, Keeping, LatestState, States, whole_state};

use crate::error::Result;

/// Where in its schedule a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u32,
    /// Batches done of the epoch after these; 0 at the end of an epoch.
    pub batch: u64,
}

/// Takes a run's states.
pub trait StateStore {
    /// Whether it takes any. A state is not even made for one that does not.
    fn keeps(&self) -> bool {
        true
    }

    /// Whether a state is to be saved where the run stands. Before a run ends it is saved in any case.
    fn is_due(&self, _: Position) -> bool {
        false
    }

    /// Keeps a state.
    ///
    /// # Errors
    /// What could not be done; the state of the call before is still there.
    fn save(&mut self, position: Position, bytes: &[u8]) -> Result<()>;
}

/// A store for runs whose state nobody wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl StateStore for Nowhere {
    fn keeps(&self) -> bool {
        false
    }

    fn save(&mut self, _: Position, _: &[u8]) -> Result<()> {
        Ok(())
    }
}
