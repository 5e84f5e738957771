//! The operations of a network, and Burn's stock implementation of them.

use std::prelude::v1::*;

use burn::tensor::activation::relu as stock_relu;
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorData, TensorPrimitive, module};

use super::batch_norm::{
    BatchNormBackward, BatchNormGradients, BatchNormInputs, BatchNormOutput, along_channels, channel_mean, options,
};
use super::gradient;
use super::pad_narrow::pad_narrow;
use crate::plan::{NORM_EPSILON, Window};

/// The operations that networks are made of, and the passes that lead their gradients back.
///
/// Every body has a default in Burn's own operations, so an implementation overrides what it does faster. The marker
/// is a type of one's own, which lets any crate implement this trait for any backend. [`Stock`] takes all defaults;
/// [`Differentiable`](super::Differentiable) joins the passes of an implementation to Burn's autodiff.
///
/// # Shapes
/// Maps are `[row, channel, height, width]`, a row being one patch of one image; a convolution's weight is
/// `[outputs, inputs, height, width]`.
pub trait Kernels<B: Backend>: Copy + Default + core::fmt::Debug + Send + Sync + 'static {
    /// The type that maps are cast to where a network is entered, if they are. Weights keep theirs: a convolution's output
    /// and its input's gradient have the type of the map, its weight's gradient that of the weight; rows and the
    /// statistics of a norm are f32.
    const ACTIVATION_DTYPE: Option<FloatDType> = None;

    /// Whether work is queued and reading waits for it, so that it pays to read late.
    const IS_ASYNC: bool = false;

    /// The convolution (as deep learning has it: a correlation) of a map, without a bias.
    fn conv2d(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        module::conv2d(input, weight, None, options(window))
    }

    /// What [`Kernels::conv2d`] gives, then what stands for the input in [`Kernels::conv2d_weight_backward`] and for the weight in
    /// [`Kernels::conv2d_input_backward`]: these themselves, or what has been made of them for this pass and need not be made
    /// again.
    fn conv2d_for_training(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> [Tensor<B, 4>; 3] {
        [Self::conv2d(input.clone(), weight.clone(), window), input, weight]
    }

    /// The gradient of the convolution's input, whose `[height, width]` is `size`.
    fn conv2d_input_backward(
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
        size: [usize; 2],
    ) -> Tensor<B, 4> {
        gradient::conv2d_input(gradient, weight, window, size)
    }

    /// The gradient of the convolution's weight; `weight` itself gives the shape.
    fn conv2d_weight_backward(
        input: Tensor<B, 4>,
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
    ) -> Tensor<B, 4> {
        let [input, gradient, weight] = [input, gradient, weight].map(|tensor| tensor.into_primitive().tensor());
        let gradient = B::conv2d_weight_backward(input, weight, gradient, options(window));
        Tensor::from_primitive(TensorPrimitive::Float(gradient))
    }

    /// The convolution of inference: `relu?(conv(input) + bias + residual?)`.
    fn conv2d_fused(
        input: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        bias: Tensor<B, 1>,
        window: Window,
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        let output = Self::conv2d(input, weight, window) + along_channels(bias);
        finish(output, residual, relu)
    }

    /// The batch norm of training: `relu?(scale * (input - mean) / sqrt(variance + epsilon) + shift + residual?)`, the
    /// mean and the (biased) variance taken over rows, height and width.
    fn batch_norm(inputs: BatchNormInputs<B>, residual: Option<Tensor<B, 4>>, relu: bool) -> BatchNormOutput<B> {
        let [mean, variance] = Self::batch_norm_stats(inputs.input.clone());
        let output = Self::batch_norm_elemt(inputs, [mean.clone(), variance.clone()], residual, relu);
        BatchNormOutput { output, mean: mean.detach(), variance: variance.detach() }
    }

    /// Mean and (biased) variance of each channel, over rows, height and width.
    fn batch_norm_stats(input: Tensor<B, 4>) -> [Tensor<B, 1>; 2] {
        let mean = channel_mean(input.clone());
        let centered = input - along_channels(mean.clone());
        [mean, channel_mean(centered.clone() * centered)]
    }

    /// What [`Kernels::batch_norm`] puts out, with a mean and a variance that may be those of more than this batch.
    fn batch_norm_elemt(
        inputs: BatchNormInputs<B>,
        [mean, variance]: [Tensor<B, 1>; 2],
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        let BatchNormInputs { input, scale, shift } = inputs;
        // Divided, not times `recip`: that of burn-ndarray is an approximation to 12 or 14 bits for some of the values.
        let factor = scale / (variance + NORM_EPSILON).sqrt();
        let output = (input - along_channels(mean)) * along_channels(factor) + along_channels(shift);
        finish(output, residual, relu)
    }

    /// The gradients of [`Kernels::batch_norm`]. `normed` is what it gave, `gradient` that of its output.
    fn batch_norm_backward(
        inputs: BatchNormInputs<B>,
        normed: BatchNormOutput<B>,
        has_residual: bool,
        relu: bool,
        gradient: Tensor<B, 4>,
    ) -> BatchNormGradients<B> {
        let [rows, _, height, width] = inputs.input.dims();
        let backward = BatchNormBackward { inputs, normed, has_residual, relu, gradient };
        let [scale, shift] = Self::batch_norm_backward_reduce(backward.clone());
        let sums = [scale.clone(), shift.clone()];
        let (input, residual) = Self::batch_norm_backward_elemt(backward, sums, rows * height * width);
        BatchNormGradients { input, scale, shift, residual }
    }

    /// The gradients of scale and shift alone, which are sums over the batch.
    fn batch_norm_backward_reduce(backward: BatchNormBackward<B>) -> [Tensor<B, 1>; 2] {
        gradient::batch_norm_reduce(backward)
    }

    /// The gradients of the input and, if there was one, of the residual, from sums over all `count` values of a channel that
    /// the statistics were taken over.
    fn batch_norm_backward_elemt(
        backward: BatchNormBackward<B>,
        sums: [Tensor<B, 1>; 2],
        count: usize,
    ) -> (Tensor<B, 4>, Option<Tensor<B, 4>>) {
        gradient::batch_norm_elemt(backward, sums, count)
    }

    /// The batches like the one at hand that the statistics of a norm are taken over: more than one where workers share a
    /// batch.
    fn batches() -> usize {
        1
    }

    /// The maximum over a window. (In slices, since Burn's candle backend knows neither padding nor a gradient here.)
    ///
    /// # Panics
    /// If the window does not fit.
    fn max_pool2d(input: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        max_along(max_along(input, window, 0), window, 1)
    }

    /// The mean over height and width: `[row, channel]`.
    fn global_mean(input: Tensor<B, 4>) -> Tensor<B, 2> {
        let [rows, channels, height, width] = input.dims();
        input.reshape([rows, channels, height * width]).mean_dim(2).reshape([rows, channels])
    }

    /// `input @ weight^T + bias?`: `[row, inputs]` times `[outputs, inputs]` gives `[row, outputs]`.
    fn linear(input: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
        let output = input.matmul(weight.transpose());
        match bias {
            Some(bias) => output + bias.unsqueeze(),
            None => output,
        }
    }

    /// The sum of two maps: of gradients that meet where a value has two readers.
    fn sum(left: Tensor<B, 4>, right: Tensor<B, 4>) -> Tensor<B, 4> {
        left + right
    }

    /// Brings a map's values, in the order of its dimensions, to the device. Where work is queued, so is this.
    ///
    /// # Panics
    /// If there are more or fewer values.
    fn upload(values: Vec<f32>, dims: [usize; 4], device: &B::Device) -> Tensor<B, 4> {
        Tensor::from_data(TensorData::new(values, dims), device)
    }

    /// Begins to read values to the host. Where work is queued ([`Kernels::IS_ASYNC`]) the copy is queued now, before all that
    /// comes later, and [`Reading::wait`] waits for it alone.
    fn read_later(values: Tensor<B, 1>) -> Reading {
        Reading::new(move || Ok(values.into_data().convert::<f32>().into_vec().expect("converted to f32")))
    }

    /// What went wrong in work that was queued, where an implementation queues work of its own. To be asked after values
    /// have been read to the host, which are worth nothing if this fails.
    ///
    /// # Errors
    /// The first error since the last call, as one line.
    fn check() -> core::result::Result<(), String> {
        Ok(())
    }
}

