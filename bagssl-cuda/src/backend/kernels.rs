//! The kernels of a network on NVIDIA GPUs.

use std::fmt::Debug;
use std::marker::PhantomData;

use bagssl_core::model::{
    BatchNormBackward, BatchNormGradients, BatchNormInputs, BatchNormOutput, Kernels, Reading, Running,
};
use bagssl_core::plan::Window;
use burn::tensor::{DType, FloatDType, Tensor, TensorPrimitive};

use crate::ops::form::Math;
use crate::ops::map::multiple;
use crate::ops::operation::Operation;
use crate::ops::run::{OnCuda, Raw};
use crate::runtime::job;
use bagssl_train::loss::LinAlg;

/// Convolution, batch norm, pooling and matrix products on NVIDIA GPUs. Works with Burn's CUDA
/// backend, with and without fusion, and under its autodiff.
///
/// `P` is the precision of the network, [`Bf16`] by default. Parameters, their gradients,
/// statistics and the network's outputs are f32 in every precision.
///
/// Work is queued. Errors on the GPU are returned by [`check`](crate::check) or [`Kernels::check`].
///
/// # Panics
/// As Burn's own operations, if shapes do not match.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cudnn<P = Bf16>(PhantomData<P>);

/// The precision of a network.
#[allow(private_interfaces, reason = "nobody outside implements it")]
pub trait Precision: Copy + Default + Debug + Send + Sync + 'static {
    /// The type that the network's input is cast to, or `None` to leave it unchanged.
    const MAPS: Option<FloatDType>;

    #[doc(hidden)]
    const MATH: Math;
}

/// Feature maps and the factors of convolutions are bf16, sums are f32. Linear layers multiply in
/// TF32.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bf16;

/// Feature maps are f32. Products use TF32 (factors with 10 mantissa bits) and are summed in f32.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tf32;

/// Everything is f32.
#[derive(Debug, Clone, Copy, Default)]
pub struct F32;

#[allow(private_interfaces, reason = "nobody outside implements it")]
impl Precision for Bf16 {
    const MAPS: Option<FloatDType> = Some(FloatDType::BF16);
    const MATH: Math = Math::Tf32;
}

#[allow(private_interfaces, reason = "nobody outside implements it")]
impl Precision for Tf32 {
    const MAPS: Option<FloatDType> = None;
    const MATH: Math = Math::Tf32;
}

#[allow(private_interfaces, reason = "nobody outside implements it")]
impl Precision for F32 {
    const MAPS: Option<FloatDType> = None;
    const MATH: Math = Math::Exact;
}

pub(crate) fn raw<B: OnCuda, const D: usize>(tensor: Tensor<B, D>) -> Raw<B> {
    tensor.into_primitive().tensor()
}

