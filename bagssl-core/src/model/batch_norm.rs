//! What the passes of a batch norm read and give.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::ConvOptions;

use crate::plan::Window;

/// What a batch norm reads.
#[derive(Debug, Clone)]
pub struct BatchNormInputs<B: Backend> {
    /// The map, `[row, channel, height, width]`.
    pub input: Tensor<B, 4>,
    /// A factor for each channel.
    pub scale: Tensor<B, 1>,
    /// An offset for each channel.
    pub shift: Tensor<B, 1>,
}

/// What a batch norm gives. Mean and variance carry no gradient.
#[derive(Debug, Clone)]
pub struct BatchNormOutput<B: Backend> {
    /// The map, after residual and ReLU.
    pub output: Tensor<B, 4>,
    /// The mean of each channel.
    pub mean: Tensor<B, 1>,
    /// The variance of each channel, biased.
    pub variance: Tensor<B, 1>,
}

/// What the backward pass of a batch norm reads.
#[derive(Debug, Clone)]
pub struct BatchNormBackward<B: Backend> {
    /// What the norm read.
    pub inputs: BatchNormInputs<B>,
    /// What it gave.
    pub normed: BatchNormOutput<B>,
    /// Whether there was a residual.
    pub has_residual: bool,
    /// Whether there was a ReLU.
    pub relu: bool,
    /// The gradient of the output.
    pub gradient: Tensor<B, 4>,
}

/// The gradients of a batch norm.
#[derive(Debug, Clone)]
pub struct BatchNormGradients<B: Backend> {
    /// That of the input.
    pub input: Tensor<B, 4>,
    /// That of the scale.
    pub scale: Tensor<B, 1>,
    /// That of the shift.
    pub shift: Tensor<B, 1>,
    /// That of the residual, if there was one.
    pub residual: Option<Tensor<B, 4>>,
}

pub(super) fn options(window: Window) -> ConvOptions<2> {
    ConvOptions::new(window.stride, window.padding, [1, 1], 1)
}

/// `[channel]` as `[1, channel, 1, 1]`.
pub(super) fn along_channels<B: Backend>(values: Tensor<B, 1>) -> Tensor<B, 4> {
    let [channels] = values.dims();
    values.reshape([1, channels, 1, 1])
}

/// The mean of each channel over rows, height and width.
pub(super) fn channel_mean<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 1> {
    let [_, channels, ..] = map.dims();
    map.mean_dim(3).mean_dim(2).mean_dim(0).reshape([channels])
}
