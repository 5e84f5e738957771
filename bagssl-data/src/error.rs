//! The errors of this crate.

use std::path::PathBuf;

use bagssl_core::text::is_interpreted;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{path}: {error}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// A file or folder is not a data set.
    #[error("{path}: expected {expected}, got {got}")]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What was expected at the path.
        expected: &'static str,
        /// What was found.
        got: String,
    },
    /// An image cannot be decoded, or exceeds a limit.
    #[error("{name}: expected {expected}, got {got}")]
    Image {
        /// The image's name in its data set.
        name: String,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// An image is no longer the one whose digest is in the data set's fingerprint.
    #[error("{name}: expected the image as it was when the run began, got a changed one")]
    Changed {
        /// The image's name in its data set.
        name: String,
    },
    /// A setting lies outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// The setting's name in a config file.
        name: &'static str,
        /// The allowed values.
        expected: String,
        /// The given value.
        got: String,
    },
    /// A patch cannot be cut from an image.
    #[error("{name}: {error}")]
    Patch {
        /// The image's name in its data set.
        name: String,
        /// The reason.
        error: bagssl_core::Error,
    },
}

/// The result of a function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Shortens another library's message to one line: at most 200 characters, with control characters
/// replaced by spaces.
pub(crate) fn one_line(message: &impl ToString) -> String {
    message.to_string().chars().take(200).map(|letter| if is_interpreted(letter) { ' ' } else { letter }).collect()
}
