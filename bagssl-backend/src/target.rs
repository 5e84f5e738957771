//! Implements [`Backend`] for any Burn backend.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bagssl_core::batch::PatchSource;
use bagssl_core::checkpoint::{Checkpoint, ModelPlan};
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::model::{Batching, Embedder, FoldedModel, Kernels, Model};
use bagssl_core::observe::Observer;
use bagssl_train::config::CheckedConfig;
use bagssl_train::distributed::{Collective, Threads};
use bagssl_train::loss::LinAlg;
use bagssl_train::run_state::StateStore;
use bagssl_train::trainer::{Ended, RunInfo, Trainer};
use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend as BurnBackend, BackendTypes};
use burn::tensor::{Tensor, TensorData};

use crate::backend::{AnyTrainer, Backend, Inference, Weights, Worker};
use crate::error::{Error, Result};
use bagssl_core::memory;

/// The components of a backend, from which [`Backend`] is implemented.
pub(crate) trait Target: Debug + Send + Sync + 'static {
    /// Burn's backend.
    type Burn: BurnBackend;
    /// The operations of the network.
    type Kernels: Kernels<Self::Burn> + Debug + 'static;
    /// The same operations with gradients.
    type Training: Kernels<Autodiff<Self::Burn>> + LinAlg<Self::Burn> + Debug + 'static;

    /// The batch size of embedding. The default, for a CPU, is 512 patches of 32x32.
    const BATCHING: Batching = Batching { pixels: 1 << 19, in_flight: 1 };

    /// The number of bytes per value of a feature map in training.
    const MAP_VALUE_BYTES: u64 = 4;

    /// Configures a trainer for this target.
    fn prepare(_: &mut TrainerOn<Self>) {}

    fn free_memory(devices: usize) -> Option<u64> {
        Some(memory::available()? / devices as u64)
    }

    fn memory_used() -> Option<u64> {
        memory::process_memory().map(|memory| memory.peak)
    }

    /// Checks that the backend can run a plan.
    fn check_plan(_: &ModelPlan) -> Result<()> {
        Ok(())
    }

    fn workers(count: usize) -> bagssl_train::Result<Vec<WorkerOn<Self>>> {
        let ends = Threads::<Self::Burn>::new(count).into_iter();
        Ok(ends.map(|end| WorkerOn { device: Default::default(), exchange: Arc::new(end) }).collect())
    }

    fn trained(&self, checkpoint: &Checkpoint<'_>, _layers: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        embedder::<Self>(Weights::Checkpoint(checkpoint), 0)
    }

    fn random(&self, plan: &ModelPlan, seed: u64, _side: u32, _layers: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        embedder::<Self>(Weights::Random(plan), seed)
    }
}

/// The device of a target's backend.
pub(crate) type DeviceOf<T> = <<T as Target>::Burn as BackendTypes>::Device;
/// A trainer on a target.
pub(crate) type TrainerOn<T> = Trainer<Autodiff<<T as Target>::Burn>, <T as Target>::Training>;

fn model<T: Target + ?Sized>(weights: Weights<'_>, seed: u64) -> Result<Model<T::Burn>> {
    let device = DeviceOf::<T>::default();
    match weights {
        Weights::Checkpoint(checkpoint) => {
            T::check_plan(&checkpoint.spec().model)?;
            checkpoint.check_values()?;
            Ok(Model::load(checkpoint, &device)?)
        }
        Weights::Random(plan) => {
            T::check_plan(plan)?;
            Ok(Model::init(plan, seed, &device))
        }
    }
}

fn embedder<T: Target + ?Sized>(weights: Weights<'_>, seed: u64) -> Result<Box<dyn Embed>> {
    let model = model::<T>(weights, seed)?;
    Ok(Box::new(Embedder::<_, T::Kernels>::new(&model, Default::default(), T::BATCHING)))
}

fn trainer<T: Target + ?Sized>(
    device: DeviceOf<T>,
    config: CheckedConfig,
    info: RunInfo,
    state: Option<&[u8]>,
) -> bagssl_train::Result<Box<TrainerOn<T>>> {
    let mut trainer: TrainerOn<T> = match state {
        None => Trainer::new(config, info, device)?,
        Some(bytes) => Trainer::resume(config, info, device, bytes)?,
    };
    T::prepare(&mut trainer);
    Ok(Box::new(trainer))
}

impl<T: Target> Backend for T {
    fn trained(&self, checkpoint: &Checkpoint<'_>, layers: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        Target::trained(self, checkpoint, layers)
    }

