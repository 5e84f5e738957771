//! The passes of `Kernels` against Burn's autodiff, and each CPU backend against the other.

use bagssl_core::model::{BatchNormInputs, CpuFast, Differentiable, Kernels, Stock};
use bagssl_core::plan::Window;
#[cfg(feature = "candle")]
use bagssl_train::backend::Candle;
use bagssl_train::backend::NdArray;
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;

/// Values between -1 and 1 that repeat in no direction.
fn wave<B: Backend, const D: usize>(dims: [usize; D], phase: f64) -> Tensor<B, D> {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i| (i as f64 * 0.7371 + phase).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), &Default::default())
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

#[track_caller]
fn close(name: &str, left: &[f32], right: &[f32], tolerance: f32) {
    assert_eq!(left.len(), right.len(), "{name}");
    // Gradients that cancel to nothing are compared with the size of what cancels.
    let largest = right.iter().fold(1e-2_f32, |largest, value| largest.max(value.abs()));
    let error = left.iter().zip(right).fold(0_f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error <= tolerance * largest, "{name}: error {error} of {largest}");
}

/// Output and gradients of a convolution, weighted so that each output pixel counts differently.
fn conv<B: Backend, K: Kernels<Autodiff<B>>>(dims: [usize; 4], outputs: usize, window: Window) -> [Vec<f32>; 3] {
    let input = wave::<Autodiff<B>, 4>(dims, 0.1).require_grad();
    let weight = wave::<Autodiff<B>, 4>([outputs, dims[1], window.kernel[0], window.kernel[1]], 0.5).require_grad();
    let output = K::conv2d(input.clone(), weight.clone(), window);
    let gradients = (output.clone() * wave(output.dims(), 2.0)).sum().backward();
    [values(output), values(input.grad(&gradients).unwrap()), values(weight.grad(&gradients).unwrap())]
}

