//! The gradients of a network's parameters, and their application by an optimizer.

use std::prelude::v1::*;

use std::vec::IntoIter;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::Network;
use crate::plan::Parameter;

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
        let mut read =
            ReadGradients::<B> { parameters: self.plan.parameters().into_iter(), gradients, all: Vec::new() };
        self.layers.visit(&mut read);
        Gradients(read.all)
    }

    /// Replaces every trained parameter by the result of `update`. A parameter that the loss does
    /// not depend on keeps its value.
    pub fn update(&mut self, gradients: Gradients<B>, update: &mut Update<'_, B>) {
        self.visit_trained(gradients, &mut |change| Some(update(&change.parameter, change.value, change.gradient)));
    }

    /// Visits every trained parameter that the loss depends on, in the plan's order.
    pub(in crate::model) fn visit_trained(&mut self, gradients: Gradients<B>, visit: &mut Visit<'_, B>) {
        let (parameters, gradients) = (self.plan.parameters().into_iter(), gradients.0.into_iter());
        let mut replace = Replace::<B> { parameters, gradients, visit };
        self.layers = std::mem::take(&mut self.layers).map(&mut replace);
    }
}

/// Reads the gradients of the trained parameters.
struct ReadGradients<'a, B: AutodiffBackend> {
    /// The descriptions of the parameters that are still to be visited.
    parameters: IntoIter<Parameter>,
    gradients: &'a B::Gradients,
    all: Vec<Option<Tensor<B::InnerBackend, 1>>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for ReadGradients<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.parameters.next().expect(ALL_PARAMETERS).role.is_trained() {
            self.all.push(flat(param.val().grad(self.gradients)));
        }
    }
}

/// Replaces trained parameters that have a gradient by what `visit` returns.
struct Replace<'a, 'v, B: AutodiffBackend> {
    /// The descriptions of the parameters that are still to be visited.
    parameters: IntoIter<Parameter>,
    gradients: IntoIter<Option<Tensor<B::InnerBackend, 1>>>,
    visit: &'a mut Visit<'v, B>,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Replace<'_, '_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let parameter = self.parameters.next().expect(ALL_PARAMETERS);
        if !parameter.role.is_trained() {
            return param;
        }
        let Some(gradient) = self.gradients.next().expect("a gradient for each trained parameter") else {
            return param;
        };
        let value = param.val();
        let shape = value.shape();
        let value = value.inner().reshape([shape.num_elements()]);
        match (self.visit)(Change { parameter, value, gradient }) {
            Some(updated) => Param::initialized(param.id, Tensor::from_inner(updated.reshape(shape)).require_grad()),
            None => param,
        }
    }
}

const ALL_PARAMETERS: &str = "the plan describes each parameter";

fn flat<B: Backend, const D: usize>(tensor: Option<Tensor<B, D>>) -> Option<Tensor<B, 1>> {
    let tensor = tensor?;
    let length = tensor.shape().num_elements();
    Some(tensor.reshape([length]))
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
