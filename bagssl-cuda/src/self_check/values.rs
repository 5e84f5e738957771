//! Creates and compares values.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorData};

use crate::ops::run::OnCuda;

/// Returns the largest difference relative to the largest expected value; infinite for NaN or
/// different lengths.
pub(super) fn difference(got: &[f32], expected: &[f64]) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let off = got.iter().zip(expected).map(|(&got, &expected)| (f64::from(got) - expected).abs());
    let off = off.fold(0.0, |most: f64, off| if off.is_nan() { f64::INFINITY } else { most.max(off) });
    off / largest.max(f64::MIN_POSITIVE)
}

/// Returns pseudorandom values in `[-1, 1)`, determined by the seed (SplitMix64, Steele, Lea, Flood
/// 2014).
pub(super) fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 40
    };
    (0..count).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Rounds to the nearest bf16, ties to even.
pub(super) fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

pub(super) fn tensor<B: Backend, const D: usize>(values: &[f32], dims: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), device)
}

/// Returns a tensor's values; empty if they cannot be read.
pub(super) fn flat<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.cast(FloatDType::F32).into_data().into_vec().unwrap_or_default()
}

/// Returns a leaf's gradient; empty if there is none.
pub(super) fn gradient<B: OnCuda, const D: usize>(
    leaf: &Tensor<Autodiff<B>, D>,
    gradients: &<Autodiff<B> as burn::tensor::backend::AutodiffBackend>::Gradients,
) -> Vec<f32> {
    leaf.grad(gradients).map(flat).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_of_the_largest_value_and_sees_what_is_no_number() {
        assert_eq!(difference(&[1.0, 4.0], &[1.0, 8.0]), 0.5);
        assert_eq!(difference(&[f32::NAN, 8.0], &[1.0, 8.0]), f64::INFINITY);
        assert_eq!(difference(&[8.0, f32::NAN], &[8.0, 1.0]), f64::INFINITY);
        assert_eq!(difference(&[1.0], &[1.0, 8.0]), f64::INFINITY);
        assert_eq!(difference(&[0.0], &[0.0]), 0.0);
        assert!(difference(&[1e-3], &[0.0]) > 1.0);
    }

    #[test]
    fn random_values_differ_and_are_rounded_as_bf16() {
        let values = random(3, 1000);
        assert_eq!(values, random(3, 1000));
        assert_ne!(values, random(4, 1000));
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        assert!(values.iter().sum::<f32>().abs() < 60.0);
        assert_eq!([1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].map(rounded), [1.0, 1.0, 1.0 + 4.0 / 256.0]);
        assert_eq!(rounded(-1.002), -1.0);
    }
}
