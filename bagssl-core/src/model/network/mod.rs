//! Networks on Burn backends, built from a plan.

mod update;

// Not the whole prelude: its `panic!` and core's are ambiguous in the code that `Module` derives for
// an enum.
use std::vec::Vec;
use std::{format, vec};

use core::marker::PhantomData;
use core::slice::Iter;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::relu as stock_relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::batch_norm::BatchNormInputs;
use super::kernels::Kernels;
use crate::checkpoint::NamedTensor;
use crate::error::{Error, Result};
use crate::plan::{Layer, NORM_MOMENTUM, Op, Parameter, Plan, Window};

pub(super) use update::Visit;
pub use update::{Change, Gradients, Update};

/// A network with the layers and parameter names of its [`Plan`].
#[derive(Module, Debug)]
pub struct Network<B: Backend> {
    /// The parameters of each layer that has any, in the plan's order.
    pub(super) layers: Vec<LayerParams<B>>,
    #[module(skip)]
    plan: Plan,
}

/// The parameters of a layer. The fields are in the order of [`Plan::parameters`], which is the
/// order in which Burn visits them.
#[derive(Module, Debug)]
pub(super) enum LayerParams<B: Backend> {
    Conv(Conv<B>),
    Linear(Linear<B>),
}

#[derive(Module, Debug)]
pub(super) struct Conv<B: Backend> {
    pub(super) weight: Param<Tensor<B, 4>>,
    pub(super) norm: Norm<B>,
}

#[derive(Module, Debug)]
pub(super) struct Linear<B: Backend> {
    pub(super) weight: Param<Tensor<B, 2>>,
    pub(super) bias: Option<Param<Tensor<B, 1>>>,
    pub(super) norm: Option<Norm<B>>,
}

#[derive(Module, Debug)]
pub(super) struct Norm<B: Backend> {
    pub(super) scale: Param<Tensor<B, 1>>,
    pub(super) shift: Param<Tensor<B, 1>>,
    pub(super) mean: Param<Tensor<B, 1>>,
    pub(super) variance: Param<Tensor<B, 1>>,
}

/// The batch statistics of each norm of a network, in the order of the layers.
#[derive(Debug, Clone)]
pub struct BatchStatistics<B: Backend>(Vec<NormStatistics<B>>);

impl<B: Backend> BatchStatistics<B> {
    /// Averages the statistics of several parts of a batch.
    ///
    /// # Panics
    /// If `parts` is empty, or the parts come from different networks.
    pub fn mean(parts: Vec<Self>) -> Self {
        let share = 1.0 / parts.len() as f64;
        let sum = parts.into_iter().reduce(|a, b| {
            assert_eq!(a.0.len(), b.0.len(), "statistics of one network");
            let add = |(a, b): (NormStatistics<B>, NormStatistics<B>)| NormStatistics {
                mean: a.mean + b.mean,
                variance: a.variance + b.variance,
                count: a.count.min(b.count),
            };
            BatchStatistics(a.0.into_iter().zip(b.0).map(add).collect())
        });
        let scaled = |part: NormStatistics<B>| NormStatistics {
            mean: part.mean * share,
            variance: part.variance * share,
            count: part.count,
        };
        BatchStatistics(sum.expect("at least one part").0.into_iter().map(scaled).collect())
    }
}

#[derive(Debug, Clone)]
struct NormStatistics<B: Backend> {
    mean: Tensor<B, 1>,
    variance: Tensor<B, 1>,
    count: usize,
}

/// A running statistic of a norm, and the batch statistic toward which it moves.
#[derive(Debug, Clone)]
pub struct Running<B: Backend> {
    /// The current running statistic.
    pub value: Tensor<B, 1>,
    /// The statistic of the batch.
    pub batch: Tensor<B, 1>,
    /// The factor of the batch statistic: for a variance, the correction that makes it unbiased.
    pub factor: f64,
}

impl<B: Backend> Running<B> {
    /// Returns the updated statistic.
    pub fn updated(self) -> Tensor<B, 1> {
        let batch = if self.factor == 1.0 { self.batch } else { self.batch * self.factor };
        self.value * (1.0 - NORM_MOMENTUM) + batch * NORM_MOMENTUM
    }
}

/// A value that layers exchange.
#[derive(Clone)]
pub(super) enum Value<B: Backend> {
    Map(Tensor<B, 4>),
    Rows(Tensor<B, 2>),
}

