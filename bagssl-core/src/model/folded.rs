//! Models for inference: without gradients, and with norms folded into the weights.

use std::prelude::v1::*;

use core::marker::PhantomData;
use core::slice::Iter;

use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::activation::relu as stock_relu;
use burn::tensor::backend::Backend;

use super::encoder_projector::{Features, Model};
use super::kernels::Kernels;
use super::network::{LayerParams, Layers, Network, Norm, OTHER_LAYER, Value, entering, run};
use crate::embed::FeatureLayer;
use crate::plan::{NORM_EPSILON, Plan, Window};

/// A model in inference mode: it uses running statistics, and its batch norms are folded into the
/// preceding weights.
#[derive(Debug, Clone)]
pub struct FoldedModel<B: Backend> {
    encoder: FoldedNetwork<B>,
    projector: FoldedNetwork<B>,
}

/// A network in inference mode: it uses running statistics, and its batch norms are folded into the
/// preceding weights.
#[derive(Debug, Clone)]
pub struct FoldedNetwork<B: Backend> {
    /// The weights of each layer that has any, in the plan's order.
    layers: Vec<FoldedLayer<B>>,
    plan: Plan,
}

#[derive(Debug, Clone)]
enum FoldedLayer<B: Backend> {
    Conv { weight: Tensor<B, 4>, bias: Tensor<B, 1> },
    Linear { weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>> },
}

impl<B: Backend> FoldedModel<B> {
    /// Folds a model with its current running statistics.
    pub fn new(model: &Model<B>) -> Self {
        FoldedModel { encoder: FoldedNetwork::new(model.encoder()), projector: FoldedNetwork::new(model.projector()) }
    }

    /// Returns the encoder's plan.
    pub(crate) fn encoder(&self) -> &Plan {
        &self.encoder.plan
    }

    /// Computes the features of patches `[row, channel, height, width]` at each layer in `layers`, in
    /// that order.
    ///
    /// # Panics
    /// If the encoder's windows do not fit into the patches.
    pub fn features<K: Kernels<B>>(&self, patches: Tensor<B, 4>, layers: &[FeatureLayer]) -> Features<B> {
        let output = self.encoder.plan.layers().len();
        let embedding = self.encoder.forward_map::<K>(patches, &[output]).remove(0);
        let last = self.projector.plan.layers().len();
        let values: Vec<usize> = layers
            .iter()
            .filter_map(|layer| match layer {
                FeatureLayer::Embedding => None,
                FeatureLayer::FirstLayer => Some(1),
                FeatureLayer::Projection => Some(last),
            })
            .collect();
        let mut projected = if values.is_empty() {
            Vec::new().into_iter()
        } else {
            self.projector.forward_rows::<K>(embedding.clone(), &values).into_iter()
        };
        let mut next = || projected.next().expect("one for each layer of the projector");
        layers.iter().map(|layer| if *layer == FeatureLayer::Embedding { embedding.clone() } else { next() }).collect()
    }
}

impl<B: Backend> FoldedNetwork<B> {
    /// Folds a network with its current running statistics.
    pub fn new(network: &Network<B>) -> Self {
        let layers = network.layers.iter().map(FoldedLayer::new).collect();
        FoldedNetwork { layers, plan: network.plan().clone() }
    }

    /// Computes the values of the plan at the indices `values`, for maps
    /// `[row, channel, height, width]`.
    ///
    /// # Panics
    /// If the plan reads rows, a requested value is a map, or a window does not fit.
    pub fn forward_map<K: Kernels<B>>(&self, input: Tensor<B, 4>, values: &[usize]) -> Vec<Tensor<B, 2>> {
        self.run::<K>(Value::Map(entering::<B, K>(input)), values)
    }

    /// Like [`FoldedNetwork::forward_map`], for rows `[row, dim]`.
    ///
    /// # Panics
    /// If the plan reads maps, or a requested value is a map.
    pub fn forward_rows<K: Kernels<B>>(&self, input: Tensor<B, 2>, values: &[usize]) -> Vec<Tensor<B, 2>> {
        self.run::<K>(Value::Rows(input), values)
    }

    fn run<K: Kernels<B>>(&self, input: Value<B>, values: &[usize]) -> Vec<Tensor<B, 2>> {
        let mut layers = InUse::<B, K> { layers: self.layers.iter(), kernels: PhantomData };
        run::<B, K>(&self.plan, input, values, &mut layers)
    }
}

impl<B: Backend> FoldedLayer<B> {
    fn new(layer: &LayerParams<B>) -> Self {
        match layer {
            LayerParams::Conv(conv) => {
                let (factor, offset) = fold(&conv.norm);
                let [outputs] = factor.dims();
                FoldedLayer::Conv { weight: conv.weight.val() * factor.reshape([outputs, 1, 1, 1]), bias: offset }
            }
            LayerParams::Linear(linear) => {
                let (weight, bias) = (linear.weight.val(), linear.bias.as_ref().map(Param::val));
                let Some(norm) = &linear.norm else { return FoldedLayer::Linear { weight, bias } };
                let (factor, offset) = fold(norm);
                let [outputs] = factor.dims();
                let bias = match bias {
                    Some(bias) => bias * factor.clone() + offset,
                    None => offset,
                };
                FoldedLayer::Linear { weight: weight * factor.reshape([outputs, 1]), bias: Some(bias) }
            }
        }
    }
}

/// Returns the factor and offset of each channel that are equivalent to a norm with running
/// statistics.
fn fold<B: Backend>(norm: &Norm<B>) -> (Tensor<B, 1>, Tensor<B, 1>) {
    let factor = norm.scale.val() / (norm.variance.val() + NORM_EPSILON).sqrt();
    let offset = norm.shift.val() - norm.mean.val() * factor.clone();
    (factor, offset)
}

struct InUse<'a, B: Backend, K> {
    layers: Iter<'a, FoldedLayer<B>>,
    kernels: PhantomData<K>,
}

impl<B: Backend, K: Kernels<B>> Layers<B> for InUse<'_, B, K> {
    fn conv(
        &mut self,
        input: Tensor<B, 4>,
        window: Window,
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        let Some(FoldedLayer::Conv { weight, bias }) = self.layers.next() else { unreachable!("{OTHER_LAYER}") };
        K::conv2d_fused(input, weight.clone(), bias.clone(), window, residual, relu)
    }

    fn linear(&mut self, input: Tensor<B, 2>, relu: bool) -> Tensor<B, 2> {
        let Some(FoldedLayer::Linear { weight, bias }) = self.layers.next() else { unreachable!("{OTHER_LAYER}") };
        let output = K::linear(input, weight.clone(), bias.clone());
        if relu { stock_relu(output) } else { output }
    }
}

impl<B: Backend> Model<B> {
    /// Computes the features of patches `[row, channel, height, width]` at each layer in `layers`,
    /// with running statistics. This folds the norms on every call; for several batches, use
    /// [`FoldedModel`].
    pub fn features<K: Kernels<B>>(&self, patches: Tensor<B, 4>, layers: &[FeatureLayer]) -> Features<B> {
        FoldedModel::new(self).features::<K>(patches, layers)
    }
}
