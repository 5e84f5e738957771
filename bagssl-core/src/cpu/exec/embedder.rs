//! Embeds patches with a checkpoint's networks, without Burn.

use std::prelude::v1::*;
use std::sync::{Mutex, PoisonError};

use crate::batch::{BatchShape, PatchBatch, SourceError};
use crate::checkpoint::{Checkpoint, ModelPlan};
use crate::cpu::{Executor, ExecutorOptions, InstructionSet, WeightSource, Workspace, with_threads};
use crate::embed::{Embed, FeatureLayer, Rows};
use crate::error::{Error, Result};
use crate::limits;
use crate::plan::Plan;

/// Embeds batches of patches on the CPU, on the threads of [`with_threads`].
#[derive(Debug)]
pub struct Embedder {
    plan: ModelPlan,
    encoder: Stage,
    projector: Option<Stage>,
    first_layer: Option<Stage>,
    rows: usize,
}

/// A network and its workspace from the last run.
#[derive(Debug)]
struct Stage {
    executor: Executor,
    workspace: Mutex<Option<Workspace>>,
}

/// The settings of an [`Embedder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedderOptions {
    /// The instruction set of the kernels.
    pub set: InstructionSet,
    /// Whether to use only plain sums of products (see [`ExecutorOptions::exact`]).
    pub exact: bool,
    /// Maximum number of patches per run. Larger values are faster up to a point and need more
    /// memory. The number is reduced if the maps would exceed 1 GiB.
    pub rows: usize,
    /// The expected side of a patch in pixels.
    pub side: usize,
}

impl Embedder {
    /// Packs the weights of a checkpoint that the features at `layers` need.
    ///
    /// # Errors
    /// Like [`Executor::new`].
    pub fn new(checkpoint: &Checkpoint<'_>, layers: &[FeatureLayer], options: EmbedderOptions) -> Result<Self> {
        let mut source = |name: &str| checkpoint.tensor_ref(name).map(Into::into);
        Self::from_source(&checkpoint.spec().model, &mut source, layers, options)
    }

    /// Packs weights from any source of parameters, by their names in a checkpoint (`encoder.*`,
    /// `projector.*`).
    ///
    /// # Errors
    /// Like [`Executor::new`].
    pub fn from_source(
        plan: &ModelPlan,
        source: &mut WeightSource<'_>,
        layers: &[FeatureLayer],
        options: EmbedderOptions,
    ) -> Result<Self> {
        let EmbedderOptions { set, exact, rows, side } = options;
        let bytes = limits::map_bytes(plan.encoder(), [side; 2]).unwrap_or(0).max(1);
        let rows = rows.min((limits::MAX_MAP_BYTES / bytes).max(1) as usize);
        let mut stage = |prefix: &str, plan: &Plan, size| -> Result<Stage> {
            let mut source = |name: &str| source(&format!("{prefix}.{name}"));
            let executor = Executor::new(plan, &mut source, ExecutorOptions { set, exact, batch: rows, size })?;
            Ok(Stage { executor, workspace: Mutex::new(None) })
        };
        let encoder = stage("encoder", plan.encoder(), [side; 2])?;
        let projector = match layers.contains(&FeatureLayer::Projection) {
            true => Some(stage("projector", plan.projector(), [1, 1])?),
            false => None,
        };
        let first_layer = match layers.contains(&FeatureLayer::FirstLayer) {
            true => {
                let first = plan.projector().layers()[..1].to_vec();
                Some(stage("projector", &Plan::new(plan.projector().input(), first)?, [1, 1])?)
            }
            false => None,
        };
        Ok(Embedder { plan: plan.clone(), encoder, projector, first_layer, rows })
    }

    /// Returns the plan of the networks.
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// Returns the number of bytes of all packed weights.
    pub fn bytes(&self) -> usize {
        let stages = [Some(&self.encoder), self.projector.as_ref(), self.first_layer.as_ref()];
        stages.into_iter().flatten().map(|stage| stage.executor.bytes()).sum()
    }

    fn features(&self, shape: BatchShape, data: &[f32], layer: FeatureLayer, embeddings: &[f32]) -> Result<Vec<f32>> {
        let missing = || Error::Setting {
            name: "tap",
            expected: "a feature layer that the embedder was created for",
            got: layer.name().into(),
        };
        match layer {
            FeatureLayer::Embedding => {
                self.encoder.run(data, self.rows, shape.patch_len(), [shape.height, shape.width])
            }
            FeatureLayer::FirstLayer => {
                let dim = self.plan.dim(FeatureLayer::Embedding);
                self.first_layer.as_ref().ok_or_else(missing)?.run(embeddings, self.rows, dim, [1, 1])
            }
            FeatureLayer::Projection => {
                let dim = self.plan.dim(FeatureLayer::Embedding);
                self.projector.as_ref().ok_or_else(missing)?.run(embeddings, self.rows, dim, [1, 1])
            }
        }
    }
}

impl Stage {
    /// Runs at most `rows` inputs of length `one` at a time.
    fn run(&self, data: &[f32], rows: usize, one: usize, size: [usize; 2]) -> Result<Vec<f32>> {
        let mut cached = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        with_threads(|threads| {
            let batch = rows.min(data.len() / one);
            let fits = |workspace: &Workspace| {
                workspace.size() == size && workspace.batch() >= batch && workspace.threads() >= threads.count()
            };
            let mut workspace = match cached.take() {
                Some(workspace) if fits(&workspace) => workspace,
                _ => self.executor.workspace(batch.max(1), size, threads)?,
            };
            let mut output = Vec::new();
            for part in data.chunks(batch.max(1) * one) {
                self.executor.run_into(&mut workspace, part, threads, &mut output)?;
            }
            *cached = Some(workspace);
            Ok(output)
        })
    }
}

impl Embed for Embedder {
    fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
        let shape = batch.shape();
        if shape.channels != 3 {
            return Err(format!("expected patches with 3 channels, got {}", shape.channels).into());
        }
        let embeddings = self.features(shape, batch.data(), FeatureLayer::Embedding, &[])?;
        let mut all = Vec::with_capacity(layers.len());
        for &layer in layers {
            let values = match layer {
                FeatureLayer::Embedding => embeddings.clone(),
                other => self.features(shape, batch.data(), other, &embeddings)?,
            };
            all.push(Rows { values, dim: self.plan.dim(layer) });
        }
        Ok(all)
    }
}
