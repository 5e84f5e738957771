//! The kernels under Burn's autodiff: convolution and batch norm through [`Differentiable`], and
//! gradients of the other operations.

use std::marker::PhantomData;
use std::sync::Arc;

use bagssl_core::model::{BatchNormInputs, BatchNormOutput, Differentiable, Kernels, Reading, add_gradient};
use bagssl_core::plan::Window;
use bagssl_core::profile::span;
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::{DType, FloatDType, Tensor, TensorMetadata, TensorPrimitive, activation};

use super::kernels::{Cudnn, Precision, run};
use crate::ops::form::Math;
use crate::ops::operation::Operation;
use crate::ops::run::{OnCuda, Raw};
use crate::runtime::job;
use bagssl_train::distributed::SyncBatchNorm;

/// Runs an operation within a profiling span of the same name as its span on the device.
fn told<B: OnCuda, const N: usize>(operation: Operation, inputs: Vec<Raw<B>>) -> [Raw<B>; N] {
    let _span = span(operation.name());
    run::<B, N>(operation, inputs)
}

type Tracked<B> = Raw<Autodiff<B>>;

fn open<B: OnCuda, const D: usize>(tensor: Tensor<Autodiff<B>, D>) -> Tracked<B> {
    tensor.into_primitive().tensor()
}

fn close<B: OnCuda, const D: usize>(tensor: Tracked<B>) -> Tensor<Autodiff<B>, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

impl<B: OnCuda, P: Precision> Kernels<Autodiff<B>> for Cudnn<P> {
    const ACTIVATION_DTYPE: Option<FloatDType> = P::MAPS;
    const IS_ASYNC: bool = true;

    fn conv2d(input: Tensor<Autodiff<B>, 4>, weight: Tensor<Autodiff<B>, 4>, window: Window) -> Tensor<Autodiff<B>, 4> {
        <Differentiable<Self> as Kernels<Autodiff<B>>>::conv2d(input, weight, window)
    }

    fn batch_norm(
        inputs: BatchNormInputs<Autodiff<B>>,
        residual: Option<Tensor<Autodiff<B>, 4>>,
        relu: bool,
    ) -> BatchNormOutput<Autodiff<B>> {
        // Without workers that share the batch, `SyncBatchNorm` behaves as the plain norm.
        <Differentiable<SyncBatchNorm<Self>> as Kernels<Autodiff<B>>>::batch_norm(inputs, residual, relu)
    }

    fn batches() -> usize {
        <SyncBatchNorm<Self> as Kernels<B>>::batches()
    }

    fn conv2d_fused(
        input: Tensor<Autodiff<B>, 4>,
        weight: Tensor<Autodiff<B>, 4>,
        bias: Tensor<Autodiff<B>, 1>,
        window: Window,
        residual: Option<Tensor<Autodiff<B>, 4>>,
        relu: bool,
    ) -> Tensor<Autodiff<B>, 4> {
        let dtype = input.dtype();
        let [channels] = bias.dims();
        let output = <Self as Kernels<Autodiff<B>>>::conv2d(input, weight, window).cast(FloatDType::F32);
        let output = output + bias.reshape([1, channels, 1, 1]);
        let output = match residual {
            Some(residual) => output + residual.cast(FloatDType::F32),
            None => output,
        };
        let output = if relu { activation::relu(output) } else { output };
        output.cast(dtype)
    }