    fn random(&self, plan: &ModelPlan, seed: u64, side: u32, layers: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        Target::random(self, plan, seed, side, layers)
    }

    fn trainer(
        &self,
        config: CheckedConfig,
        info: RunInfo,
        state: Option<&[u8]>,
    ) -> bagssl_train::Result<Box<dyn AnyTrainer>> {
        Ok(trainer::<T>(Default::default(), config, info, state)?)
    }

    fn workers(&self, count: usize) -> bagssl_train::Result<Vec<Box<dyn Worker>>> {
        let workers = <T as Target>::workers(count)?.into_iter();
        Ok(workers.map(|worker| Box::new(worker) as Box<dyn Worker>).collect())
    }

    fn inference(&self, weights: Weights<'_>, batch: usize, size: [usize; 2]) -> Result<Box<dyn Inference>> {
        let model = model::<T>(weights, 0)?;
        if model.encoder().plan().multiply_accumulates(size).is_none() {
            return Err(Error::PatchSize(size));
        }
        let dims = [batch, 3, size[0], size[1]];
        let values: Vec<f32> = (0..dims.iter().product()).map(|i| (i % 23) as f32 / 11.5 - 1.0).collect();
        let input = Tensor::from_data(TensorData::new(values, dims), &Default::default());
        Ok(Box::new(InferenceOn::<T::Burn, T::Kernels> {
            model: FoldedModel::new(&model),
            input,
            last: None,
            kernels: PhantomData,
        }))
    }

    fn map_value_bytes(&self) -> u64 {
        T::MAP_VALUE_BYTES
    }

    fn free_memory(&self, devices: usize) -> Option<u64> {
        <T as Target>::free_memory(devices)
    }

    fn memory_used(&self) -> Option<u64> {
        <T as Target>::memory_used()
    }
}

impl<B: AutodiffBackend, K: Kernels<B> + LinAlg<B::InnerBackend>> AnyTrainer for Trainer<B, K> {
    fn step(&self) -> u64 {
        Trainer::step(self)
    }

    fn skipped(&self) -> u64 {
        Trainer::skipped(self)
    }

    fn check(&self, source: &dyn PatchSource) -> bagssl_train::Result<()> {
        Trainer::check(self, source)
    }

    fn run(
        &mut self,
        source: &dyn PatchSource,
        observer: &mut dyn Observer,
        store: &mut dyn StateStore,
    ) -> bagssl_train::Result<Ended> {
        Trainer::run(self, source, observer, store)
    }

    fn checkpoint(&self) -> bagssl_train::Result<Vec<u8>> {
        Trainer::checkpoint(self)
    }

    fn leave_workers(&mut self) {
        Trainer::leave_workers(self);
    }
}

/// A device, and its handle for communicating with other workers.
#[derive(Debug)]
pub(crate) struct WorkerOn<T: Target + ?Sized> {
    pub(crate) device: DeviceOf<T>,
    pub(crate) exchange: Arc<dyn Collective<T::Burn>>,
}

impl<T: Target> Worker for WorkerOn<T> {
    fn share(&self, images: usize) -> bagssl_train::Result<Range<usize>> {
        self.exchange.rank().share(images)
    }

    fn trainer(
        self: Box<Self>,
        config: CheckedConfig,
        info: RunInfo,
        state: Option<&[u8]>,
    ) -> bagssl_train::Result<Box<dyn AnyTrainer>> {
        let WorkerOn { device, exchange } = *self;
        let mut trainer = trainer::<T>(device, config, info, state)?;
        trainer.set_workers(exchange)?;
        Ok(trainer)
    }
}

/// A model and its input batch.
struct InferenceOn<B: BurnBackend, K> {
    model: FoldedModel<B>,
    input: Tensor<B, 4>,
    /// The output of the last pass.
    last: Option<Tensor<B, 2>>,
    kernels: PhantomData<K>,
}

impl<B: BurnBackend, K: Kernels<B>> Inference for InferenceOn<B, K> {
    fn pass(&mut self) {
        self.last = Some(self.model.features::<K>(self.input.clone(), &[FeatureLayer::Embedding]).remove(0));
    }

    fn wait(&mut self) -> Result<()> {
        // Reading a value waits for all work queued before it.
        if let Some(output) = self.last.take() {
            output.slice([0..1, 0..1]).into_data();
        }
        K::check().map_err(bagssl_train::Error::Kernels)?;
        Ok(())
    }
}
