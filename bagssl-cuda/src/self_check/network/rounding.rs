//! Emulates the effect of rounding to bf16 or TF32 on networks on the CPU. The bounds of the GPU
//! checks are derived from it.
//!
//! Maps and factors are rounded to nearest where the GPU rounds them. Sums are f32, as on the GPU.
//! The factors of linear layers are rounded in the forward pass, and the backward pass reuses the
//! rounded factors. The incoming gradients of linear layers are not rounded.

use std::cell::Cell;

use bagssl_core::model::{BatchNormGradients, BatchNormInputs, BatchNormOutput};
use bagssl_core::plan::Window;
use burn::tensor::activation::relu as relu_of;
use burn::tensor::{Tensor, TensorData};

use super::*;

/// The explicit mantissa bits of maps in memory, of the factors of convolutions, and of those of
/// linear layers.
type Bits = [u32; 3];

const EXACT: Bits = [23; 3];

/// Returns the mantissa bits of a precision.
fn bits_of<P: Checked>() -> Bits {
    match P::NAME {
        "bf16" => [7, 7, 10],
        "tf32" => [23, 10, 10],
        _ => EXACT,
    }
}

thread_local! {
    /// The mantissa bits on this thread. A type parameter would compile the entire network once per
    /// precision.
    static BITS: Cell<Bits> = const { Cell::new(EXACT) };
}

/// The CPU kernels, with rounding to [`BITS`].
#[derive(Debug, Clone, Copy, Default)]
struct Rounded;

/// Rounds to the nearest value with `bits` explicit mantissa bits, ties to even.
fn nearest(value: f32, bits: u32) -> f32 {
    let dropped = 23 - bits;
    let raw = value.to_bits();
    f32::from_bits((raw + (1 << (dropped - 1)) - 1 + ((raw >> dropped) & 1)) >> dropped << dropped)
}

fn round<B: Backend, const D: usize>(tensor: Tensor<B, D>, bits: u32) -> Tensor<B, D> {
    if bits == 23 {
        return tensor;
    }
    let (dims, device) = (tensor.dims(), tensor.device());
    let values: Vec<f32> = flat(tensor).into_iter().map(|value| nearest(value, bits)).collect();
    Tensor::from_data(TensorData::new(values, dims), &device)
}

/// Rounds a map in memory.
fn map(map: Tensor<NdArray, 4>) -> Tensor<NdArray, 4> {
    round(map, BITS.get()[0])
}

/// Rounds a factor of a convolution.
fn factor(factor: Tensor<NdArray, 4>) -> Tensor<NdArray, 4> {
    round(factor, BITS.get()[1])
}

/// Rounds a factor of a linear layer.
fn row_factor(factor: Tensor<NdArray, 2>) -> Tensor<NdArray, 2> {
    round(factor, BITS.get()[2])
}

/// Rounds a factor under autodiff, by adding a constant offset.
fn tracked_factor(factor: Tensor<Tracked, 2>) -> Tensor<Tracked, 2> {
    let plain = factor.clone().inner();
    factor + Tensor::from_inner(row_factor(plain.clone()) - plain)
}

impl Kernels<NdArray> for Rounded {
    fn conv2d(input: Tensor<NdArray, 4>, weight: Tensor<NdArray, 4>, window: Window) -> Tensor<NdArray, 4> {
        map(CpuFast::conv2d(factor(input), factor(weight), window))
    }

    fn conv2d_input_backward(
        gradient: Tensor<NdArray, 4>,
        weight: Tensor<NdArray, 4>,
        window: Window,
        size: [usize; 2],
    ) -> Tensor<NdArray, 4> {
        let (gradient, weight) = (factor(gradient), factor(weight));
        map(CpuFast::conv2d_input_backward(gradient, weight, window, size))
    }

    fn conv2d_weight_backward(
        input: Tensor<NdArray, 4>,
        gradient: Tensor<NdArray, 4>,
        weight: Tensor<NdArray, 4>,
        window: Window,
    ) -> Tensor<NdArray, 4> {
        let (input, gradient) = (factor(input), factor(gradient));
        map(CpuFast::conv2d_weight_backward(input, gradient, weight, window))
    }

