//! The operations of a network, and their stock implementation by Burn.

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

/// The forward and backward operations of networks.
///
/// Every function has a default in Burn's own operations, so an implementation only overrides what
/// it does faster. The implementing type is a marker, so any crate can implement this trait for any
/// backend. [`Stock`] uses all defaults. [`Differentiable`](super::Differentiable) adds Burn's
/// autodiff to an implementation.
///
/// # Shapes
/// Maps are `[row, channel, height, width]`; a row is one patch of one image. A convolution's
/// weight is `[outputs, inputs, height, width]`.
pub trait Kernels<B: Backend>: Copy + Default + core::fmt::Debug + Send + Sync + 'static {
    /// The type to which a network casts its input maps, if any. Weights keep their type. The
    /// output of a convolution and the gradient of its input have the type of the map, the gradient
    /// of its weight has the type of the weight. Rows and the statistics of norms are f32.
    const ACTIVATION_DTYPE: Option<FloatDType> = None;

    /// Whether the device executes work asynchronously, so that reading values blocks and should be
    /// delayed.
    const IS_ASYNC: bool = false;

    /// Convolves a map, without a bias (a cross-correlation, as usual in deep learning).
    fn conv2d(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        module::conv2d(input, weight, None, options(window))
    }

    /// Returns the result of [`Kernels::conv2d`], then the input to pass to
    /// [`Kernels::conv2d_weight_backward`] and the weight to pass to
    /// [`Kernels::conv2d_input_backward`]. Both may be converted or packed forms, which then need
    /// not be computed again.
    fn conv2d_for_training(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> [Tensor<B, 4>; 3] {
        [Self::conv2d(input.clone(), weight.clone(), window), input, weight]
    }

    /// Computes the gradient of the convolution's input, whose `[height, width]` is `size`.
    fn conv2d_input_backward(
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
        size: [usize; 2],
    ) -> Tensor<B, 4> {
        gradient::conv2d_input(gradient, weight, window, size)
    }

    /// Computes the gradient of the convolution's weight. `weight` only supplies the shape.
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

    /// Computes the convolution of inference: `relu?(conv(input) + bias + residual?)`.
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

    /// Computes batch norm in training mode:
    /// `relu?(scale * (input - mean) / sqrt(variance + epsilon) + shift + residual?)`, with the
    /// mean and the biased variance over rows, height and width.
    fn batch_norm(inputs: BatchNormInputs<B>, residual: Option<Tensor<B, 4>>, relu: bool) -> BatchNormOutput<B> {
        let [mean, variance] = Self::batch_norm_stats(inputs.input.clone());
        let output = Self::batch_norm_elemt(inputs, [mean.clone(), variance.clone()], residual, relu);
        BatchNormOutput { output, mean: mean.detach(), variance: variance.detach() }
    }

    /// Returns the mean and the biased variance of each channel, over rows, height and width.
    fn batch_norm_stats(input: Tensor<B, 4>) -> [Tensor<B, 1>; 2] {
        let mean = channel_mean(input.clone());
        let centered = input - along_channels(mean.clone());
        [mean, channel_mean(centered.clone() * centered)]
    }

    /// Computes the output of [`Kernels::batch_norm`] from a given mean and variance, which may
    /// include other workers' batches.
    fn batch_norm_elemt(
        inputs: BatchNormInputs<B>,
        [mean, variance]: [Tensor<B, 1>; 2],
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        let BatchNormInputs { input, scale, shift } = inputs;
        // Divide instead of multiplying by `recip`: burn-ndarray's `recip` is accurate to only 12
        // or 14 bits for some of the values.
        let factor = scale / (variance + NORM_EPSILON).sqrt();
        let output = (input - along_channels(mean)) * along_channels(factor) + along_channels(shift);
        finish(output, residual, relu)
    }

    /// Computes the gradients of [`Kernels::batch_norm`]. `normed` is its output, `gradient` the
    /// gradient of that output.
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

    /// Computes only the gradients of scale and shift, which are sums over the batch.
    fn batch_norm_backward_reduce(backward: BatchNormBackward<B>) -> [Tensor<B, 1>; 2] {
        gradient::batch_norm_reduce(backward)
    }

    /// Computes the gradients of the input and of the residual, if any. `sums` are the gradients of
    /// scale and shift over all `count` values of a channel that the statistics include.
    fn batch_norm_backward_elemt(
        backward: BatchNormBackward<B>,
        sums: [Tensor<B, 1>; 2],
        count: usize,
    ) -> (Tensor<B, 4>, Option<Tensor<B, 4>>) {
        gradient::batch_norm_elemt(backward, sums, count)
    }

    /// Returns the number of batches of this size that the statistics of a norm include: more than
    /// one if workers share a batch.
    fn batches() -> usize {
        1
    }

    /// Computes the maximum over a window. The default uses slices, since Burn's candle backend
    /// supports neither padding nor gradients for this operation.
    ///
    /// # Panics
    /// If the window does not fit.
    fn max_pool2d(input: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        max_along(max_along(input, window, 0), window, 1)
    }

    /// Computes the mean over height and width: `[row, channel]`.
    fn global_mean(input: Tensor<B, 4>) -> Tensor<B, 2> {
        let [rows, channels, height, width] = input.dims();
        input.reshape([rows, channels, height * width]).mean_dim(2).reshape([rows, channels])
    }

    /// Computes `input @ weight^T + bias?`. `[row, inputs]` times `[outputs, inputs]` gives
    /// `[row, outputs]`.
    fn linear(input: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
        let output = input.matmul(weight.transpose());
        match bias {
            Some(bias) => output + bias.unsqueeze(),
            None => output,
        }
    }

    /// Adds two maps. Used for gradients of a value that two layers read.
    fn sum(left: Tensor<B, 4>, right: Tensor<B, 4>) -> Tensor<B, 4> {
        left + right
    }

    /// Copies a map's values, in the order of its dimensions, to the device. Asynchronous on
    /// devices with a queue.
    ///
    /// # Panics
    /// If the number of values does not match the dimensions.
    fn upload(values: Vec<f32>, dims: [usize; 4], device: &B::Device) -> Tensor<B, 4> {
        Tensor::from_data(TensorData::new(values, dims), device)
    }

    /// Starts to copy values to the host. If [`Kernels::IS_ASYNC`], the copy is queued now, before
    /// any later work, and [`Reading::wait`] waits only for it.
    fn read_later(values: Tensor<B, 1>) -> Reading {
        Reading::new(move || Ok(values.into_data().convert::<f32>().into_vec().expect("converted to f32")))
    }

    /// Checks for errors in asynchronous work that the implementation queued itself. Call it after
    /// reading values to the host; the values are invalid if it fails.
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

/// Values that are being copied to the host.
pub struct Reading(Box<dyn FnOnce() -> core::result::Result<Vec<f32>, String> + Send>);

impl Reading {
    /// Wraps a function that waits for the values and returns them.
    pub fn new(wait: impl FnOnce() -> core::result::Result<Vec<f32>, String> + Send + 'static) -> Self {
        Reading(Box::new(wait))
    }

    /// Waits for the values and returns them.
    ///
    /// # Errors
    /// One line with the reason if the values cannot be read.
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

/// The maximum over the window's extent in one direction: the maximum of its taps, each a slice of
/// every `stride`-th pixel.
fn max_along<B: Backend>(input: Tensor<B, 4>, window: Window, direction: usize) -> Tensor<B, 4> {
    let axis = direction + 2;
    let (kernel, stride, padding) = (window.kernel[direction], window.stride[direction], window.padding[direction]);
    let existing = input.dims()[axis];
    assert!(existing + 2 * padding >= kernel, "a kernel of size {kernel} does not fit {existing} pixels");
    let outputs = (existing + 2 * padding - kernel) / stride + 1;
    // Long enough that every tap's slice ends with a complete stride.
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
    (1..kernel).fold(strided(0), |max, tap| max.max_pair(strided(tap)))
}
