//! References to stored tensors.

use std::prelude::v1::*;

/// The values of a tensor, borrowed from the bytes of a file. The bytes need no alignment.
#[derive(Debug, Clone, Copy)]
pub enum TensorRef<'a> {
    /// Little-endian `f32`.
    F32(&'a [[u8; 4]]),
    /// The upper 16 bits of `f32`, little-endian.
    Bf16(&'a [[u8; 2]]),
    /// Signed bytes, multiplied by the scale of their output.
    Int8 {
        /// The bytes.
        values: &'a [u8],
        /// The scale of each output, as little-endian `f32`.
        scales: &'a [[u8; 4]],
        /// The number of consecutive values per output.
        per_output: usize,
    },
}

impl TensorRef<'_> {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match self {
            TensorRef::F32(values) => values.len(),
            TensorRef::Bf16(values) => values.len(),
            TensorRef::Int8 { values, .. } => values.len(),
        }
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a value as `f32`.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn get(&self, index: usize) -> f32 {
        match self {
            TensorRef::F32(values) => f32::from_le_bytes(values[index]),
            TensorRef::Bf16(values) => wide(values[index]),
            TensorRef::Int8 { values, scales, per_output } => {
                f32::from(values[index].cast_signed()) * f32::from_le_bytes(scales[index / per_output])
            }
        }
    }

    /// Returns all values as `f32`.
    pub fn to_vec(&self) -> Vec<f32> {
        match self {
            TensorRef::F32(values) => values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            TensorRef::Bf16(values) => values.iter().map(|&bytes| wide(bytes)).collect(),
            TensorRef::Int8 { .. } => (0..self.len()).map(|index| self.get(index)).collect(),
        }
    }
}

/// Converts bf16 to `f32`.
fn wide(half: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16)
}
