//! What is known of a tensor without its values.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

/// How products of f32 are made. Those of bf16 are exact, and all are summed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Math {
    /// In f32.
    Exact,
    /// In TF32: factors of 10 bits, on the tensor cores.
    Tf32,
}

/// The shape and the type of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
}

/// What does not fit, as one line.
pub(crate) type Checked<T> = Result<T, String>;

impl Form {
    pub(crate) fn new(shape: impl Into<Vec<usize>>, dtype: DType) -> Self {
        Form { shape: shape.into(), dtype }
    }

    /// The dimensions, if there are as many.
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

/// Refuses two values that differ.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, got: T) -> Checked<()> {
    if expected == got { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}
