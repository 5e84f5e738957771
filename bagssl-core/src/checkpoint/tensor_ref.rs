//! Tensors where they lie.

use std::prelude::v1::*;

/// The values of a tensor where they lie in a file's bytes, which need no alignment.
#[derive(Debug, Clone, Copy)]
pub enum TensorRef<'a> {
    /// Little-endian `f32`.
    F32(&'a [[u8; 4]]),
    /// The upper halves of `f32`, little-endian.
    Bf16(&'a [[u8; 2]]),
    /// Signed bytes, each times the factor of its output.
    Int8 {
        /// The bytes.
        values: &'a [u8],
        /// A little-endian `f32` for each output.
        scales: &'a [[u8; 4]],
        /// Values of an output, one after the other.
        per_output: usize,
    },
}

impl TensorRef<'_> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            TensorRef::F32(values) => values.len(),
            TensorRef::Bf16(values) => values.len(),
            TensorRef::Int8 { values, .. } => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One value.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn get(&self, index: usize) -> f32 {
        match self {
            TensorRef::F32(values) => f32::from_le_bytes(values[index]),
            TensorRef::Bf16(values) => wide(values[index]),
            TensorRef::Int8 { values, scales, per_output } => {
                f32::from(values[index].cast_signed()) * f32::from_le_bytes(scales[index / per_output])
            }
        }
    }

    /// All values.
    pub fn to_vec(&self) -> Vec<f32> {
        match self {
            TensorRef::F32(values) => values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            TensorRef::Bf16(values) => values.iter().map(|&bytes| wide(bytes)).collect(),
            TensorRef::Int8 { .. } => (0..self.len()).map(|index| self.get(index)).collect(),
        }
    }
}

/// A bf16 as `f32`.
fn wide(half: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16)
}
