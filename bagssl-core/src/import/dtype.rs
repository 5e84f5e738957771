//! Number types in imported files, and their conversion to `f32`.

use std::prelude::v1::*;

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
    pub fn bytes(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::Integer(bytes) => usize::from(bytes),
        }
    }

    /// Returns whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        !matches!(self, DType::Integer(_))
    }

    /// Converts the bytes of a value to the nearest `f32`; `None` for integers.
    pub(super) fn value(self, bytes: &[u8]) -> Option<f32> {
        Some(match self {
            DType::F64 => f64::from_le_bytes(bytes.try_into().ok()?) as f32,
            DType::F32 => f32::from_le_bytes(bytes.try_into().ok()?),
            DType::F16 => half(u16::from_le_bytes(bytes.try_into().ok()?)),
            DType::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes(bytes.try_into().ok()?)) << 16),
            DType::Integer(_) => return None,
        })
    }
}

/// Converts half precision: 1 sign bit, 5 exponent bits, 10 mantissa bits.
fn half(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 31), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal numbers: steps of 2^-24.
        0 => (mantissa as f32 / 16_777_216.0).to_bits(),
        31 => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_by_hand() {
        let cases =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8)];
        for (bits, value) in cases {
            assert_eq!(half(bits), value);
        }
        assert_eq!(half(0x7c00), f32::INFINITY);
        assert!(half(0x7e00).is_nan());
        assert_eq!(half(0x8000).to_bits(), (-0.0_f32).to_bits());
    }
}
