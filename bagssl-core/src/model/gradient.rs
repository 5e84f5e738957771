//! The gradients of convolution and batch norm in Burn's operations.

use std::prelude::v1::*;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, module};

use super::batch_norm::{BatchNormBackward, along_channels, channel_mean, options};
use super::pad_narrow::pad_narrow;
use crate::network::strided_conv_grad::Phase;
use crate::plan::{NORM_EPSILON, Window};

/// Computes the gradient of a convolution's input by convolutions: one per phase of the stride,
/// with the kernel taps that reach the phase. (Stock autodiff uses a transposed convolution, which
/// is 2 to 50 times slower on the CPU backends.)
pub(super) fn conv2d_input<B: Backend>(
    gradient: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    window: Window,
    size: [usize; 2],
) -> Tensor<B, 4> {
    let weight = weight.swap_dims(0, 1);
    let phases = |axis: usize| (0..window.stride[axis]).map(move |phase| Phase::new(window, axis, phase, size[axis]));
    let columns = |row: Phase| -> Vec<Tensor<B, 4>> {
        phases(1).map(|column| one_phase(gradient.clone(), weight.clone(), [row, column])).collect()
    };
    let rows = phases(0).map(|row| interleave(columns(row), 3, size[1])).collect();
    interleave(rows, 2, size[0])
}

/// The operations of a phase on Burn's tensors.
impl Phase {
    /// Returns the part of the gradient that these pixels read, padded with zeros beyond its edges.
    fn reads<B: Backend>(self, gradient: Tensor<B, 4>, axis: usize) -> Tensor<B, 4> {
        pad_narrow(gradient, axis, -self.before, self.length + self.taps - 1, 0.0)
    }

    /// Returns the taps of a kernel in the order of a correlation: last first.
    fn of_kernel<B: Backend>(self, kernel: &Tensor<B, 4>, axis: usize) -> Tensor<B, 4> {
        let taps = (0..self.taps).rev().map(|tap| kernel.clone().narrow(axis, self.tap + tap * self.stride, 1));
        Tensor::cat(taps.collect(), axis)
    }
}

fn one_phase<B: Backend>(gradient: Tensor<B, 4>, weight: Tensor<B, 4>, phases: [Phase; 2]) -> Tensor<B, 4> {
    let device = gradient.device();
    let ([rows, ..], [inputs, ..]) = (gradient.dims(), weight.dims());
    let [down, across] = phases;
    if phases.iter().any(|phase| phase.taps == 0 || phase.length == 0) {
        return Tensor::zeros([rows, inputs, down.length, across.length], &device);
    }
    let kernel = across.of_kernel(&down.of_kernel(&weight, 2), 3);
    let gradient = down.reads(across.reads(gradient, 3), 2);
    module::conv2d(
        gradient,
        kernel,
        None,
        options(Window { kernel: [down.taps, across.taps], ..Window::square(1, 1, 0) }),
    )
}

/// Interleaves the phases of an axis: pixel `stride * i + phase`. Later phases may be a pixel
/// shorter.
fn interleave<B: Backend>(mut phases: Vec<Tensor<B, 4>>, axis: usize, size: usize) -> Tensor<B, 4> {
    let stride = phases.len();
    if stride == 1 {
        return phases.remove(0);
    }
    let longest = phases[0].dims()[axis];
    let filled = phases.into_iter().map(|phase| {
        let mut dims = phase.dims();
        dims[axis] = longest - dims[axis];
        let phase = if dims[axis] == 0 {
            phase
        } else {
            let zeros = Tensor::zeros(dims, &phase.device());
            Tensor::cat(vec![phase, zeros], axis)
        };
        phase.unsqueeze_dim::<5>(axis + 1)
    });
    let joined: Tensor<B, 5> = Tensor::cat(filled.collect(), axis + 1);
    let mut dims = joined.narrow_dims(axis);
    dims[axis] = longest * stride;
    joined.reshape(dims).narrow(axis, 0, size)
}

/// Returns the dimensions without the one after an axis.
trait NarrowDims {
    fn narrow_dims(&self, axis: usize) -> [usize; 4];
}

impl<B: Backend> NarrowDims for Tensor<B, 5> {
    fn narrow_dims(&self, axis: usize) -> [usize; 4] {
        let dims = self.dims();
        core::array::from_fn(|index| if index <= axis { dims[index] } else { dims[index + 1] })
    }
}

/// Returns the gradient of the sum `scale * standard + shift`, and the standardized input.
fn parts<B: Backend>(backward: BatchNormBackward<B>) -> [Tensor<B, 4>; 2] {
    let BatchNormBackward { inputs, normed, relu, gradient, .. } = backward;
    let gradient = if relu { gradient.mask_fill(normed.output.lower_equal_elem(0.0), 0.0) } else { gradient };
    let deviation = (normed.variance + NORM_EPSILON).sqrt();
    [gradient, (inputs.input - along_channels(normed.mean)) / along_channels(deviation)]
}

/// Computes the gradients of scale and shift.
pub(super) fn batch_norm_reduce<B: Backend>(backward: BatchNormBackward<B>) -> [Tensor<B, 1>; 2] {
    let [rows, _, height, width] = backward.gradient.dims();
    let count = (rows * height * width) as f64;
    let [gradient, standard] = parts(backward);
    [channel_mean(gradient.clone() * standard) * count, channel_mean(gradient) * count]
}

/// Computes the gradients of input and residual.
///
/// # Source
/// Ioffe, Szegedy, *Batch Normalization*, ICML 2015, section 3.
pub(super) fn batch_norm_elemt<B: Backend>(
    backward: BatchNormBackward<B>,
    [scale, shift]: [Tensor<B, 1>; 2],
    count: usize,
) -> (Tensor<B, 4>, Option<Tensor<B, 4>>) {
    let (has_residual, count) = (backward.has_residual, count as f64);
    let factor = backward.inputs.scale.clone() / (backward.normed.variance.clone() + NORM_EPSILON).sqrt();
    let [gradient, standard] = parts(backward);
    let centered = gradient.clone() - along_channels(shift / count) - standard * along_channels(scale / count);
    (centered * along_channels(factor), has_residual.then_some(gradient))
}
