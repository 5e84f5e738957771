//! What is asked of a backend.

use std::ops::Range;

use bagssl_core::batch::PatchSource;
use bagssl_core::checkpoint::{Checkpoint, ModelPlan};
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::observe::Observer;
use bagssl_train::config::CheckedConfig;
use bagssl_train::run_state::StateStore;
use bagssl_train::trainer::{Ended, RunInfo};

use crate::error::Result;

/// A backend with its kernels.
pub trait Backend: Send + Sync {
    /// A network with a checkpoint's weights, for features at `taps`.
    ///
    /// # Errors
    /// [`Error::Core`](crate::Error::Core) if a weight is no number or memory is short, [`Error::Plan`](crate::Error::Plan) if
    /// the backend cannot run the network.
    fn trained(&self, checkpoint: &Checkpoint<'_>, taps: &[FeatureLayer]) -> Result<Box<dyn Embed>>;

    /// A network with random weights, for features at `taps` of patches of `side` pixels.
    ///
    /// # Errors
    /// As [`Backend::trained`].
    fn random(&self, plan: &ModelPlan, seed: u64, side: u32, taps: &[FeatureLayer]) -> Result<Box<dyn Embed>>;

    /// A model in training: at its first step, or with the `state` that an earlier one saved.
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

    /// Workers that share each batch, in the order of their ranks: on GPUs from the first on, or on threads of the CPU.
    ///
    /// # Errors
    /// [`Error::Cuda`](bagssl_train::Error::Cuda) if the GPUs cannot talk to each other.
    fn workers(&self, count: usize) -> bagssl_train::Result<Vec<Box<dyn Worker>>>;

    /// An encoder alone, to measure how fast it is on a batch of `[batch, 3, height, width]` made up values.
    ///
    /// # Errors
    /// As [`Backend::trained`]; [`Error::PatchSize`](crate::Error::PatchSize) if the patches are too small.
    fn inference(&self, weights: Weights<'_>, batch: usize, size: [usize; 2]) -> Result<Box<dyn Inference>>;

    /// Bytes of a value of a feature map in training.
    fn map_value_bytes(&self) -> u64;

    /// Bytes of memory that a training step could take on each of `devices`, where that is known.
    fn free_memory(&self, devices: usize) -> Option<u64>;

    /// Bytes of memory held, where that is known: the most so far on a CPU; on a GPU, which gives nothing back, what is in use.
    fn memory_held(&self) -> Option<u64>;
}

/// Where a network's weights come from.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// A checkpoint's.
    Checkpoint(&'a Checkpoint<'a>),
    /// Random ones of a plan.
    Random(&'a ModelPlan),
}

/// A [`Trainer`](bagssl_train::trainer::Trainer) on any backend. Its methods are documented there.
#[allow(missing_docs, reason = "they are those of Trainer")]
pub trait AnyTrainer {
    fn step(&self) -> u64;

    fn skipped(&self) -> u64;

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
    /// Its images of a batch of so many.
    ///
    /// # Errors
    /// As [`Rank::share`](bagssl_train::distributed::Rank::share).
    fn share(&self, images: usize) -> bagssl_train::Result<Range<usize>>;

    /// Its model in training, as [`Backend::trainer`]; `config` says the whole batch, the source gives this worker's share.
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

/// An encoder that looks at the same batch again and again.
pub trait Inference {
    /// Begins a pass. It may still be queued when this returns.
    fn pass(&mut self);

    /// Waits until all passes are done.
    ///
    /// # Errors
    /// [`Error::Kernels`](bagssl_train::Error::Kernels) if one has failed.
    fn wait(&mut self) -> Result<()>;
}