impl<B: Backend> Value<B> {
    fn map(&self) -> Tensor<B, 4> {
        match self {
            Value::Map(map) => map.clone(),
            Value::Rows(_) => unreachable!("a checked plan gives this layer a map"),
        }
    }

    fn rows(&self) -> Tensor<B, 2> {
        match self {
            Value::Rows(rows) => rows.clone(),
            Value::Map(_) => unreachable!("a checked plan gives this layer rows"),
        }
    }
}

impl<B: Backend> Network<B> {
    /// Creates a network with the [initial weights](Plan::init_weights) of its plan, the same on
    /// every backend.
    pub(crate) fn init(plan: &Plan, seed: u64, device: &B::Device) -> Self {
        let mut tensors = plan.init_weights(seed).into_iter().map(|(.., values)| values);
        let values = |_: &Parameter| Ok(tensors.next().expect("one for each parameter, in their order"));
        Self::build(plan, values, device).expect("first values have the length of their parameter")
    }

    /// Creates a network with the values that `values` returns for each parameter of the plan,
    /// called in their order.
    ///
    /// # Errors
    /// Any error of `values`, or [`Error::Plan`] if it returns the wrong number of values.
    pub fn build(
        plan: &Plan,
        mut values: impl FnMut(&Parameter) -> Result<Vec<f32>>,
        device: &B::Device,
    ) -> Result<Self> {
        let parameters = plan.parameters();
        let mut parameters = parameters.iter();
        let mut next = || -> Result<TensorData> {
            let parameter = parameters.next().expect("the plan names a parameter for each that a layer reads");
            let values = values(parameter)?;
            if values.len() != parameter.len() {
                let (name, expected, got) = (&parameter.name, parameter.len(), values.len());
                return Err(Error::Plan(format!("parameter {name:?}: expected {expected} values, got {got}")));
            }
            Ok(TensorData::new(values, parameter.shape.clone()))
        };
        let build = |layer: &Layer| LayerParams::build(layer, &mut next, device).transpose();
        let layers = plan.layers().iter().filter_map(build).collect::<Result<_>>()?;
        Ok(Network { layers, plan: plan.clone() })
    }

    /// Returns the plan of the network.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns all parameters and buffers with their values, in the plan's order.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        let mut read = ReadValues(Vec::new());
        self.visit(&mut read);
        let named = self.plan.parameters().into_iter().zip(read.0);
        named.map(|(parameter, values)| (parameter.name, parameter.shape, values)).collect()
    }

    /// Computes the last value in training mode, for maps `[row, channel, height, width]`. Norms
    /// use the statistics of the batch, which are returned as well.
    ///
    /// # Panics
    /// If the plan reads rows or outputs maps.
    pub fn forward_train_map<K: Kernels<B>>(&self, input: Tensor<B, 4>) -> (Tensor<B, 2>, BatchStatistics<B>) {
        self.train_value::<K>(Value::Map(entering::<B, K>(input)))
    }

    /// Like [`Network::forward_train_map`], for rows `[row, dim]`.
    ///
    /// # Panics
    /// If the plan reads maps.
    pub fn forward_train_rows<K: Kernels<B>>(&self, input: Tensor<B, 2>) -> (Tensor<B, 2>, BatchStatistics<B>) {
        self.train_value::<K>(Value::Rows(input))
    }

    fn train_value<K: Kernels<B>>(&self, input: Value<B>) -> (Tensor<B, 2>, BatchStatistics<B>) {
        let mut training =
            InTraining::<B, K> { layers: self.layers.iter(), statistics: Vec::new(), kernels: PhantomData };
        let output = run::<B, K>(&self.plan, input, &[self.plan.layers().len()], &mut training).remove(0);
        (output, BatchStatistics(training.statistics))
    }

    /// Moves the running statistics toward those of a batch.
    ///
    /// # Source
    /// Like PyTorch's batch norm: the running variance uses the unbiased variance of the batch.
    pub fn update_running(&mut self, batch: BatchStatistics<B>) {
        self.visit_running(batch, &mut |running| Some(running.updated()));
    }

    /// Visits every running statistic in the order of the layers, mean before variance. A statistic
    /// without a new value stays unchanged.
    pub(super) fn visit_running(
        &mut self,
        batch: BatchStatistics<B>,
        visit: &mut dyn FnMut(Running<B>) -> Option<Tensor<B, 1>>,
    ) {
        let mut batch = batch.0.into_iter();
        for norm in self.layers.iter_mut().filter_map(LayerParams::norm_mut) {
            norm.visit_running(batch.next().expect("statistics for each norm"), visit);
        }
    }
}

