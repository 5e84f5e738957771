//! A model: an encoder and a projector.

use std::prelude::v1::*;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::kernels::Kernels;
use super::network::{BatchStatistics, Change, Gradients, Network, Running, Visit};
use crate::checkpoint::{Checkpoint, ModelPlan, NamedTensor};
use crate::error::Result;

/// The encoder `h = f(x)` and the projector `z = g(h)`.
#[derive(Module, Debug)]
pub struct Model<B: Backend> {
    encoder: Network<B>,
    projector: Network<B>,
}

/// The features of rows at each requested layer, in the requested order.
pub type Features<B> = Vec<Tensor<B, 2>>;

/// The output of a model in training mode.
#[derive(Debug, Clone)]
pub struct ModelParts<B: Backend> {
    /// `h`, `[row, dim]`.
    pub embedding: Tensor<B, 2>,
    /// `z`, `[row, dim]`.
    pub projection: Tensor<B, 2>,
    /// The statistics of this batch, for [`Model::update_running`].
    pub statistics: [BatchStatistics<B>; 2],
}

impl<B: Backend> Model<B> {
    /// Creates a model with random weights, which depend only on the seed, not on the backend.
    pub fn init(plan: &ModelPlan, seed: u64, device: &B::Device) -> Self {
        // The same seeds as in `ModelPlan::init_weights`.
        Model {
            encoder: Network::init(plan.encoder(), seed, device),
            projector: Network::init(plan.projector(), !seed, device),
        }
    }

    /// Loads a model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if a tensor is missing. A validated
    /// checkpoint has all tensors.
    pub fn load(checkpoint: &Checkpoint<'_>, device: &B::Device) -> Result<Self> {
        let network = |prefix: &str, plan| {
            Network::build(plan, |parameter| checkpoint.values(&format!("{prefix}.{}", parameter.name)), device)
        };
        let plan = &checkpoint.spec().model;
        Ok(Model { encoder: network("encoder", plan.encoder())?, projector: network("projector", plan.projector())? })
    }

    /// Returns all parameters and buffers, named as in the checkpoint.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        let named = |prefix: &'static str, network: &Network<B>| {
            let tensors = network.tensors().into_iter();
            tensors.map(move |(name, shape, values)| (format!("{prefix}.{name}"), shape, values))
        };
        named("encoder", &self.encoder).chain(named("projector", &self.projector)).collect()
    }

    /// Returns the encoder.
    pub fn encoder(&self) -> &Network<B> {
        &self.encoder
    }

    /// Returns the projector.
    pub fn projector(&self) -> &Network<B> {
        &self.projector
    }

    /// Computes the embedding and projection of patches `[row, channel, height, width]` in training
    /// mode.
    pub fn forward_train<K: Kernels<B>>(&self, patches: Tensor<B, 4>) -> ModelParts<B> {
        let (embedding, encoder) = self.encoder.forward_train_map::<K>(patches);
        let (projection, projector) = self.projector.forward_train_rows::<K>(embedding.clone());
        ModelParts { embedding, projection, statistics: [encoder, projector] }
    }

    /// Moves the running statistics toward those of a batch.
    pub fn update_running(&mut self, [encoder, projector]: [BatchStatistics<B>; 2]) {
        self.encoder.update_running(encoder);
        self.projector.update_running(projector);
    }
}

/// The gradients of a model's trained parameters: those of the encoder and of the projector.
#[derive(Debug, Clone)]
pub struct ModelGradients<B: AutodiffBackend>([Gradients<B>; 2]);

