//! The gradients of a network's parameters, and their application by an optimizer.

use std::prelude::v1::*;

use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::Network;
use crate::plan::{Op, Parameter};

/// The update rule of an optimizer. It receives a parameter's description, its value and its
/// gradient, both flattened, and returns the new value.
pub type Update<'a, B> = dyn FnMut(
        &Parameter,
        Tensor<<B as AutodiffBackend>::InnerBackend, 1>,
        Tensor<<B as AutodiffBackend>::InnerBackend, 1>,
    ) -> Tensor<<B as AutodiffBackend>::InnerBackend, 1>
    + 'a;

/// A trained parameter with its value and gradient, both flattened.
#[derive(Debug, Clone)]
pub struct Change<B: Backend> {
    /// The parameter's name, shape and role.
    pub parameter: Parameter,
    /// The current value.
    pub value: Tensor<B, 1>,
    /// The gradient of the loss with respect to the parameter.
    pub gradient: Tensor<B, 1>,
}

/// Like [`Update`], but `None` leaves the parameter unchanged.
pub(in crate::model) type Visit<'a, B> = dyn FnMut(Change<<B as AutodiffBackend>::InnerBackend>) -> Option<Tensor<<B as AutodiffBackend>::InnerBackend, 1>>
    + 'a;

impl<B: AutodiffBackend> Network<B> {
    /// Extracts the gradients of the trained parameters.
    pub fn gradients(&self, gradients: &B::Gradients) -> Gradients<B> {
        let mut all = Vec::new();
        self.each_trained(&mut |weight: Weight<'_, B>| {
            all.push(match weight {
                Weight::Filters(parameter) => flat(parameter.val().grad(gradients)),
                Weight::Matrix(parameter) => flat(parameter.val().grad(gradients)),
                Weight::Vector(parameter) => flat(parameter.val().grad(gradients)),
            });
        });
        Gradients(all)
    }

    /// Replaces every trained parameter by the result of `update`. A parameter that the loss does
    /// not depend on keeps its value.
    pub fn update(&mut self, gradients: Gradients<B>, update: &mut Update<'_, B>) {
        self.visit(gradients, &mut |change| Some(update(&change.parameter, change.value, change.gradient)));
    }

    /// Visits every trained parameter that the loss depends on, in the plan's order.
    pub(in crate::model) fn visit(&mut self, gradients: Gradients<B>, visit: &mut Visit<'_, B>) {
        let parameters = self.plan.parameters();
        let trained = parameters.iter().filter(|parameter| parameter.role.is_trained());
        let mut parts = trained.zip(gradients.0);
        let mut next = || parts.next().expect("a gradient for each parameter that a layer has");
        let (mut convs, mut linears) = (self.convs.iter_mut(), self.linears.iter_mut());
        for layer in self.plan.layers() {
            let norm = match &layer.op {
                Op::ConvNorm { .. } => {
                    let conv = convs.next().expect("one for each layer");
                    step(&mut conv.weight, next(), visit);
                    Some(&mut conv.norm)
                }
                Op::Linear { .. } => {
                    let linear = linears.next().expect("one for each layer");
                    step(&mut linear.weight, next(), visit);
                    if let Some(bias) = &mut linear.bias {
                        step(bias, next(), visit);
                    }
                    linear.norm.as_mut()
                }
                Op::MaxPool { .. } | Op::GlobalMean => None,
            };
            if let Some(norm) = norm {
                step(&mut norm.scale, next(), visit);
                step(&mut norm.shift, next(), visit);
            }
        }
    }

    /// Visits every trained parameter, in the plan's order.
    fn each_trained(&self, visit: &mut dyn FnMut(Weight<'_, B>)) {
        let (mut convs, mut linears) = (self.convs.iter(), self.linears.iter());
        for layer in self.plan.layers() {
            let norm = match &layer.op {
                Op::ConvNorm { .. } => {
                    let conv = convs.next().expect("one for each layer");
                    visit(Weight::Filters(&conv.weight));
                    Some(&conv.norm)
                }
                Op::Linear { .. } => {
                    let linear = linears.next().expect("one for each layer");
                    visit(Weight::Matrix(&linear.weight));
                    linear.bias.iter().for_each(|bias| visit(Weight::Vector(bias)));
                    linear.norm.as_ref()
                }
                Op::MaxPool { .. } | Op::GlobalMean => None,
            };
            if let Some(norm) = norm {
                [&norm.scale, &norm.shift].into_iter().for_each(|part| visit(Weight::Vector(part)));
            }
        }
    }
}

/// A trained parameter.
enum Weight<'a, B: Backend> {
    Filters(&'a Param<Tensor<B, 4>>),
    Matrix(&'a Param<Tensor<B, 2>>),
    Vector(&'a Param<Tensor<B, 1>>),
}

fn flat<B: Backend, const D: usize>(tensor: Option<Tensor<B, D>>) -> Option<Tensor<B, 1>> {
    let tensor = tensor?;
    let length = tensor.shape().num_elements();
    Some(tensor.reshape([length]))
}

/// Replaces one parameter.
fn step<B: AutodiffBackend, const D: usize>(
    parameter: &mut Param<Tensor<B, D>>,
    (name, gradient): (&Parameter, Option<Tensor<B::InnerBackend, 1>>),
    visit: &mut Visit<'_, B>,
) {
    let Some(gradient) = gradient else {
        return;
    };
    let value = parameter.val();
    let shape = value.shape();
    let value = value.inner().reshape([shape.num_elements()]);
    let change = Change { parameter: name.clone(), value, gradient };
    if let Some(updated) = visit(change) {
        *parameter = Param::initialized(parameter.id, Tensor::from_inner(updated.reshape(shape)).require_grad());
    }
}

/// The gradients of a network's trained parameters, flattened, in the plan's order. A parameter
/// that the loss does not depend on has none.
#[derive(Debug, Clone)]
pub struct Gradients<B: AutodiffBackend>(Vec<Option<Tensor<B::InnerBackend, 1>>>);

impl<B: AutodiffBackend> Gradients<B> {
    /// Returns the sum with the gradients of another part of the batch.
    ///
    /// # Panics
    /// If the gradients come from a different network.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        assert_eq!(self.0.len(), other.0.len(), "gradients of one network");
        let sum = |(a, b): (Option<Tensor<B::InnerBackend, 1>>, Option<_>)| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Gradients(self.0.into_iter().zip(other.0).map(sum).collect())
    }

    /// Returns the existing gradients.
    pub(in crate::model) fn values(&self) -> impl Iterator<Item = Tensor<B::InnerBackend, 1>> {
        self.0.iter().flatten().cloned()
    }

    /// Replaces the existing gradients with other values.
    pub(in crate::model) fn replaced(self, values: &mut impl Iterator<Item = Tensor<B::InnerBackend, 1>>) -> Self {
        let mut next = || values.next().expect("as many as there were");
        Gradients(self.0.into_iter().map(|gradient| gradient.map(|_| next())).collect())
    }

    /// Returns the gradients of all parameters, with a single 0 for a parameter without one. Empty
    /// if there are no gradients at all.
    pub(in crate::model) fn filled(&self) -> Vec<Tensor<B::InnerBackend, 1>> {
        let Some(device) = self.0.iter().flatten().next().map(Tensor::device) else { return Vec::new() };
        let filled = |gradient: &Option<_>| gradient.clone().unwrap_or_else(|| Tensor::zeros([1], &device));
        self.0.iter().map(filled).collect()
    }
}
