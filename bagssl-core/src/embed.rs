//! Embeddings: what a network makes of patches.

use std::prelude::v1::*;

use crate::batch::{PatchBatch, SourceError};

/// Where in the network a feature is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "snake_case"))]
pub enum Tap {
    /// `h`, the encoder's output: the representation.
    Embedding,
    /// The projector's first layer after its activation (EMP-SSL's "pre_feature").
    FirstLayer,
    /// `z`, the projector's output: what the loss sees.
    Projection,
}

impl Tap {
    /// The tap's name, as in configs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Tap::Embedding => "embedding",
            Tap::FirstLayer => "first_layer",
            Tap::Projection => "projection",
        }
    }
}

/// Feature vectors, a row each.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// `[row, dim]`, row-major. The rows of a batch run image by image, patch by patch.
    pub values: Vec<f32>,
    /// Length of a row.
    pub dim: usize,
}

impl Rows {
    /// How many rows there are (0 if `dim` is 0).
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }
}

/// A network, as the evaluation sees it: with its running statistics, and without gradients.
pub trait Embed {
    /// The feature of every patch at each of the taps, in their order: `[batch * patch, dim]`.
    ///
    /// # Errors
    /// What the implementation says, for instance that a tap is not there.
    fn embed(&self, batch: &PatchBatch, taps: &[Tap]) -> core::result::Result<Vec<Rows>, SourceError>;
}