impl<B: AutodiffBackend> ModelGradients<B> {
    /// Returns the sum with the gradients of another part of the batch.
    ///
    /// # Panics
    /// If the gradients come from a different model.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let [encoder, projector] = self.0;
        let [other_encoder, other_projector] = other.0;
        ModelGradients([encoder.plus(other_encoder), projector.plus(other_projector)])
    }

    /// Concatenates all gradients to one vector, in the order of the plans with the encoder's
    /// first, and replaces them by the result of `change`. Returns the gradients unchanged if there
    /// are none.
    ///
    /// # Errors
    /// Any error of `change`.
    ///
    /// # Panics
    /// If `change` returns a different number of values.
    pub fn map_flat<E>(
        self,
        change: impl FnOnce(Tensor<B::InnerBackend, 1>) -> core::result::Result<Tensor<B::InnerBackend, 1>, E>,
    ) -> core::result::Result<Self, E> {
        let all: Vec<_> = self.0.iter().flat_map(Gradients::values).collect();
        if all.is_empty() {
            return Ok(self);
        }
        let lengths: Vec<usize> = all.iter().map(|values| values.dims()[0]).collect();
        let changed = change(Tensor::cat(all, 0))?;
        assert_eq!(changed.dims()[0], lengths.iter().sum::<usize>(), "as many values as there were");
        let mut first = 0;
        let parts: Vec<_> = lengths
            .into_iter()
            .map(|length| {
                first += length;
                changed.clone().narrow(0, first - length, length)
            })
            .collect();
        let mut parts = parts.into_iter();
        Ok(ModelGradients(self.0.map(|gradients| gradients.replaced(&mut parts))))
    }

    /// Computes the squared norm of each parameter's gradient, `[parameter]`, the encoder's first.
    /// `squares` receives the gradient vectors and computes the result. Returns `None` if there are
    /// no gradients.
    pub fn squares(
        &self,
        squares: impl FnOnce(Vec<Tensor<B::InnerBackend, 1>>) -> Tensor<B::InnerBackend, 1>,
    ) -> Option<Tensor<B::InnerBackend, 1>> {
        let all: Vec<_> = self.0.iter().flat_map(Gradients::filled).collect();
        if all.is_empty() { None } else { Some(squares(all)) }
    }
}

impl<B: AutodiffBackend> Model<B> {
    /// Extracts the gradients of the trained parameters.
    pub fn gradients(&self, gradients: &B::Gradients) -> ModelGradients<B> {
        ModelGradients([self.encoder.gradients(gradients), self.projector.gradients(gradients)])
    }

    /// Replaces the trained parameters by the results of `update`. It receives all changes at once,
    /// with the checkpoint's names, and returns one new value per change, in their order. A
    /// parameter that the loss does not depend on keeps its value.
    ///
    /// # Panics
    /// If `update` returns a different number of values.
    pub fn update_all(
        &mut self,
        gradients: ModelGradients<B>,
        update: impl FnOnce(Vec<Change<B::InnerBackend>>) -> Vec<Tensor<B::InnerBackend, 1>>,
    ) {
        let mut changes = Vec::new();
        self.visit_trained(gradients.clone(), &mut |change| {
            changes.push(change);
            None
        });
        let count = changes.len();
        let mut updated = update(changes).into_iter();
        assert_eq!(updated.len(), count, "new values of parameters");
        self.visit_trained(gradients, &mut |_| updated.next());
    }

    /// Like [`Model::update_running`], but `updated` computes all new running statistics at once. It
    /// returns one value per statistic, in their order.
    ///
    /// # Panics
    /// If `updated` returns a different number of values.
    pub fn update_running_together(
        &mut self,
        statistics: [BatchStatistics<B>; 2],
        updated: impl FnOnce(Vec<Running<B::InnerBackend>>) -> Vec<Tensor<B::InnerBackend, 1>>,
    ) {
        let mut all = Vec::new();
        self.visit_running(statistics.clone(), &mut |one: Running<B>| {
            all.push(Running { value: one.value.inner(), batch: one.batch.inner(), factor: one.factor });
            None
        });
        let count = all.len();
        let mut updated = updated(all).into_iter();
        assert_eq!(updated.len(), count, "new running statistics");
        self.visit_running(statistics, &mut |_| updated.next().map(Tensor::from_inner));
    }

    fn visit_running(
        &mut self,
        [encoder, projector]: [BatchStatistics<B>; 2],
        visit: &mut dyn FnMut(Running<B>) -> Option<Tensor<B, 1>>,
    ) {
        self.encoder.visit_running(encoder, visit);
        self.projector.visit_running(projector, visit);
    }

    /// Visits every trained parameter that the loss depends on, with its name in the checkpoint.
    fn visit_trained(&mut self, gradients: ModelGradients<B>, visit: &mut Visit<'_, B>) {
        let networks = [("encoder", &mut self.encoder), ("projector", &mut self.projector)];
        for ((prefix, network), gradients) in networks.into_iter().zip(gradients.0) {
            network.visit_trained(gradients, &mut |mut change| {
                change.parameter.name = format!("{prefix}.{}", change.parameter.name);
                visit(change)
            });
        }
    }
}
