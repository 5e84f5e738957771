//! Gradients of convolution and batch norm in Burn's operations.

use std::prelude::v1::*;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, module};

use super::kernels::{NormGradients, Normed, NormedInputs, along_channels, channel_mean, options};
use super::stretch::stretch;
use crate::phase::Phase;
use crate::plan::{NORM_EPSILON, Window};

/// The gradient of a convolution's input, as convolutions: one for each phase of the stride, with the taps of the kernel
/// that reach it. (Stock autodiff uses a transposed convolution, which is 2 to 50 times slower on the CPU backends.)
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

/// What a phase does with Burn's tensors.
impl Phase {
    /// The part of the gradient that these pixels read, with zeros where it reaches over an edge.
    fn reads<B: Backend>(self, gradient: Tensor<B, 4>, axis: usize) -> Tensor<B, 4> {
        stretch(gradient, axis, -self.before, self.length + self.taps - 1, 0.0)
    }

    /// The taps of a kernel in the order of a correlation: the last first.
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

/// Puts the phases of an axis together: pixel `stride * i + phase`. Later phases may be a pixel shorter.
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

/// Dims without the one after an axis.
trait NarrowDims {
    fn narrow_dims(&self, axis: usize) -> [usize; 4];
}

impl<B: Backend> NarrowDims for Tensor<B, 5> {
    fn narrow_dims(&self, axis: usize) -> [usize; 4] {
        let dims = self.dims();
        core::array::from_fn(|index| if index <= axis { dims[index] } else { dims[index + 1] })
    }
}

/// The gradients of a batch norm in training mode, with its ReLU and residual.
///
/// # Source
/// Ioffe, Szegedy, *Batch Normalization*, ICML 2015, section 3.
pub(super) fn norm<B: Backend>(
    inputs: NormedInputs<B>,
    normed: Normed<B>,
    has_residual: bool,
    relu: bool,
    gradient: Tensor<B, 4>,
) -> NormGradients<B> {
    let gradient = if relu { gradient.mask_fill(normed.output.lower_equal_elem(0.0), 0.0) } else { gradient };
    let NormedInputs { input, scale, .. } = inputs;
    let [rows, _, height, width] = input.dims();
    let count = (rows * height * width) as f64;

    let deviation = (normed.variance + NORM_EPSILON).sqrt();
    let standard = (input - along_channels(normed.mean)) / along_channels(deviation.clone());
    let mean = channel_mean(gradient.clone());
    let covariance = channel_mean(gradient.clone() * standard.clone());
    let centred = gradient.clone() - along_channels(mean.clone()) - standard * along_channels(covariance.clone());
    NormGradients {
        input: centred * along_channels(scale / deviation),
        scale: covariance * count,
        shift: mean * count,
        residual: has_residual.then_some(gradient),
    }
}
