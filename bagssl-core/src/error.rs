//! The error type of this crate. Each variant states the expected and the actual value.

use std::prelude::v1::*;

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// The setting's name, as in a config file.
        name: &'static str,
        /// The allowed values.
        expected: &'static str,
        /// The actual value.
        got: String,
    },
    /// A patch does not fit into its image.
    #[error("patch of {patch}x{patch} pixels does not fit into an image of {height}x{width} (height x width)")]
    PatchTooLarge {
        /// The patch's side in pixels.
        patch: u32,
        /// The image's height in pixels.
        height: u32,
        /// The image's width in pixels.
        width: u32,
    },
    /// A length differs from the required one.
    #[error("{name}: expected length {expected}, got {got}")]
    Length {
        /// The object whose length was checked.
        name: &'static str,
        /// The required length.
        expected: usize,
        /// The actual length.
        got: usize,
    },
    /// The plan of an encoder or projector is inconsistent.
    #[error("plan: {0}")]
    Plan(String),
    /// The bytes are not a valid BagSSL checkpoint.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
}

/// The result of a function of this crate.
pub type Result<T> = core::result::Result<T, Error>;
