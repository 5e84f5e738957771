//! The metadata of a tensor.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

/// The precision of f32 products. Products of bf16 values are exact. All sums are in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Math {
    /// Multiplies in f32.
    Exact,
    /// Multiplies in TF32 on the tensor cores: factors have 10 mantissa bits.
    Tf32,
}

/// The shape and data type of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
}

/// The result of a check, with a one-line error.
pub(crate) type Checked<T> = Result<T, String>;

impl Form {
    pub(crate) fn new(shape: impl Into<Vec<usize>>, dtype: DType) -> Self {
        Form { shape: shape.into(), dtype }
    }

    /// Returns the dimensions, if there are exactly `D`.
    pub(crate) fn dims<const D: usize>(&self) -> Checked<[usize; D]> {
        let dims = <[usize; D]>::try_from(self.shape.as_slice());
        dims.map_err(|_| format!("expected {D} dimensions, got {:?}", self.shape))
    }

    pub(crate) fn map(&self) -> Checked<[usize; 4]> {
        if !matches!(self.dtype, DType::F32 | DType::BF16) {
            return Err(format!("expected f32 or bf16, got {:?}", self.dtype));
        }
        self.dims()
    }
}

/// Returns an error if two values differ.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, got: T) -> Checked<()> {
    if expected == got { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}
