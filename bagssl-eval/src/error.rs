//! What can go wrong in this crate: one enum, each case with what was expected and what came.

use std::path::PathBuf;

use bagssl_core::batch::SourceError;

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
    /// Two lengths that must agree do not.
    #[error("{what}: expected {expected}, got {got}")]
    Length {
        /// What was measured.
        what: &'static str,
        /// The length that was needed.
        expected: usize,
        /// The length that came.
        got: usize,
    },
    /// There is nothing to work on.
    #[error("{0}: expected at least one, got none")]
    Empty(&'static str),
    /// A feature is infinite or not a number.
    #[error("{what}: value {index} of image {image}, patch {patch} is {value}, expected a finite number")]
    NotFinite {
        /// Which features.
        what: &'static str,
        /// The image's index in its data set, or the row where rows stand for no image.
        image: usize,
        /// The patch's index in its bag.
        patch: usize,
        /// Where in the row.
        index: usize,
        /// What came.
        value: f32,
    },
    /// A probe's weights became infinite.
    #[error("probe diverged in epoch {epoch} at learning rate {rate}: expected a smaller rate or smaller features")]
    Diverged {
        /// The learning rate it began with.
        rate: f64,
        /// The epoch, counted from 0.
        epoch: u32,
    },
    /// The source of batches failed.
    #[error("{0}")]
    Source(SourceError),
    /// The network failed.
    #[error("{0}")]
    Network(SourceError),
    /// A setting or shape that the core refuses.
    #[error(transparent)]
    Core(#[from] bagssl_core::Error),
    /// A file of a classifier or of stored features is none, not whole, of something else, or in use.
    #[error("{part}: expected {expected}, got {got}")]
    File {
        /// Which part of it, or its path.
        part: String,
        /// What belongs there.
        expected: String,
        /// What came.
        got: String,
    },
    /// A thumbnail cannot be written as PNG.
    #[error("thumbnail: {0}")]
    Thumbnail(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which file, or the folder of one without a name.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The result of a function of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// Refuses lengths that do not agree.
pub(crate) fn same_length(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}