    fn conv2d_fused(
        input: Tensor<NdArray, 4>,
        weight: Tensor<NdArray, 4>,
        bias: Tensor<NdArray, 1>,
        window: Window,
        residual: Option<Tensor<NdArray, 4>>,
        relu: bool,
    ) -> Tensor<NdArray, 4> {
        let [channels] = bias.dims();
        let output = Self::conv2d(input, weight, window) + bias.reshape([1, channels, 1, 1]);
        let output = residual.into_iter().fold(output, |output, residual| output + residual);
        map(if relu { relu_of(output) } else { output })
    }

    fn batch_norm(
        inputs: BatchNormInputs<NdArray>,
        residual: Option<Tensor<NdArray, 4>>,
        relu: bool,
    ) -> BatchNormOutput<NdArray> {
        let BatchNormOutput { output, mean, variance } = CpuFast::batch_norm(inputs, residual, relu);
        BatchNormOutput { output: map(output), mean, variance }
    }

    fn batch_norm_backward(
        inputs: BatchNormInputs<NdArray>,
        normed: BatchNormOutput<NdArray>,
        has_residual: bool,
        relu: bool,
        gradient: Tensor<NdArray, 4>,
    ) -> BatchNormGradients<NdArray> {
        let gradients = CpuFast::batch_norm_backward(inputs, normed, has_residual, relu, map(gradient));
        let (input, residual) = (map(gradients.input), gradients.residual.map(map));
        BatchNormGradients { input, residual, ..gradients }
    }

    fn linear(
        input: Tensor<NdArray, 2>,
        weight: Tensor<NdArray, 2>,
        bias: Option<Tensor<NdArray, 1>>,
    ) -> Tensor<NdArray, 2> {
        CpuFast::linear(row_factor(input), row_factor(weight), bias)
    }
}

/// The same kernels under autodiff.
#[derive(Debug, Clone, Copy, Default)]
struct Training;

type Tracked = Autodiff<NdArray>;

impl Kernels<Tracked> for Training {
    fn conv2d(input: Tensor<Tracked, 4>, weight: Tensor<Tracked, 4>, window: Window) -> Tensor<Tracked, 4> {
        Differentiable::<Rounded>::conv2d(input, weight, window)
    }

    fn batch_norm(
        inputs: BatchNormInputs<Tracked>,
        residual: Option<Tensor<Tracked, 4>>,
        relu: bool,
    ) -> BatchNormOutput<Tracked> {
        Differentiable::<Rounded>::batch_norm(inputs, residual, relu)
    }

    fn linear(
        input: Tensor<Tracked, 2>,
        weight: Tensor<Tracked, 2>,
        bias: Option<Tensor<Tracked, 1>>,
    ) -> Tensor<Tracked, 2> {
        Differentiable::<CpuFast>::linear(tracked_factor(input), tracked_factor(weight), bias)
    }
}

#[test]
fn values_are_rounded_to_the_nearest() {
    assert_eq!(
        [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.002].map(|value| nearest(value, 7)),
        [1.0, 1.0, 1.0 + 4.0 / 256.0, -1.0]
    );
    assert_eq!(nearest(1.0 + 3.0 / 2048.0, 10), 1.0 + 2.0 / 1024.0);
    assert_eq!(nearest(0.3, 22), 0.3);
}

/// Checks that bounds are at least four times the effect of rounding, so that sums in another order
/// pass. Only results that rounding reverses may be unbounded.
fn bounds_are_as_rounding_asks<P: Checked>() {
    let mut wrong = Vec::new();
    for (architecture, size) in NETWORKS {
        let plan = plan(architecture);
        let [exact, rounded] = [EXACT, bits_of::<P>()].map(|bits| {
            BITS.set(bits);
            results::<NdArray, Rounded, Training>(&plan, size)
        });
        for ((part, bound), (exact, rounded)) in
            PARTS.into_iter().zip(bounds(architecture, P::NAME)).zip(exact.iter().zip(&rounded))
        {
            let figure = apart(rounded, exact);
            let line = format!("{} {} {part}: {figure:.1e} of {bound:.0e}", P::NAME, architecture.name());
            println!("{line}");
            // Only results that rounding reverses have no bound.
            if 4.0 * figure > bound || bound.is_infinite() && figure < 0.1 {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "expected bounds of at least four times these: {wrong:#?}");
}

#[test]
fn bounds_of_bf16_are_as_rounding_asks() {
    bounds_are_as_rounding_asks::<Bf16>();
}

#[test]
fn bounds_of_tf32_are_as_rounding_asks() {
    bounds_are_as_rounding_asks::<Tf32>();
}
