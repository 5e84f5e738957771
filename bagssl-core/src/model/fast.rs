//! Connects this project's CPU kernels to Burn's ndarray backend.

use std::borrow::Cow;
use std::prelude::v1::*;

use burn::tensor::{Tensor, TensorPrimitive};
use burn_ndarray::{NdArray, NdArrayTensor, SharedArray};

use super::batch_norm::{BatchNormGradients, BatchNormInputs, BatchNormOutput};
use super::kernels::Kernels;
use crate::cpu::ops::{Convolution, Processor, View};
use crate::cpu::{InstructionSet, with_threads};
use crate::plan::Window;

/// Kernels for Burn's ndarray backend in f32: convolution, batch norm and global mean. Convolution
/// and batch norm use [`cpu::ops`](crate::cpu::ops) on the threads of [`with_threads`].
///
/// Maps have the shape `[row, channel, height, width]` in Burn but are channels-last in memory, so
/// no data moves between consecutive operations.
///
/// # Panics
/// Like Burn's own operations, if shapes do not match.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuFast;

type B = NdArray<f32>;

/// The reason why operations on shapes of a plan cannot fail.
const FITS: &str = "the shapes of a checked plan fit";

impl Kernels<B> for CpuFast {
    fn conv2d(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        convolve(input, weight, None, window, None, false)
    }

    fn conv2d_input_backward(
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
        size: [usize; 2],
    ) -> Tensor<B, 4> {
        let conv = convolution(&weight, window);
        let (gradient, weight) = (Map::new(gradient), flat(weight));
        let values = on_processor(|processor| processor.conv2d_input_backward(gradient.view(), &weight, conv, size));
        let [images, ..] = gradient.shape;
        map(values.expect(FITS), [images, size[0], size[1], conv.inputs])
    }

    fn conv2d_weight_backward(
        input: Tensor<B, 4>,
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
    ) -> Tensor<B, 4> {
        let conv = convolution(&weight, window);
        let (input, gradient) = (Map::new(input), Map::new(gradient));
        let values = on_processor(|processor| processor.conv2d_weight_gradient(input.view(), gradient.view(), conv));
        tensor(values.expect(FITS), weight.dims())
    }

    fn conv2d_fused(
        input: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        bias: Tensor<B, 1>,
        window: Window,
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        convolve(input, weight, Some(bias), window, residual, relu)
    }

    fn batch_norm(inputs: BatchNormInputs<B>, residual: Option<Tensor<B, 4>>, relu: bool) -> BatchNormOutput<B> {
        let input = Map::new(inputs.input);
        let (scale, shift) = (flat(inputs.scale), flat(inputs.shift));
        let residual = residual.map(Map::new);
        let normed = on_processor(|processor| {
            processor.norm(input.view(), &scale, &shift, residual.as_ref().map(Map::view), relu)
        })
        .expect(FITS);
        let channels = [input.shape[3]];
        BatchNormOutput {
            output: map(normed.output, input.shape),
            mean: tensor(normed.mean, channels),
            variance: tensor(normed.variance, channels),
        }
    }

    fn batch_norm_backward(
        inputs: BatchNormInputs<B>,
        normed: BatchNormOutput<B>,
        has_residual: bool,
        relu: bool,
        gradient: Tensor<B, 4>,
    ) -> BatchNormGradients<B> {
        let (input, output, gradient) = (Map::new(inputs.input), Map::new(normed.output), Map::new(gradient));
        let [scale, mean, variance] = [inputs.scale, normed.mean, normed.variance].map(flat);
        let gradients = on_processor(|processor| {
            let normed = (output.view(), &mean[..], &variance[..]);
            processor.norm_gradient(input.view(), &scale, normed, has_residual, relu, gradient.view())
        })
        .expect(FITS);
        let channels = [input.shape[3]];
        BatchNormGradients {
            input: map(gradients.input, input.shape),
            scale: tensor(gradients.scale, channels),
            shift: tensor(gradients.shift, channels),
            residual: gradients.residual.map(|residual| map(residual, input.shape)),
        }
    }