impl<B: Backend> LayerParams<B> {
    /// Reads the parameters of a layer. Returns `None` if it has none.
    fn build(layer: &Layer, next: &mut impl FnMut() -> Result<TensorData>, device: &B::Device) -> Result<Option<Self>> {
        Ok(match &layer.op {
            Op::ConvNorm { .. } => {
                Some(LayerParams::Conv(Conv { weight: trained(next()?, device), norm: Norm::build(next, device)? }))
            }
            Op::Linear { bias, norm, .. } => {
                let weight = trained(next()?, device);
                let bias = if *bias { Some(trained(next()?, device)) } else { None };
                let norm = if norm.is_some() { Some(Norm::build(next, device)?) } else { None };
                Some(LayerParams::Linear(Linear { weight, bias, norm }))
            }
            Op::MaxPool { .. } | Op::GlobalMean => None,
        })
    }

    fn norm_mut(&mut self) -> Option<&mut Norm<B>> {
        match self {
            LayerParams::Conv(conv) => Some(&mut conv.norm),
            LayerParams::Linear(linear) => linear.norm.as_mut(),
        }
    }
}

/// Reads the values of all parameters.
struct ReadValues(Vec<Vec<f32>>);

impl<B: Backend> ModuleVisitor<B> for ReadValues {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let values = param.val().into_data().convert::<f32>();
        self.0.push(values.into_vec().expect("converted to f32"));
    }
}

/// The message of a panic that cannot happen: parameters are built from the plan that is run.
pub(super) const OTHER_LAYER: &str = "the parameters are those of the plan's layers";

/// The layers of a network that have parameters, in the plan's order.
pub(super) trait Layers<B: Backend> {
    /// Runs the next convolution with its norm, residual and ReLU. The residual has the output's
    /// size.
    fn conv(&mut self, input: Tensor<B, 4>, window: Window, residual: Option<Tensor<B, 4>>, relu: bool)
    -> Tensor<B, 4>;

    /// Runs the next linear layer.
    fn linear(&mut self, input: Tensor<B, 2>, relu: bool) -> Tensor<B, 2>;
}

/// Runs the layers of a plan, and returns the values at the indices `requested`.
///
/// # Panics
/// If the plan reads another kind of input, or a wanted value is a map.
pub(super) fn run<B: Backend, K: Kernels<B>>(
    plan: &Plan,
    input: Value<B>,
    requested: &[usize],
    layers: &mut dyn Layers<B>,
) -> Vec<Tensor<B, 2>> {
    let mut values = Values::new(plan, requested, input);
    for layer in plan.layers() {
        let output = match &layer.op {
            Op::ConvNorm { window, residual, relu, .. } => {
                let input = values.get(layer.input).map();
                let [_, _, height, width] = input.dims();
                let size = window.output([height, width]);
                let residual = residual.map(|value| top_left(values.get(value).map(), size));
                Value::Map(layers.conv(input, *window, residual, *relu))
            }
            Op::MaxPool { window } => Value::Map(K::max_pool2d(values.get(layer.input).map(), *window)),
            Op::GlobalMean => Value::Rows(K::global_mean(values.get(layer.input).map())),
            Op::Linear { relu, .. } => Value::Rows(layers.linear(values.get(layer.input).rows(), *relu)),
        };
        values.push(output);
    }
    requested.iter().map(|&value| values.get(value).rows()).collect()
}

/// A network in training mode. Norms use the statistics of the batch and record them.
struct InTraining<'a, B: Backend, K> {
    layers: Iter<'a, LayerParams<B>>,
    statistics: Vec<NormStatistics<B>>,
    kernels: PhantomData<K>,
}

