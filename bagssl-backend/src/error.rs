//! Errors of the backends.

/// The error type of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend cannot run the network.
    #[error("{backend}: expected {expected}, got {got}")]
    Plan {
        /// The backend's name.
        backend: &'static str,
        /// The property that the backend requires.
        expected: &'static str,
        /// The actual property, with the layer's name.
        got: String,
    },
    /// The patches are too small for the network.
    #[error("expected patches large enough for the encoder's kernels, got {0:?} pixels")]
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

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;
