//! The errors of this crate. Each has an expected and an actual value.

use std::path::PathBuf;

use bagssl_core::batch::SourceError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// The setting's name in a config file.
        name: &'static str,
        /// The allowed values.
        expected: String,
        /// The given value.
        got: String,
    },
    /// Two lengths that must be equal differ.
    #[error("{what}: expected {expected}, got {got}")]
    Length {
        /// The measured quantity.
        what: &'static str,
        /// The expected length.
        expected: usize,
        /// The actual length.
        got: usize,
    },
    /// The input is empty.
    #[error("{0}: expected at least one, got none")]
    Empty(&'static str),
    /// A feature is infinite or not a number.
    #[error("{what}: expected a finite number as value {index} of image {image}, patch {patch}, got {value}")]
    NotFinite {
        /// The kind of features.
        what: &'static str,
        /// The image's index in its data set, or the row's index if rows do not belong to images.
        image: usize,
        /// The patch's index in its bag.
        patch: usize,
        /// The index of the value in the row.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The weights of a probe became infinite.
    #[error("probe diverged in epoch {epoch} at learning rate {rate}: use a smaller rate or smaller features")]
    Diverged {
        /// The initial learning rate.
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
    /// The core refused a setting or a shape.
    #[error(transparent)]
    Core(#[from] bagssl_core::Error),
    /// A file of a classifier or of stored features is invalid, incomplete, in use, or belongs to
    /// something else.
    #[error("{part}: expected {expected}, got {got}")]
    File {
        /// The part of the file, or its path.
        part: String,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A thumbnail cannot be written as PNG.
    #[error("thumbnail: {0}")]
    Thumbnail(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file, or the folder of an anonymous file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// The result of a function of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// Returns an error if two lengths differ.
pub(crate) fn same_length(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}