impl<B: Backend, K: Kernels<B>> Layers<B> for InTraining<'_, B, K> {
    fn conv(
        &mut self,
        input: Tensor<B, 4>,
        window: Window,
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        let Some(LayerParams::Conv(conv)) = self.layers.next() else { unreachable!("{OTHER_LAYER}") };
        let output = K::conv2d(input, conv.weight.val(), window);
        conv.norm.of_batch::<K>(output, residual, relu, &mut self.statistics)
    }

    fn linear(&mut self, input: Tensor<B, 2>, relu: bool) -> Tensor<B, 2> {
        let Some(LayerParams::Linear(linear)) = self.layers.next() else { unreachable!("{OTHER_LAYER}") };
        let output = K::linear(input, linear.weight.val(), linear.bias.as_ref().map(Param::val));
        let Some(norm) = &linear.norm else {
            return if relu { stock_relu(output) } else { output };
        };
        let [rows, dim] = output.dims();
        let output = output.reshape([rows, dim, 1, 1]);
        norm.of_batch::<K>(output, None, relu, &mut self.statistics).reshape([rows, dim])
    }
}

/// Casts an input map to the type on which the kernels compute.
pub(super) fn entering<B: Backend, K: Kernels<B>>(map: Tensor<B, 4>) -> Tensor<B, 4> {
    match K::ACTIVATION_DTYPE {
        Some(dtype) => map.cast(dtype),
        None => map,
    }
}

/// The live values. Each is dropped after its last use.
struct Values<B: Backend> {
    values: Vec<Option<Value<B>>>,
    last_use: Vec<usize>,
}

impl<B: Backend> Values<B> {
    fn new(plan: &Plan, requested: &[usize], input: Value<B>) -> Self {
        let mut last_use = plan.last_use();
        requested.iter().for_each(|&value| last_use[value] = usize::MAX);
        Values { values: vec![Some(input)], last_use }
    }

    fn get(&self, value: usize) -> &Value<B> {
        self.values[value].as_ref().expect("a value is kept up to its last use")
    }

    /// Stores the output of the layer that has just run, and drops the values that no later layer
    /// reads.
    fn push(&mut self, output: Value<B>) {
        let done = self.values.len();
        self.values.push(Some(output));
        for (value, &last) in self.values.iter_mut().zip(&self.last_use) {
            if last <= done {
                *value = None;
            }
        }
    }
}

/// Returns the top left part of a map that is added to an output of `size`.
fn top_left<B: Backend>(map: Tensor<B, 4>, size: Option<[usize; 2]>) -> Tensor<B, 4> {
    let [_, _, height, width] = map.dims();
    match size {
        Some(size) if size != [height, width] => map.narrow(2, 0, size[0]).narrow(3, 0, size[1]),
        _ => map,
    }
}

impl<B: Backend> Norm<B> {
    fn build(next: &mut impl FnMut() -> Result<TensorData>, device: &B::Device) -> Result<Self> {
        Ok(Norm {
            scale: trained(next()?, device),
            shift: trained(next()?, device),
            mean: buffer(next()?, device),
            variance: buffer(next()?, device),
        })
    }

    fn of_batch<K: Kernels<B>>(
        &self,
        input: Tensor<B, 4>,
        residual: Option<Tensor<B, 4>>,
        relu: bool,
        statistics: &mut Vec<NormStatistics<B>>,
    ) -> Tensor<B, 4> {
        let [rows, _, height, width] = input.dims();
        let inputs = BatchNormInputs { input, scale: self.scale.val(), shift: self.shift.val() };
        let normed = K::batch_norm(inputs, residual, relu);
        let (mean, variance) = (normed.mean, normed.variance);
        statistics.push(NormStatistics { mean, variance, count: rows * height * width * K::batches() });
        normed.output
    }

    fn visit_running(&mut self, batch: NormStatistics<B>, visit: &mut dyn FnMut(Running<B>) -> Option<Tensor<B, 1>>) {
        let unbiased = batch.count as f64 / (batch.count.max(2) - 1) as f64;
        for (running, batch, factor) in
            [(&mut self.mean, batch.mean, 1.0), (&mut self.variance, batch.variance, unbiased)]
        {
            if let Some(updated) = visit(Running { value: running.val(), batch, factor }) {
                *running = Param::initialized(running.id, updated.detach());
            }
        }
    }
}

fn trained<B: Backend, const D: usize>(values: TensorData, device: &B::Device) -> Param<Tensor<B, D>> {
    Param::from_tensor(Tensor::from_data(values, device))
}

fn buffer<B: Backend>(values: TensorData, device: &B::Device) -> Param<Tensor<B, 1>> {
    Param::from_tensor(Tensor::from_data(values, device)).set_require_grad(false)
}
