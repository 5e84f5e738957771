//! What can go wrong.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A backend cannot run a network.
    #[error("{backend}: expected {expected}, got {got}")]
    Plan {
        /// The backend's name.
        backend: &'static str,
        /// What it can run.
        expected: &'static str,
        /// What came, with the layer's name.
        got: String,
    },
    /// Patches are too small for a network.
    #[error("expected patches that the encoder's windows fit into, got {0:?} pixels")]
    PatchSize(
        /// Height and width.
        [usize; 2],
    ),
    /// An error of training.
    #[error(transparent)]
    Train(#[from] bagssl_train::Error),
    /// An error of the core.
    #[error(transparent)]
    Core(#[from] bagssl_core::Error),
}

/// The result of a function of this crate.
pub type Result<T> = std::result::Result<T, Error>;
