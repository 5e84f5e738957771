//! What can go wrong in this crate: one enum, each case with what was expected and what came.

use std::prelude::v1::*;

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting lies outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// The setting's name, as in a config file.
        name: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What came.
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
    /// Two lengths that must agree do not.
    #[error("{what}: expected length {expected}, got {got}")]
    Length {
        /// What was measured.
        what: &'static str,
        /// The length that was needed.
        expected: usize,
        /// The length that came.
        got: usize,
    },
    /// An encoder's or projector's plan is not consistent.
    #[error("plan: {0}")]
    Plan(String),
    /// The bytes are not a checkpoint, or not one of ours.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
}

/// The result of a function of this crate.
pub type Result<T> = core::result::Result<T, Error>;
