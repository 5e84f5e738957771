//! The inputs and outputs of batch norm's passes.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::ConvOptions;

use crate::plan::Window;

/// The inputs of a batch norm.
#[derive(Debug, Clone)]
pub struct BatchNormInputs<B: Backend> {
    /// The map, `[row, channel, height, width]`.
    pub input: Tensor<B, 4>,
    /// The scale of each channel.
    pub scale: Tensor<B, 1>,
    /// The shift of each channel.
    pub shift: Tensor<B, 1>,
}

/// The outputs of a batch norm. Mean and variance carry no gradient.
#[derive(Debug, Clone)]
pub struct BatchNormOutput<B: Backend> {
    /// The output map, after residual and ReLU.
    pub output: Tensor<B, 4>,
    /// The mean of each channel.
    pub mean: Tensor<B, 1>,
    /// The biased variance of each channel.
    pub variance: Tensor<B, 1>,
}

/// The inputs of batch norm's backward pass.
#[derive(Debug, Clone)]
pub struct BatchNormBackward<B: Backend> {
    /// The inputs of the forward pass.
    pub inputs: BatchNormInputs<B>,
    /// The outputs of the forward pass.
    pub normed: BatchNormOutput<B>,
    /// Whether the forward pass added a residual.
    pub has_residual: bool,
    /// Whether the forward pass applied a ReLU.
    pub relu: bool,
    /// The gradient of the output.
    pub gradient: Tensor<B, 4>,
}

/// The gradients of a batch norm.
#[derive(Debug, Clone)]
pub struct BatchNormGradients<B: Backend> {
    /// The gradient of the input.
    pub input: Tensor<B, 4>,
    /// The gradient of the scale.
    pub scale: Tensor<B, 1>,
    /// The gradient of the shift.
    pub shift: Tensor<B, 1>,
    /// The gradient of the residual, if any.
    pub residual: Option<Tensor<B, 4>>,
}

pub(super) fn options(window: Window) -> ConvOptions<2> {
    ConvOptions::new(window.stride, window.padding, [1, 1], 1)
}

/// Reshapes `[channel]` to `[1, channel, 1, 1]`.
pub(super) fn along_channels<B: Backend>(values: Tensor<B, 1>) -> Tensor<B, 4> {
    let [channels] = values.dims();
    values.reshape([1, channels, 1, 1])
}

/// Returns the mean of each channel over rows, height and width.
pub(super) fn channel_mean<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 1> {
    let [_, channels, ..] = map.dims();
    map.mean_dim(3).mean_dim(2).mean_dim(0).reshape([channels])
}
