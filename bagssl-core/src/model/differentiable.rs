//! Integrates custom kernels into Burn's autodiff.

use std::prelude::v1::*;
use std::sync::Arc;

use core::fmt::Debug;
use core::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorPrimitive};

use super::batch_norm::{BatchNormInputs, BatchNormOutput};
use super::kernels::{Kernels, Reading, Stock};
use crate::plan::Window;
use crate::profile::span;

/// Makes the kernels `K` of a backend differentiable. Convolution and batch norm use the forward
/// and backward passes of `K`. Pooling, global mean and linear layers use Burn's operations, even
/// if `K` overrides them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Differentiable<K>(PhantomData<K>);

type Tracked<B> = <Autodiff<B> as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive;

fn open<B: Backend, const D: usize>(tensor: Tensor<Autodiff<B>, D>) -> Tracked<B> {
    tensor.into_primitive().tensor()
}

fn close<B: Backend, const D: usize>(tensor: Tracked<B>) -> Tensor<Autodiff<B>, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

fn raw<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> B::FloatTensorPrimitive {
    tensor.into_primitive().tensor()
}

fn wrap<B: Backend, const D: usize>(tensor: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

impl<B: Backend, K: Kernels<B>> Kernels<Autodiff<B>> for Differentiable<K> {
    const ACTIVATION_DTYPE: Option<FloatDType> = K::ACTIVATION_DTYPE;
    const IS_ASYNC: bool = K::IS_ASYNC;

    fn conv2d(input: Tensor<Autodiff<B>, 4>, weight: Tensor<Autodiff<B>, 4>, window: Window) -> Tensor<Autodiff<B>, 4> {
        let _span = span("convolution");
        let (input, weight) = (open(input), open(weight));
        let (map, plain) = (wrap(input.primitive.clone()), wrap(weight.primitive.clone()));
        let [output, map, packed] = K::conv2d_for_training(map, plain.clone(), window);
        let (output, state) = (raw(output), ConvState { input: map, weight: plain, packed, window });
        let nodes = [input.node, weight.node];
        close(match Conv::<K>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        })
    }

    fn batch_norm(
        inputs: BatchNormInputs<Autodiff<B>>,
        residual: Option<Tensor<Autodiff<B>, 4>>,
        relu: bool,
    ) -> BatchNormOutput<Autodiff<B>> {
        let _span = span("batch norm");
        // Keep these until the output is part of the graph: the backward pass of another thread may
        // free unreferenced nodes.
        let parents = [open(inputs.input), open(inputs.scale), open(inputs.shift)];
        let [input, scale, shift] = parents.each_ref().map(|parent| parent.primitive.clone());
        let inputs = BatchNormInputs { input: wrap(input), scale: wrap(scale), shift: wrap(shift) };
        let [input, scale, shift] = parents.each_ref().map(|parent| parent.node.clone());
        let residual = residual.map(open);
        let normed =
            K::batch_norm(inputs.clone(), residual.as_ref().map(|residual| wrap(residual.primitive.clone())), relu);
        let output = raw(normed.output.clone());
        let (mean, variance) = (normed.mean.clone(), normed.variance.clone());
        let state = (inputs, normed, relu);
        let output = match residual {
            Some(residual) => {
                let nodes = [input, scale, shift, residual.node];
                match Norm::<K>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
                    OpsKind::Tracked(prepared) => prepared.finish(state, output),
                    OpsKind::UnTracked(prepared) => prepared.finish(output),
                }
            }
            None => {
                let nodes = [input, scale, shift];
                match Norm::<K>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
                    OpsKind::Tracked(prepared) => prepared.finish(state, output),
                    OpsKind::UnTracked(prepared) => prepared.finish(output),
                }
            }
        };
        BatchNormOutput {
            output: close(output),
            mean: Tensor::from_inner(mean),
            variance: Tensor::from_inner(variance),
        }
    }

    fn global_mean(input: Tensor<Autodiff<B>, 4>) -> Tensor<Autodiff<B>, 2> {
        let _span = span("global mean");
        // Rows are f32, whatever the type of maps is.
        let input = if K::ACTIVATION_DTYPE.is_some() { input.cast(FloatDType::F32) } else { input };
        <Stock as Kernels<Autodiff<B>>>::global_mean(input)
    }

    fn batches() -> usize {
        K::batches()
    }

    fn upload(values: Vec<f32>, dims: [usize; 4], device: &B::Device) -> Tensor<Autodiff<B>, 4> {
        Tensor::from_inner(K::upload(values, dims, device))
    }

    fn read_later(values: Tensor<Autodiff<B>, 1>) -> Reading {
        K::read_later(values.inner())
    }

    fn check() -> core::result::Result<(), String> {
        K::check()
    }
}

