//! The interface of a backend.

use std::ops::Range;

use bagssl_core::batch::PatchSource;
use bagssl_core::checkpoint::{Checkpoint, ModelPlan};
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::observe::Observer;
use bagssl_train::config::CheckedConfig;
use bagssl_train::run_state::StateStore;
use bagssl_train::trainer::{Ended, RunInfo};

use crate::error::Result;

/// A backend and its kernels.
pub trait Backend: Send + Sync {
    /// Creates a network with the weights of a checkpoint, to read features at the layers `layers`.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) if a weight is not finite or memory is insufficient,
    /// [`Error::Plan`](crate::Error::Plan) if the backend cannot run the network.
    fn trained(&self, checkpoint: &Checkpoint<'_>, layers: &[FeatureLayer]) -> Result<Box<dyn Embed>>;

    /// Creates a network with random weights, to read features at the layers `layers`, for patches of
    /// `side` pixels.
    ///
    /// # Errors
    /// As [`Backend::trained`].
    fn random(&self, plan: &ModelPlan, seed: u64, side: u32, layers: &[FeatureLayer]) -> Result<Box<dyn Embed>>;

    /// Creates a trainer at its first step, or resumes from a saved `state`.
    ///
    /// # Errors
    /// As [`Trainer::new`](bagssl_train::trainer::Trainer::new) and
    /// [`Trainer::resume`](bagssl_train::trainer::Trainer::resume).
    fn trainer(
        &self,
        config: CheckedConfig,
        info: RunInfo,
        state: Option<&[u8]>,
    ) -> bagssl_train::Result<Box<dyn AnyTrainer>>;

    /// Creates the workers that share each batch, ordered by rank: on the first `count` GPUs, or on
    /// CPU threads.
    ///
    /// # Errors
    /// [`Error::Cuda`](bagssl_train::Error::Cuda) if the GPUs cannot communicate.
    fn workers(&self, count: usize) -> bagssl_train::Result<Vec<Box<dyn Worker>>>;

    /// Creates an encoder to benchmark, with a batch of `[batch, 3, height, width]` synthetic
    /// values.
    ///
    /// # Errors
    /// As [`Backend::trained`]; [`Error::PatchSize`](crate::Error::PatchSize) if the patches are
    /// too small.
    fn inference(&self, weights: Weights<'_>, batch: usize, size: [usize; 2]) -> Result<Box<dyn Inference>>;

    /// Returns the number of bytes per value of a feature map in training.
    fn map_value_bytes(&self) -> u64;

    /// Returns the bytes of memory available to a training step on each of `devices` devices, if
    /// known.
    fn free_memory(&self, devices: usize) -> Option<u64>;

    /// Returns the bytes of memory in use, if known. On a CPU this is the peak so far. On a GPU,
    /// where freed memory stays reserved, it is the current use.
    fn memory_used(&self) -> Option<u64>;
}

/// The source of a network's weights.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// The weights of a checkpoint.
    Checkpoint(&'a Checkpoint<'a>),
    /// Random weights for a plan.
    Random(&'a ModelPlan),
}

/// A [`Trainer`](bagssl_train::trainer::Trainer) on any backend. Its methods are documented there.
#[allow(missing_docs, reason = "they are those of Trainer")]
pub trait AnyTrainer {
    fn step(&self) -> u64;

    fn skipped(&self) -> u64;

    /// # Errors
    /// As [`Trainer::check`](bagssl_train::trainer::Trainer::check).
    fn check(&self, source: &dyn PatchSource) -> bagssl_train::Result<()>;

    /// # Errors
    /// As [`Trainer::run`](bagssl_train::trainer::Trainer::run).
    fn run(
        &mut self,
        source: &dyn PatchSource,
        observer: &mut dyn Observer,
        store: &mut dyn StateStore,
    ) -> bagssl_train::Result<Ended>;

    /// # Errors
    /// As [`Trainer::checkpoint`](bagssl_train::trainer::Trainer::checkpoint).
    fn checkpoint(&self) -> bagssl_train::Result<Vec<u8>>;

    fn leave_workers(&mut self);
}

/// One of several workers that share a batch, before it has a model.
pub trait Worker: Send {
    /// Returns the indices of this worker's images in a batch of `images`.
    ///
    /// # Errors
    /// As [`Rank::share`](bagssl_train::distributed::Rank::share).
    fn share(&self, images: usize) -> bagssl_train::Result<Range<usize>>;

    /// Creates this worker's trainer, as [`Backend::trainer`]. `config` has the size of the entire
    /// batch; the source yields this worker's share.
    ///
    /// # Errors
    /// As [`Backend::trainer`].
    fn trainer(
        self: Box<Self>,
        config: CheckedConfig,
        info: RunInfo,
        state: Option<&[u8]>,
    ) -> bagssl_train::Result<Box<dyn AnyTrainer>>;
}

/// An encoder that processes the same batch repeatedly.
pub trait Inference {
    /// Starts a forward pass. It may still be queued when this returns.
    fn pass(&mut self);

    /// Waits for all passes to complete.
    ///
    /// # Errors
    /// [`Error::Kernels`](bagssl_train::Error::Kernels) if a pass has failed.
    fn wait(&mut self) -> Result<()>;
}
