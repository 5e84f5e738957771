//! Tests of the training operations: gradients of convolutions as adjoints, batch norm against its
//! definition.

use std::prelude::v1::*;

use proptest::prelude::*;

use super::super::ops::{Convolution, NormGradients, Processor, View};
use super::super::{Pool, Serial, Threads};
use super::{available, values};
use crate::plan::{NORM_EPSILON, Window};

fn view(values: &[f32], shape: [usize; 4]) -> View<'_> {
    View::new(values, shape).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn length(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// Converts `[image, channel, height, width]` to `[image, height, width, channel]`.
fn channels_last(values: &[f32], [images, height, width, channels]: [usize; 4]) -> Vec<f32> {
    let mut moved = Vec::with_capacity(values.len());
    for image in 0..images {
        for pixel in 0..height * width {
            moved.extend((0..channels).map(|channel| values[(image * channels + channel) * height * width + pixel]));
        }
    }
    moved
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// A convolution agrees with the naive one, and its gradients are its adjoints: for any `g`,
    /// `<conv(x, w), g> = <x, input_gradient(g, w)> = <w, weight_gradient(x, g)>`.
    #[test]
    fn convolution_gradients_are_adjoints(
        seed in 0u64..1000,
        size in (1usize..20, 1usize..20),
        images in 1usize..12,
        channels in (1usize..40, 1usize..70),
        kernel in (1usize..4, 1usize..4),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..4, 0usize..4),
    ) {
        let window = Window { kernel: kernel.into(), stride: stride.into(), padding: padding.into() };
        let size: [usize; 2] = size.into();
        let Some(out) = window.output(size) else { return Err(TestCaseError::reject("the window does not fit")) };
        let (inputs, outputs) = channels;
        let conv = Convolution { window, inputs, outputs };
        let shape = [images, size[0], size[1], inputs];
        let plane = values(seed, "input", shape.iter().product());
        let x = channels_last(&plane, shape);
        let w = values(seed, "weight", outputs * inputs * kernel.0 * kernel.1);
        let g_shape = [images, out[0], out[1], outputs];
        let g = values(seed, "gradient", g_shape.iter().product());
        let pool = Pool::new(2);
        let (x_view, g_view) = (View::new(&x, shape).unwrap(), View::new(&g, g_shape).unwrap());
        let mut first: Option<[Vec<f32>; 3]> = None;
        for set in available().filter(|set| !set.is_bf16()) {
            let mut of_serial: Option<[Vec<f32>; 3]> = None;
            for threads in [&Serial as &dyn Threads, &pool] {
                let processor = Processor::new(set, threads).unwrap();
                let got = [
                    processor.conv2d(x_view, &w, conv, None, None, false).unwrap(),
                    processor.conv2d_input_backward(g_view, &w, conv, size).unwrap(),
                    processor.conv2d_weight_gradient(x_view, g_view, conv).unwrap(),
                ];
                let sums = [dot(&got[0], &g), dot(&x, &got[1]), dot(&w, &got[2])];
                let scale = length(&got[0]) * length(&g) + length(&x) * length(&got[1]) + length(&w) * length(&got[2]);
                for sum in sums {
                    prop_assert!((sum - sums[0]).abs() < 1e-5 * scale.max(1e-6), "{set:?} {sums:?} {scale}");
                }
                if let Some(first) = &first {
                    for (got, first) in got.iter().zip(first) {
                        let difference: Vec<f32> = got.iter().zip(first).map(|(a, b)| a - b).collect();
                        prop_assert!(length(&difference) <= 1e-5 * length(first) + 1e-9, "{set:?}");
                    }
                } else {
                    first = Some(got.clone());
                }
                if let Some(serial) = &of_serial {
                    prop_assert!(serial == &got, "{set:?}: threads change bits");
                } else {
                    of_serial = Some(got);
                }
            }
        }
        // Outputs in three corners, by definition.
        let got = &first.expect("there is a portable set")[0];
        for (image, y, x_at, output) in [(0, 0, 0, 0), (images - 1, out[0] - 1, out[1] - 1, outputs - 1), (0, out[0] - 1, 0, outputs - 1)] {
            let mut sum = 0.0;
            for input in 0..inputs {
                for row in 0..kernel.0 {
                    for column in 0..kernel.1 {
                        let (from_y, from_x) = (y * stride.0 + row, x_at * stride.1 + column);
                        let (Some(from_y), Some(from_x)) = (from_y.checked_sub(padding.0), from_x.checked_sub(padding.1)) else { continue };
                        if from_y < size[0] && from_x < size[1] {
                            let value = plane[((image * inputs + input) * size[0] + from_y) * size[1] + from_x];
                            sum += f64::from(value) * f64::from(w[((output * inputs + input) * kernel.0 + row) * kernel.1 + column]);
                        }
                    }
                }
            }
            let got = f64::from(got[((image * out[0] + y) * out[1] + x_at) * outputs + output]);
            prop_assert!((got - sum).abs() < 1e-4 * (1.0 + (inputs * kernel.0 * kernel.1) as f64).sqrt(), "{got} {sum}");
        }
    }

    /// Batch norm against its definition, and its gradients against finite differences in f64.
    #[test]
    fn batch_norm_matches_definition(
        seed in 0u64..1000,
        shape in (1usize..4, 1usize..6, 1usize..6, 1usize..40),
        has_residual: bool,
        relu: bool,
    ) {
        let shape: [usize; 4] = shape.into();
        let channels = shape[3];
        let count = shape.iter().product::<usize>();
        prop_assume!(count / channels > 2);
        let [x, residual, g] = ["x", "residual", "g"].map(|name| values(seed, name, count));
        let [scale, shift] = ["scale", "shift"].map(|name| values(seed, name, channels));
        // The function, for inputs in f64.
        let forward = |x: &[f64], scale: &[f64], shift: &[f64], residual: &[f64]| -> Vec<f64> {
            let pixels = (count / channels) as f64;
            let of = |channel: usize| x.iter().skip(channel).step_by(channels);
            let mean: Vec<f64> = (0..channels).map(|c| of(c).sum::<f64>() / pixels).collect();
            let variance: Vec<f64> = (0..channels).map(|c| of(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / pixels).collect();
            let one = |(index, value): (usize, &f64)| {
                let c = index % channels;
                let normed = scale[c] * (value - mean[c]) / (variance[c] + NORM_EPSILON).sqrt() + shift[c];
                let sum = normed + if has_residual { residual[index] } else { 0.0 };
                if relu { sum.max(0.0) } else { sum }
            };
            x.iter().enumerate().map(one).collect()
        };
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| f64::from(value)).collect() };
        let expected = forward(&wide(&x), &wide(&scale), &wide(&shift), &wide(&residual));
        // If the input of a ReLU is close to 0, finite differences do not give the gradient.
        let smallest = expected.iter().filter(|&&value| value != 0.0).fold(f64::MAX, |least, value| least.min(value.abs()));
        prop_assume!(!relu || smallest > 1e-3);
        for set in available() {
            let processor = Processor::new(set, &Serial).unwrap();
            let residual_view = has_residual.then(|| view(&residual, shape));
            let normed = processor.norm(view(&x, shape), &scale, &shift, residual_view, relu).unwrap();
            for (got, expected) in normed.output.iter().zip(&expected) {
                prop_assert!((f64::from(*got) - expected).abs() < 2e-4, "{set:?} {got} {expected}");
            }
            let state = (view(&normed.output, shape), &normed.mean[..], &normed.variance[..]);
            let gradients = processor.norm_gradient(view(&x, shape), &scale, state, has_residual, relu, view(&g, shape)).unwrap();
            let NormGradients { input, scale: to_scale, shift: to_shift, residual: to_residual } = gradients;
            let all = [wide(&x), wide(&scale), wide(&shift), wide(&residual)];
            let got = [Some(&input), Some(&to_scale), Some(&to_shift), to_residual.as_ref()];
            for (kind, got) in got.iter().enumerate() {
                let Some(got) = got else { continue };
                // The derivative along a direction with different values in all positions.
                let direction: Vec<f64> = wide(&values(seed, "direction", got.len()));
                let value = |step: f64| -> f64 {
                    let mut moved = all.clone();
                    moved[kind].iter_mut().zip(&direction).for_each(|(value, direction)| *value += step * direction);
                    let out = forward(&moved[0], &moved[1], &moved[2], &moved[3]);
                    out.iter().zip(&g).map(|(out, &g)| out * f64::from(g)).sum()
                };
                let step = 1e-6;
                let expected = (value(step) - value(-step)) / (2.0 * step);
                let along: f64 = got.iter().zip(&direction).map(|(&got, direction)| f64::from(got) * direction).sum();
                let scale = got.iter().zip(&direction).map(|(&got, d)| (f64::from(got) * d).abs()).sum::<f64>();
                prop_assert!((along - expected).abs() < 2e-3 * (1.0 + scale), "{set:?} {kind}: {along} {expected}");
            }
        }
    }
}

/// A residual with the right number of values but another shape is rejected.
#[test]
fn residual_of_other_shape_is_refused() {
    let window = Window::square(1, 1, 0);
    let conv = Convolution { window, inputs: 3, outputs: 4 };
    let (x, w, r) = (values(0, "x", 2 * 5 * 6 * 3), values(0, "w", 12), values(0, "r", 2 * 5 * 6 * 4));
    let processor = Processor::new(crate::cpu::InstructionSet::best(), &Serial).unwrap();
    let run = |shape| processor.conv2d(view(&x, [2, 5, 6, 3]), &w, conv, None, Some(view(&r, shape)), false);
    assert!(run([2, 5, 6, 4]).is_ok());
    assert!(run([2, 6, 5, 4]).is_err() && run([1, 1, 60, 4]).is_err());
    let stuck = Convolution { window: Window { stride: [1, 0], ..window }, ..conv };
    let error = processor.conv2d(view(&x, [2, 5, 6, 3]), &w, stuck, None, None, false).unwrap_err().to_string();
    assert!(error.contains("stride: expected 1 to"), "{error}");
    assert!(View::new(&[], [1 << 32, 1 << 28, 1, 16]).is_err());
}