pub(crate) fn wrap<B: OnCuda, const D: usize>(tensor: Raw<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

/// Runs an operation with `N` outputs.
pub(crate) fn run<B: OnCuda, const N: usize>(operation: Operation, inputs: Vec<Raw<B>>) -> [Raw<B>; N] {
    let outputs = B::run(operation, inputs);
    let Ok(outputs) = outputs.try_into() else { unreachable!("an operation gives as many tensors as it says") };
    outputs
}

/// Returns the inputs of a norm's backward operations, in order.
fn backward<B: OnCuda>(BatchNormBackward { inputs, normed, gradient, .. }: BatchNormBackward<B>) -> Vec<Raw<B>> {
    let BatchNormInputs { input, scale, shift } = inputs;
    let maps = [gradient, input, normed.output].map(raw);
    let values = [scale, shift, normed.mean, normed.variance].map(raw);
    maps.into_iter().chain(values).collect()
}

impl<B: OnCuda, P: Precision> Kernels<B> for Cudnn<P> {
    const ACTIVATION_DTYPE: Option<FloatDType> = P::MAPS;
    const IS_ASYNC: bool = true;

    fn conv2d(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        let [output] = run::<B, 1>(Operation::Conv { window, math: P::MATH }, vec![raw(input), raw(weight)]);
        wrap(output)
    }

    fn conv2d_for_training(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> [Tensor<B, 4>; 3] {
        let [is_full, has_full_output] = [1, 0].map(|axis| weight.dims()[axis].is_multiple_of(multiple(input.dtype())));
        // A weight that is filled up is not of its shape any more: each pass does it.
        if !is_full {
            let operation = Operation::ConvFilling { window, math: P::MATH };
            let [output, filled] = run::<B, 2>(operation, vec![raw(input), raw(weight.clone())]);
            return [wrap(output), wrap(filled), weight];
        }
        if !has_full_output {
            return [Self::conv2d(input.clone(), weight.clone(), window), input, weight];
        }
        let operation = Operation::ConvPacking { window, math: P::MATH };
        let [output, packed] = run::<B, 2>(operation, vec![raw(input.clone()), raw(weight)]);
        [wrap(output), input, wrap(packed)]
    }

    fn conv2d_input_backward(
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
        size: [usize; 2],
    ) -> Tensor<B, 4> {
        let operation = Operation::ConvInputGradient { window, size, math: P::MATH };
        let [output] = run::<B, 1>(operation, vec![raw(gradient), raw(weight)]);
        wrap(output)
    }

    fn conv2d_weight_backward(
        input: Tensor<B, 4>,
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
    ) -> Tensor<B, 4> {
        let [_, inputs, ..] = weight.dims();
        let operation = Operation::ConvWeightGradient { window, inputs, math: P::MATH };
        let [output] = run::<B, 1>(operation, vec![raw(input), raw(gradient)]);
        let output = wrap::<B, 4>(output);
        if weight.dtype() == DType::F32 { output } else { output.cast(weight.dtype()) }
    }

    fn conv2d_fused(
        input: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        bias: Tensor<B, 1>,
        window: Window,
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        let output = Self::conv2d(input, weight, window);
        let mut inputs = vec![raw(output), raw(bias)];
        inputs.extend(residual.map(raw));
        let [output] = run::<B, 1>(Operation::Finish { relu }, inputs);
        wrap(output)
    }

    fn batch_norm(inputs: BatchNormInputs<B>, residual: Option<Tensor<B, 4>>, relu: bool) -> BatchNormOutput<B> {
        let BatchNormInputs { input, scale, shift } = inputs;
        let mut inputs = vec![raw(input), raw(scale), raw(shift)];
        inputs.extend(residual.map(raw));
        let [output, mean, variance] = run::<B, 3>(Operation::Norm { relu }, inputs);
        BatchNormOutput { output: wrap(output), mean: wrap(mean), variance: wrap(variance) }
    }

    fn batch_norm_stats(input: Tensor<B, 4>) -> [Tensor<B, 1>; 2] {
        run::<B, 2>(Operation::NormStatistics, vec![raw(input)]).map(wrap)
    }

    fn batch_norm_elemt(
        inputs: BatchNormInputs<B>,
        [mean, variance]: [Tensor<B, 1>; 2],
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        let BatchNormInputs { input, scale, shift } = inputs;
        let mut inputs = vec![raw(input), raw(scale), raw(shift), raw(mean), raw(variance)];
        inputs.extend(residual.map(raw));
        let [output] = run::<B, 1>(Operation::NormWith { relu }, inputs);
        wrap(output)
    }

    fn batch_norm_backward(
        inputs: BatchNormInputs<B>,
        normed: BatchNormOutput<B>,
        has_residual: bool,
        relu: bool,
        gradient: Tensor<B, 4>,
    ) -> BatchNormGradients<B> {
        let operation = Operation::NormGradient { relu, residual: has_residual };
        let inputs = backward(BatchNormBackward { inputs, normed, has_residual, relu, gradient });
        let mut outputs = B::run(operation, inputs).into_iter();
        let mut next = || outputs.next().expect("three gradients");
        let (input, scale, shift) = (wrap(next()), wrap(next()), wrap(next()));
        BatchNormGradients { input, scale, shift, residual: outputs.next().map(wrap) }
    }

    fn batch_norm_backward_reduce(of: BatchNormBackward<B>) -> [Tensor<B, 1>; 2] {
        let operation = Operation::NormSums { relu: of.relu, residual: of.has_residual };
        run::<B, 2>(operation, backward(of)).map(wrap)
    }

    fn batch_norm_backward_elemt(
        of: BatchNormBackward<B>,
        sums: [Tensor<B, 1>; 2],
        count: usize,
    ) -> (Tensor<B, 4>, Option<Tensor<B, 4>>) {
        let operation = Operation::NormGradientWith { relu: of.relu, residual: of.has_residual, count };
        let mut inputs = backward(of);
        inputs.extend(sums.map(raw));
        let mut outputs = B::run(operation, inputs).into_iter().map(wrap);
        (outputs.next().expect("the input has a gradient"), outputs.next())
    }

    fn max_pool2d(input: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        let [output, _] = run::<B, 2>(Operation::MaxPool { window }, vec![raw(input)]);
        wrap(output)
    }

    fn global_mean(input: Tensor<B, 4>) -> Tensor<B, 2> {
        let [output] = run::<B, 1>(Operation::GlobalMean, vec![raw(input)]);
        wrap(output)
    }

    fn linear(input: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
        let mut inputs = vec![raw(input), raw(weight)];
        inputs.extend(bias.map(raw));
        let [output] = run::<B, 1>(Operation::Product { transposed: [false, true], math: P::MATH }, inputs);
        wrap(output)
    }

    fn sum(left: Tensor<B, 4>, right: Tensor<B, 4>) -> Tensor<B, 4> {
        let [output] = run::<B, 1>(Operation::Sum, vec![raw(left), raw(right)]);
        wrap(output)
    }

    fn upload(values: Vec<f32>, dims: [usize; 4], device: &B::Device) -> Tensor<B, 4> {
        wrap(B::upload(values, dims, device))
    }

    fn read_later(values: Tensor<B, 1>) -> Reading {
        B::read_later(raw(values))
    }

    fn check() -> Result<(), String> {
        job::check().map_err(|error| error.to_string())
    }
}

impl<B: OnCuda, P: Precision> LinAlg<B> for Cudnn<P> {
    fn bmm(left: Tensor<B, 3>, right: Tensor<B, 3>, transposed: [bool; 2]) -> Tensor<B, 3> {
        let [output] = run::<B, 1>(Operation::Products { transposed }, vec![raw(left), raw(right)]);
        wrap(output)
    }

    fn cholesky_inverse_logdet(matrices: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 1>) {
        let [inverses, logarithms] = run::<B, 2>(Operation::Inverses, vec![raw(matrices)]);
        (wrap(inverses), wrap(logarithms))
    }

    fn squared_norms(vectors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        let [squares] = run::<B, 1>(Operation::Squares, vectors.into_iter().map(raw).collect());
        wrap(squares)
    }

    fn update_running_stats(statistics: Vec<Running<B>>) -> Vec<Tensor<B, 1>> {
        if statistics.is_empty() {
            return Vec::new();
        }
        let factors = statistics.iter().map(|one| one.factor as f32).collect();
        let inputs = statistics.into_iter().flat_map(|one| [raw(one.value), raw(one.batch)]).collect();
        B::run(Operation::Running { factors }, inputs).into_iter().map(wrap).collect()
    }

    fn joined(vectors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        let [joined] = run::<B, 1>(Operation::Join, vectors.into_iter().map(raw).collect());
        wrap(joined)
    }

    fn similarity(projections: Tensor<B, 3>) -> Tensor<B, 1> {
        let [similarity] = run::<B, 1>(Operation::Similarity, vec![raw(projections)]);
        wrap(similarity)
    }
}