/// Burn's own operations, on any backend, with or without autodiff.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stock;

impl<B: Backend> Kernels<B> for Stock {}

/// Values on their way to the host.
pub struct Reading(Box<dyn FnOnce() -> core::result::Result<Vec<f32>, String> + Send>);

impl Reading {
    /// Values that `wait` waits for.
    pub fn new(wait: impl FnOnce() -> core::result::Result<Vec<f32>, String> + Send + 'static) -> Self {
        Reading(Box::new(wait))
    }

    /// Waits for the values.
    ///
    /// # Errors
    /// One line if they cannot be read.
    pub fn wait(self) -> core::result::Result<Vec<f32>, String> {
        (self.0)()
    }
}

impl core::fmt::Debug for Reading {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Reading")
    }
}

fn finish<B: Backend>(output: Tensor<B, 4>, residual: Option<Tensor<B, 4>>, relu: bool) -> Tensor<B, 4> {
    let output = match residual {
        Some(residual) => output + residual,
        None => output,
    };
    if relu { stock_relu(output) } else { output }
}

/// The maximum over the window's extent in one direction: over its taps, each a slice of every `stride`-th pixel.
fn max_along<B: Backend>(input: Tensor<B, 4>, window: Window, direction: usize) -> Tensor<B, 4> {
    let axis = direction + 2;
    let (kernel, stride, padding) = (window.kernel[direction], window.stride[direction], window.padding[direction]);
    let have = input.dims()[axis];
    assert!(have + 2 * padding >= kernel, "a window of {kernel} does not fit into {have} pixels");
    let outputs = (have + 2 * padding - kernel) / stride + 1;
    // Long enough that every tap's slice ends with a whole stride.
    let length = (kernel - 1) / stride * stride + (outputs + 1) * stride;
    let padded = pad_narrow(input, axis, -(padding as isize), length, f32::MIN);
    let strided = |tap: usize| {
        let part = padded.clone().narrow(axis, tap / stride * stride, outputs * stride);
        let mut split = [0; 5];
        split[..axis].copy_from_slice(&part.dims()[..axis]);
        (split[axis], split[axis + 1]) = (outputs, stride);
        split[axis + 2..].copy_from_slice(&part.dims()[axis + 1..]);
        part.reshape(split).narrow(axis + 1, tap % stride, 1).squeeze_dim::<4>(axis + 1)
    };
    (1..kernel).fold(strided(0), |most, tap| most.max_pair(strided(tap)))
}