    fn max_pool2d(input: Tensor<Autodiff<B>, 4>, window: Window) -> Tensor<Autodiff<B>, 4> {
        let input = open(input);
        let size = size_of_map::<B>(&input.primitive);
        let [output, taps] = told::<B, 2>(Operation::MaxPool { window }, vec![input.primitive]);
        let state = (taps, window, size);
        close(match MaxPool::<P>(PhantomData).prepare::<NoCheckpointing>([input.node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        })
    }

    fn global_mean(input: Tensor<Autodiff<B>, 4>) -> Tensor<Autodiff<B>, 2> {
        let input = open(input);
        let state = (size_of_map::<B>(&input.primitive), input.primitive.dtype());
        let [output] = told::<B, 1>(Operation::GlobalMean, vec![input.primitive]);
        close(match GlobalMean::<P>(PhantomData).prepare::<NoCheckpointing>([input.node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(state, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        })
    }

    fn linear(
        input: Tensor<Autodiff<B>, 2>,
        weight: Tensor<Autodiff<B>, 2>,
        bias: Option<Tensor<Autodiff<B>, 1>>,
    ) -> Tensor<Autodiff<B>, 2> {
        let (input, weight, bias) = (open(input), open(weight), bias.map(open));
        let state = (input.primitive.clone(), weight.primitive.clone());
        let operation = Operation::Product { transposed: [false, true], math: P::MATH };
        let mut inputs = vec![input.primitive, weight.primitive];
        inputs.extend(bias.as_ref().map(|bias| bias.primitive.clone()));
        let [output] = told::<B, 1>(operation, inputs);
        let kind = Linear::<P>(PhantomData);
        close(match bias {
            Some(bias) => {
                let nodes = [input.node, weight.node, bias.node];
                match kind.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
                    OpsKind::Tracked(prepared) => prepared.finish(state, output),
                    OpsKind::UnTracked(prepared) => prepared.finish(output),
                }
            }
            None => match kind.prepare::<NoCheckpointing>([input.node, weight.node]).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish(state, output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        })
    }

    fn upload(values: Vec<f32>, dims: [usize; 4], device: &B::Device) -> Tensor<Autodiff<B>, 4> {
        Tensor::from_inner(<Self as Kernels<B>>::upload(values, dims, device))
    }

    fn read_later(values: Tensor<Autodiff<B>, 1>) -> Reading {
        <Self as Kernels<B>>::read_later(values.inner())
    }

    fn check() -> Result<(), String> {
        job::check().map_err(|error| error.to_string())
    }
}

/// Returns `[height, width]`.
fn size_of_map<B: OnCuda>(map: &Raw<B>) -> [usize; 2] {
    let shape = map.shape();
    [shape[2], shape[3]]
}

#[derive(Debug)]
struct MaxPool<P>(PhantomData<P>);

impl<B: OnCuda, P: Precision> Backward<B, 1> for MaxPool<P> {
    type State = (Raw<B>, Window, [usize; 2]);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (taps, window, size) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let operation = Operation::MaxPoolGradient { window, size };
            let [primitive] = told::<B, 1>(operation, vec![gradient, taps]);
            let rc = Arc::new(node.id);
            add_gradient::<B, Cudnn<P>>(gradients, Tracked::<B> { primitive, node, rc });
        }
    }
}

#[derive(Debug)]
struct GlobalMean<P>(PhantomData<P>);

impl<B: OnCuda, P: Precision> Backward<B, 1> for GlobalMean<P> {
    type State = ([usize; 2], DType);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (size, dtype) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let [primitive] = told::<B, 1>(Operation::GlobalMeanGradient { size, dtype }, vec![gradient]);
            let rc = Arc::new(node.id);
            add_gradient::<B, Cudnn<P>>(gradients, Tracked::<B> { primitive, node, rc });
        }
    }
}

#[derive(Debug)]
struct Linear<P>(PhantomData<P>);

/// The parents are the input, the weight and, if there are three, the bias.
impl<B: OnCuda, P: Precision, const N: usize> Backward<B, N> for Linear<P> {
    type State = (Raw<B>, Raw<B>);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (input, weight) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        let product = |transposed, math: Math, factors| told::<B, 1>(Operation::Product { transposed, math }, factors);
        let mut nodes = ops.parents.into_iter();
        if let Some(Some(node)) = nodes.next() {
            let [part] = product([false, false], P::MATH, vec![gradient.clone(), weight]);
            gradients.register::<B>(node.id, part);
        }
        if let Some(Some(node)) = nodes.next() {
            let [part] = product([true, false], P::MATH, vec![gradient.clone(), input]);
            gradients.register::<B>(node.id, part);
        }
        if let Some(Some(node)) = nodes.next() {
            let [part] = told::<B, 1>(Operation::SumColumns, vec![gradient]);
            gradients.register::<B>(node.id, part);
        }
    }
}