fn norm<B: Backend, K: Kernels<Autodiff<B>>>(dims: [usize; 4], residual: bool, relu: bool) -> Vec<Vec<f32>> {
    let input = wave::<Autodiff<B>, 4>(dims, 0.1).require_grad();
    let scale = wave::<Autodiff<B>, 1>([dims[1]], 1.0).require_grad();
    let shift = wave::<Autodiff<B>, 1>([dims[1]], 3.0).require_grad();
    let other = wave::<Autodiff<B>, 4>(dims, 4.0).require_grad();
    let inputs = BatchNormInputs { input: input.clone(), scale: scale.clone(), shift: shift.clone() };
    let normed = K::batch_norm(inputs, residual.then(|| other.clone()), relu);
    let gradients = (normed.output.clone() * wave(dims, 2.0)).sum().backward();
    let mut all = vec![values(normed.output), values(normed.mean), values(normed.variance)];
    all.push(values(input.grad(&gradients).unwrap()));
    all.push(values(scale.grad(&gradients).unwrap()));
    all.push(values(shift.grad(&gradients).unwrap()));
    if residual {
        all.push(values(other.grad(&gradients).unwrap()));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn own_convolution_gradients_match_autodiff(
        (rows, inputs, outputs) in (1usize..3, 1usize..4, 1usize..4),
        (height, width) in (1usize..9, 1usize..9),
        (kernel, stride, padding) in ((1usize..5, 1usize..4), (1usize..4, 1usize..4), (0usize..3, 0usize..3)),
    ) {
        let window = Window { kernel: kernel.into(), stride: stride.into(), padding: padding.into() };
        let window = Window { kernel: [kernel.0, kernel.1], stride: [stride.0, stride.1], ..window };
        // A padding as large as the kernel gives windows of zeros only, which no network has.
        prop_assume!((0..2).all(|axis| window.padding[axis] < window.kernel[axis]));
        prop_assume!(window.output([height, width]).is_some());
        let dims = [rows, inputs, height, width];
        let own = conv::<NdArray, Differentiable<Stock>>(dims, outputs, window);
        let fast = conv::<NdArray, Differentiable<CpuFast>>(dims, outputs, window);
        let stock = conv::<NdArray, Stock>(dims, outputs, window);
        for own in [own, fast] {
            for ((name, own), stock) in ["output", "input", "weight"].iter().zip(&own).zip(&stock) {
                close(name, own, stock, 1e-4);
            }
        }
    }

    #[test]
    fn own_norm_gradients_match_autodiff(
        dims in (2usize..4, 1usize..4, 1usize..4, 1usize..5), residual: bool, relu: bool,
    ) {
        let dims = [dims.0, dims.1, dims.2, dims.3];
        let own = norm::<NdArray, Differentiable<Stock>>(dims, residual, relu);
        let fast = norm::<NdArray, Differentiable<CpuFast>>(dims, residual, relu);
        let stock = norm::<NdArray, Stock>(dims, residual, relu);
        for own in [own, fast] {
            for (index, (own, stock)) in own.iter().zip(&stock).enumerate() {
                close(&format!("part {index}"), own, stock, 1e-3);
            }
        }
    }
}

#[cfg(feature = "candle")]
#[test]
fn cpu_backends_agree_on_convolutions() {
    for (window, size) in [
        (Window::square(3, 1, 1), [7, 5]),
        (Window::square(3, 2, 1), [7, 6]),
        (Window::square(1, 2, 0), [6, 7]),
        (Window::square(7, 2, 3), [11, 9]),
    ] {
        let dims = [3, 4, size[0], size[1]];
        let ndarray = conv::<NdArray, Differentiable<Stock>>(dims, 5, window);
        let candle = conv::<Candle, Differentiable<Stock>>(dims, 5, window);
        let fast = conv::<NdArray, Differentiable<CpuFast>>(dims, 5, window);
        for (part, ((ndarray, candle), fast)) in ndarray.iter().zip(&candle).zip(&fast).enumerate() {
            close(&format!("{window:?}, part {part}"), ndarray, candle, 1e-5);
            close(&format!("{window:?}, part {part}"), fast, candle, 1e-5);
        }
    }
}

#[cfg(feature = "candle")]
#[test]
fn cpu_backends_agree_on_norms_pools_and_linear_layers() {
    for (residual, relu) in [(false, false), (true, true)] {
        let ndarray = norm::<NdArray, Differentiable<Stock>>([3, 4, 5, 2], residual, relu);
        let candle = norm::<Candle, Differentiable<Stock>>([3, 4, 5, 2], residual, relu);
        ndarray.iter().zip(&candle).for_each(|(ndarray, candle)| close("norm", ndarray, candle, 1e-4));
    }
    fn others<B: Backend, K: Kernels<B>>() -> [Vec<f32>; 3] {
        let map = wave::<B, 4>([2, 3, 7, 6], 0.3);
        let pooled = K::max_pool2d(map.clone(), Window::square(3, 2, 1));
        let mean: Tensor<B, 2> = K::global_mean(map);
        let linear = K::linear(mean.clone(), wave([5, 3], 0.9), Some(wave([5], 0.2)));
        [values(pooled), values(mean), values(linear)]
    }
    let candle = others::<Candle, Stock>();
    for ndarray in [others::<NdArray, Stock>(), others::<NdArray, CpuFast>()] {
        ndarray.iter().zip(&candle).for_each(|(a, b)| close("others", a, b, 1e-5));
    }
}

/// A row of 1, 2, 3 under a kernel of 1, 10 with padding 1: 10, 21, 32, 3.
#[test]
fn convolution_by_hand() {
    let input = Tensor::<NdArray, 4>::from_floats([[[[1.0, 2.0, 3.0]]]], &Default::default());
    let weight = Tensor::<NdArray, 4>::from_floats([[[[1.0, 10.0]]]], &Default::default());
    let window = Window { kernel: [1, 2], stride: [1, 1], padding: [0, 1] };
    assert_eq!(values(Stock::conv2d(input.clone(), weight.clone(), window)), [10.0, 21.0, 32.0, 3.0]);
    let bias = Tensor::from_floats([-20.0], &Default::default());
    let fused = Stock::conv2d_fused(input, weight, bias, window, None, true);
    assert_eq!(values(fused), [0.0, 1.0, 12.0, 0.0]);
}
