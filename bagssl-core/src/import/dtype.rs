//! Number types in imported files, and their conversion to `f32`.

use std::prelude::v1::*;

use half::{bf16, f16};

/// The type of a stored number, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16: the upper 16 bits of single precision.
    Bf16,
    /// Integers and booleans with this many bytes. Used for counters, never for weights.
    Integer(u8),
}

impl DType {
    /// Returns the type of a PyTorch storage class.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => DType::F64,
            "FloatStorage" => DType::F32,
            "HalfStorage" => DType::F16,
            "BFloat16Storage" => DType::Bf16,
            "LongStorage" => DType::Integer(8),
            "IntStorage" => DType::Integer(4),
            "ShortStorage" => DType::Integer(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => DType::Integer(1),
            _ => return None,
        })
    }

    /// Returns the number of bytes per value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::Integer(bytes) => usize::from(bytes),
        }
    }

    /// Converts the bytes of a value to the nearest `f32`; `None` for integers.
    pub(super) fn value(self, bytes: &[u8]) -> Option<f32> {
        Some(match self {
            DType::F64 => f64::from_le_bytes(bytes.try_into().ok()?) as f32,
            DType::F32 => f32::from_le_bytes(bytes.try_into().ok()?),
            DType::F16 => f16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
            DType::Bf16 => bf16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
            DType::Integer(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_values_by_hand() {
        let half = |bits: u16| DType::F16.value(&bits.to_le_bytes()).unwrap();
        let cases =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8)];
        for (bits, value) in cases {
            assert_eq!(half(bits), value);
        }
        assert_eq!(half(0x7c00), f32::INFINITY);
        assert!(half(0x7e00).is_nan());
        assert_eq!(half(0x8000).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(DType::Bf16.value(&[0x49, 0x40]), Some(3.140625));
    }
}