    fn global_mean(input: Tensor<B, 4>) -> Tensor<B, 2> {
        let input = Map::new(input);
        let [images, height, width, channels] = input.shape;
        let share = 1.0 / (height * width) as f32;
        let mut means = vec![0.0; images * channels];
        let pixels = input.view();
        for (image, means) in means.chunks_exact_mut(channels).enumerate() {
            let pixels = &pixels.values()[image * height * width * channels..][..height * width * channels];
            for pixel in pixels.chunks_exact(channels) {
                means.iter_mut().zip(pixel).for_each(|(mean, value)| *mean += value);
            }
            means.iter_mut().for_each(|mean| *mean *= share);
        }
        tensor(means, [images, channels])
    }
}

fn convolve(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Option<Tensor<B, 1>>,
    window: Window,
    residual: Option<Tensor<B, 4>>,
    relu: bool,
) -> Tensor<B, 4> {
    let conv = convolution(&weight, window);
    let (input, weight, bias, residual) = (Map::new(input), flat(weight), bias.map(flat), residual.map(Map::new));
    let [images, height, width, _] = input.shape;
    let values = on_processor(|processor| {
        let residual = residual.as_ref().map(Map::view);
        processor.conv2d(input.view(), &weight, conv, bias.as_deref(), residual, relu)
    });
    let [height, width] = window.output([height, width]).expect(FITS);
    map(values.expect(FITS), [images, height, width, conv.outputs])
}

fn convolution(weight: &Tensor<B, 4>, window: Window) -> Convolution {
    let [outputs, inputs, ..] = weight.dims();
    Convolution { window, inputs, outputs }
}

fn on_processor<T>(operation: impl FnOnce(Processor<'_>) -> T) -> T {
    with_threads(|threads| operation(Processor::new(InstructionSet::best(), threads).expect("the best one is there")))
}

fn array<const D: usize>(tensor: Tensor<B, D>) -> SharedArray<f32> {
    let NdArrayTensor::F32(storage) = tensor.into_primitive().tensor() else {
        unreachable!("a backend of f32 has no other floats")
    };
    storage.into_shared()
}

/// Returns the values of a tensor in row-major order.
fn flat<const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let array = array(tensor);
    match array.as_slice() {
        Some(values) => values.to_vec(),
        None => array.iter().copied().collect(),
    }
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<B, D> {
    let array = SharedArray::from_shape_vec(shape.to_vec(), values).expect("as many values as the shape says");
    Tensor::from_primitive(TensorPrimitive::Float(array.into()))
}

/// Creates a tensor `[row, channel, height, width]` that is stored as
/// `[row, height, width, channel]`.
fn map(values: Vec<f32>, shape: [usize; 4]) -> Tensor<B, 4> {
    let array = SharedArray::from_shape_vec(shape.to_vec(), values).expect("as many values as the shape says");
    let array = array.permuted_axes(vec![0, 3, 1, 2]);
    Tensor::from_primitive(TensorPrimitive::Float(array.into()))
}

/// A tensor's values in channels-last order.
struct Map {
    values: SharedArray<f32>,
    shape: [usize; 4],
}

impl Map {
    fn new(tensor: Tensor<B, 4>) -> Self {
        let [rows, channels, height, width] = tensor.dims();
        let values = array(tensor).permuted_axes(vec![0, 2, 3, 1]);
        let shape = [rows, height, width, channels];
        if values.is_standard_layout() {
            return Map { values, shape };
        }
        let mut moved = Vec::with_capacity(values.len());
        let first = values.view().permuted_axes(vec![0, 3, 1, 2]);
        let planes: Cow<'_, [f32]> = match first.as_slice() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(first.iter().copied().collect()),
        };
        for image in planes.chunks_exact((channels * height * width).max(1)) {
            for pixel in 0..height * width {
                moved.extend(image[pixel..].iter().step_by(height * width));
            }
        }
        let values = SharedArray::from_shape_vec(shape.to_vec(), moved).expect("as many values as before");
        Map { values, shape }
    }

    fn view(&self) -> View<'_> {
        let values = self.values.as_slice().expect("in standard layout");
        View::new(values, self.shape).expect("no map is empty")
    }
}
