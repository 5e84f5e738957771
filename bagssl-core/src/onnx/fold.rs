//! Folds batch norm into the preceding layer.

use std::prelude::v1::*;

use crate::plan::NORM_EPSILON;

/// A batch norm with running statistics, one value per channel.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

/// Returns the weight and bias of `norm(W x + b)`, computed in f64: `W * factor` and
/// `(b - mean) * factor + shift`, with `factor = scale / sqrt(variance + epsilon)`.
///
/// # Shapes
/// - `weight`: `[outputs, ..]`; `bias`: `[outputs]` or none; all parts of `norm`: `[outputs]`
/// - returns: weight and bias in the same shapes
pub(super) fn folded(mut weight: Vec<f32>, bias: Option<Vec<f32>>, norm: &Norm) -> (Vec<f32>, Vec<f32>) {
    let outputs = norm.scale.len();
    let mut bias = bias.unwrap_or_else(|| vec![0.0; outputs]);
    let row = weight.len() / outputs;
    for (channel, (weights, bias)) in weight.chunks_exact_mut(row).zip(&mut bias).enumerate() {
        let part = |part: &[f32]| f64::from(part[channel]);
        let factor = part(&norm.scale) / libm::sqrt(part(&norm.variance) + NORM_EPSILON);
        weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * factor) as f32);
        *bias = ((f64::from(*bias) - part(&norm.mean)) * factor + part(&norm.shift)) as f32;
    }
    (weight, bias)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors 8 / sqrt(4) = 4 and -3 / sqrt(9) = -1, up to epsilon, which changes them by about
    /// one in a million.
    #[test]
    fn by_hand() {
        let norm =
            Norm { scale: vec![8.0, -3.0], shift: vec![0.5, 0.25], mean: vec![1.0, 2.0], variance: vec![4.0, 9.0] };
        let close = |got: &[f32], expected: &[f32]| {
            let near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 2e-6 * expected.abs();
            assert!(got.len() == expected.len() && got.iter().zip(expected).all(near), "{got:?} {expected:?}");
        };
        let weight = vec![1.0, 2.0, 3.0, 4.0];
        let (weights, bias) = folded(weight.clone(), None, &norm);
        close(&weights, &[4.0, 8.0, -3.0, -4.0]);
        close(&bias, &[-3.5, 2.25]);
        let (_, bias) = folded(weight, Some(vec![10.0, 20.0]), &norm);
        close(&bias, &[36.5, -17.75]);
    }

    #[test]
    fn fold_uses_epsilon() {
        let single = |value: f32| vec![value];
        let norm = Norm { scale: single(1.0), shift: single(0.0), mean: single(0.0), variance: single(0.0) };
        let (weight, _) = folded(single(1.0), None, &norm);
        assert_eq!(weight, [(1.0 / libm::sqrt(1e-5)) as f32]);
    }
}