/// Adds `part.primitive` to the gradient of `part.node`, a map. Uses [`Kernels::sum`], since Burn's
/// own addition iterates over channels-last maps in the order of their dimensions, which is slow
/// when memory-bound.
pub fn add_gradient<B: Backend, K: Kernels<B>>(gradients: &mut Gradients, part: Tracked<B>) {
    let sum = match gradients.remove::<B>(&part) {
        Some(before) => {
            let _span = span("sum of gradients");
            raw(K::sum(wrap(part.primitive), wrap(before)))
        }
        None => part.primitive,
    };
    gradients.register::<B>(part.node.id, sum);
}

#[derive(Debug)]
struct Conv<K>(PhantomData<K>);

#[derive(Debug, Clone)]
struct ConvState<B: Backend> {
    /// What stands for the input in the gradient of the weight.
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    /// The form of the weight for the gradient of the input.
    packed: Tensor<B, 4>,
    window: Window,
}

impl<B: Backend, K: Kernels<B>> Backward<B, 2> for Conv<K> {
    type State = ConvState<B>;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let ConvState { input, weight, packed, window } = ops.state;
        let gradient: Tensor<B, 4> = wrap(gradients.consume::<B>(&ops.node));
        let [to_input, to_weight] = ops.parents;
        if let Some(node) = to_input {
            let [_, _, height, width] = input.dims();
            let primitive = {
                let _span = span("convolution, gradient of its input");
                raw(K::conv2d_input_backward(gradient.clone(), packed, window, [height, width]))
            };
            let rc = Arc::new(node.id);
            add_gradient::<B, K>(gradients, Tracked::<B> { primitive, node, rc });
        }
        if let Some(node) = to_weight {
            let _span = span("convolution, gradient of its weight");
            gradients.register::<B>(node.id, raw(K::conv2d_weight_backward(input, gradient, weight, window)));
        }
    }
}

#[derive(Debug)]
struct Norm<K>(PhantomData<K>);

/// The parents are input, scale, shift and, if there are four, the residual.
impl<B: Backend, K: Kernels<B>, const N: usize> Backward<B, N> for Norm<K> {
    type State = (BatchNormInputs<B>, BatchNormOutput<B>, bool);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (inputs, normed, relu) = ops.state;
        let gradient = wrap(gradients.consume::<B>(&ops.node));
        let parts = {
            let _span = span("batch norm, its gradients");
            K::batch_norm_backward(inputs, normed, N == 4, relu, gradient)
        };
        let (maps, vectors) = ([Some(raw(parts.input)), parts.residual.map(raw)], [parts.scale, parts.shift].map(raw));
        let mut nodes = ops.parents.into_iter();
        let [input, scale, shift, residual] = core::array::from_fn(|_| nodes.next().flatten());
        for (node, primitive) in [input, residual].into_iter().zip(maps) {
            if let (Some(node), Some(primitive)) = (node, primitive) {
                let rc = Arc::new(node.id);
                add_gradient::<B, K>(gradients, Tracked::<B> { primitive, node, rc });
            }
        }
        for (node, part) in [scale, shift].into_iter().zip(vectors) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, part);
            }
        }
    }
}
