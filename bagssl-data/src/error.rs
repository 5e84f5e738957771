//! What can go wrong with images.

use std::path::PathBuf;

use bagssl_core::text::is_obeyed;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file or folder is not a data set.
    #[error("{path}: expected {expected}, got {got}")]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What it was taken for.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// An image cannot be decoded, or is not to be.
    #[error("{name}: expected {expected}, got {got}")]
    Image {
        /// The image's name in its data set.
        name: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// An image is no longer the one whose digest is in the data set's fingerprint.
    #[error(
        "{name}: expected the bytes whose digest was taken when the work began, got others: the image has changed since"
    )]
    Changed {
        /// The image's name in its data set.
        name: String,
    },
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
    /// A patch cannot be cut out of an image.
    #[error("{name}: {error}")]
    Patch {
        /// The image's name in its data set.
        name: String,
        /// Why not.
        error: bagssl_core::Error,
    },
}

/// The result of a function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Another library's message, made fit for a line: at most 200 characters, none of them a control character.
pub(crate) fn one_line(message: &impl ToString) -> String {
    message.to_string().chars().take(200).map(|letter| if is_obeyed(letter) { ' ' } else { letter }).collect()
}
