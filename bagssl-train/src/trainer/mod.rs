//! The training loop.

mod check;
mod saving;
mod state;
mod epoch_reporter;

use std::marker::PhantomData;
use std::sync::Arc;

use bagssl_core::batch::{Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::checkpoint::SettingChange;
use bagssl_core::model::{BatchStatistics, Kernels, Model, ModelGradients, ModelParts};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::profile::span;
use burn::module::{AutodiffModule, Module};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::config::{CheckedConfig, OnNotFinite};
use crate::distributed::{Collective, Rank, with_exchange};
use crate::error::{Error, Result};
use crate::loss::{LinAlg, LossValue};
use crate::metrics::step::{PendingMetrics, StepMetrics};
use crate::optimizer::{FusedOptimizer, Optimizer};
use crate::run_state::StateStore;
use crate::schedule::StepSchedule;
use epoch_reporter::{EpochReporter, Means};

/// A description of a run that is stored in its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunInfo {
    /// The name of the preset or config.
    pub preset: String,
    /// The fingerprint of the training images.
    pub data: String,
    /// All other settings that affect the weights, by name. A run can only be resumed if these and
    /// the config match.
    pub settings: Vec<(String, String)>,
    /// Settings that may differ when the run is resumed, such as the location of the images, by
    /// name. Changes are recorded.
    pub circumstances: Vec<(String, String)>,
    /// Whether a resumed run may change the learning rate, the number of epochs, or the policy for
    /// non-finite steps.
    pub may_change: bool,
}

/// A model in training, with its optimizer and position in the schedule.
#[derive(Debug)]
pub struct Trainer<B: AutodiffBackend, K> {
    config: CheckedConfig,
    info: RunInfo,
    device: B::Device,
    model: Model<B>,
    optimizer: Optimizer<B::InnerBackend>,
    step: u64,
    /// The number of skipped steps.
    skipped: u64,
    /// The means over the steps of the current epoch.
    means: Means,
    /// The number of steps up to the end of the last epoch that was reported to the observer since
    /// this trainer was created.
    ended: u64,
    /// The step of the last state that was saved or resumed from.
    saved: Option<u64>,
    /// All settings that were changed when the run was resumed; `unreported` has those that are not
    /// reported yet.
    changes: Vec<SettingChange>,
    unreported: Vec<SettingChange>,
    /// The last batch on the device, if its source caches it and may yield it again.
    cached: Option<(PatchBatch, Vec<Part<B>>)>,
    exchange: Option<Arc<dyn Collective<B::InnerBackend>>>,
    /// Whether this worker's observer has requested a stop. The other workers learn of it in the
    /// next step.
    stop: bool,
    kernels: PhantomData<K>,
}

/// The reason why [`Trainer::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Finished,
    /// An observer requested a stop. The state has been saved.
    Stopped,
}

impl<B: AutodiffBackend, K: Kernels<B> + LinAlg<B::InnerBackend>> Trainer<B, K> {
    /// Creates a trainer with random weights, at step 0.
    ///
    /// # Errors
    /// [`Error::Setting`] if an optimizer setting is out of range.
    pub fn new(config: CheckedConfig, info: RunInfo, device: B::Device) -> Result<Self> {
        let model = Model::init(config.plan(), config.config().seed, &device);
        let optimizer = Optimizer::new(config.config().optimizer)?;
        Ok(Trainer {
            config,
            info,
            device,
            model,
            optimizer,
            step: 0,
            skipped: 0,
            means: Means::default(),
            ended: 0,
            saved: None,
            changes: Vec::new(),
            unreported: Vec::new(),
            cached: None,
            exchange: None,
            stop: false,
            kernels: PhantomData,
        })
    }

    /// Makes the optimizer use the fused implementation `fused`.
    pub fn set_fused_optimizer(&mut self, fused: Box<dyn FusedOptimizer<B::InnerBackend>>) {
        self.optimizer.set_fused(fused);
    }

    /// Makes this trainer one of several workers that share each batch and take the same steps. All
    /// workers must start with the same config (with the size of the entire batch) and state. Each
    /// has a source that yields its own images. The kernels must be
    /// [`SyncBatchNorm`](crate::distributed::SyncBatchNorm), so that batch norm statistics cover
    /// the entire batch. If one worker's observer requests a stop, all workers stop after the next
    /// step.
    ///
    /// # Errors
    /// [`Error::Setting`] if the images of a batch cannot be divided evenly among the workers.
    pub fn set_workers(&mut self, exchange: Arc<dyn Collective<B::InnerBackend>>) -> Result<()> {
        exchange.rank().share(self.config.config().batch.images)?;
        self.exchange = Some(exchange);
        Ok(())
    }

    /// Detaches this trainer from the other workers. Pending calls of the others fail.
    pub fn leave_workers(&mut self) {
        self.exchange = None;
    }

    /// Returns the number of completed steps, including skipped ones.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Returns the number of steps that were skipped because their loss or gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns the model.
    pub fn model(&self) -> &Model<B> {
        &self.model
    }

    /// Returns the model without autodiff, for inference.
    pub fn trained_model(&self) -> Model<B::InnerBackend> {
        self.model.valid()
    }

    /// Trains to the end of the schedule, or until the observer requests a stop.
    ///
    /// The state is saved when the store requests it ([`StateStore::is_due`]), before this returns,
    /// and, if possible, before an error is returned. With several workers, only the first one
    /// saves. On asynchronous kernels ([`Kernels::IS_ASYNC`]) the observer receives a step's
    /// metrics while the next step is already running, and a stop takes effect after that next
    /// step.
    ///
    /// # Errors
    /// - [`Error::Source`], [`Error::Observer`], [`Error::Kernels`] or [`Error::File`] as they
    ///   occur
    /// - [`Error::NotFinite`] with the step if the loss or a gradient is not finite, unless the
    ///   config says to skip such steps
    /// - [`Error::Unusable`] if a value to be saved is not finite
    /// - [`Error::NothingTrained`] if an epoch has ended and all steps so far were skipped
    /// - [`Error::Batch`] or [`Error::Batches`] if the shape or number of batches differs from what
    ///   the source declared
    /// - those of [`Trainer::check`], before anything else
    /// - [`Error::Setting`] if a batch has fewer than two images or patches
    /// - [`Error::Workers`] if another worker has exited or failed
    /// - [`Error::Core`] if a state cannot be serialized
    pub fn run(
        &mut self,
        source: &dyn PatchSource,
        observer: &mut dyn Observer,
        store: &mut dyn StateStore,
    ) -> Result<Ended> {
        let (schedule, per_epoch) = self.checked(source)?;
        for SettingChange { step, setting, from, to } in std::mem::take(&mut self.unreported) {
            let event = Event::Changed { step, setting: &setting, from: &from, to: &to };
            observer.observe(&event).map_err(Error::Observer)?;
        }
        while self.step < schedule.steps() {
            let verdict = match self.epoch(source, observer, store, schedule, per_epoch) {
                Ok(verdict) => verdict,
                Err(error) => {
                    self.save_before(&error, observer, store, per_epoch);
                    return Err(error);
                }
            };
            let is_last = verdict == Verdict::Stop || self.step == schedule.steps();
            let saved = match is_last || store.is_due(self.position(per_epoch)) {
                true => self.save(observer, store, per_epoch)?,
                false => Verdict::Continue,
            };
            if (verdict == Verdict::Stop || saved == Verdict::Stop) && self.step < schedule.steps() {
                return Ok(Ended::Stopped);
            }
        }
        self.check_trained()?;
        Ok(Ended::Finished)
    }

    /// Runs the rest of the current epoch.
    fn epoch(
        &mut self,
        source: &dyn PatchSource,
        observer: &mut dyn Observer,
        store: &mut dyn StateStore,
        schedule: StepSchedule,
        per_epoch: u64,
    ) -> Result<Verdict> {
        let number = (self.step / per_epoch) as u32;
        let reporter =
            EpochReporter { observer, epoch: number, schedule, rate: self.config.config().optimizer.learning_rate() };
        let parameters = self.config.plan().parameters().into_iter().filter(|parameter| parameter.role.is_trained());
        let parameters = parameters.map(|parameter| parameter.name).collect();
        let mut epoch = Epoch { reporter, parameters, queued: None, projections: None };
        let stepped = self.steps(source, store, &mut epoch, per_epoch);
        if matches!(stepped, Err(Error::NotFinite { .. } | Error::Kernels(_))) {
            // Steps queued after the failure are invalid.
            return stepped;
        }
        // A step that is still queued came before any other error, and may be its cause.
        let last = epoch.queued.take().map_or(Ok(Verdict::Continue), |last| self.report_queued(&mut epoch, last));
        let verdict = either(last?, stepped?);
        let (expected, got) = (per_epoch, self.step - u64::from(number) * per_epoch);
        if got < expected && verdict == Verdict::Stop {
            return Ok(Verdict::Stop);
        }
        if got != expected {
            return Err(Error::Batches { expected, got });
        }
        let Epoch { mut reporter, projections, .. } = epoch;
        let of_projections = match projections {
            Some(projections) => reporter.projections(self.step, projections)?,
            None => Verdict::Continue,
        };
        let of_epoch = reporter.epoch(self.step, &self.means)?;
        (self.means, self.ended) = (Means::default(), self.step);
        self.check_trained()?;
        Ok(either(verdict, either(of_projections, of_epoch)))
    }

    /// Runs the remaining steps of an epoch, or fewer if a stop is requested.
    fn steps(
        &mut self,
        source: &dyn PatchSource,
        store: &mut dyn StateStore,
        epoch: &mut Epoch<'_, B, K>,
        per_epoch: u64,
    ) -> Result<Verdict> {
        let skips = self.config.config().on_not_finite == OnNotFinite::Skip;
        let schedule = epoch.reporter.schedule;
        for batch in awaited(source.epoch(epoch.reporter.epoch, (self.step % per_epoch) as usize)) {
            let batch = batch.map_err(Error::Source)?;
            if let Some(exchange) = &self.exchange {
                // Detects workers that have exited: calls within a step may not check for that.
                exchange.barrier()?;
            }
            let pass = self.checked_pass(batch, source)?;
            let projections = pass.readout.projections();
            let verdict = if K::IS_ASYNC && !skips {
                // The device runs this step while the host waits for the previous one.
                self.update(pass.gradients, pass.statistics, schedule);
                epoch.projections = Some(projections);
                let before = epoch.queued.replace(Queued::Metrics(pass.readout.begin()));
                before.map_or(Ok(Verdict::Continue), |before| self.report_queued(epoch, before))?
            } else {
                let metrics = pass.readout.begin();
                let (step, names) = (metrics.step(), metrics.names());
                match metrics.read(&epoch.parameters) {
                    Err(Error::NotFinite { value, images, .. }) if skips => {
                        (self.step, self.skipped) = (self.step + 1, self.skipped + 1);
                        let verdict = epoch.reporter.skipped(step, (&value, &images), names, &mut self.means)?;
                        self.for_all(verdict)
                    }
                    read => {
                        let read = read?;
                        epoch.projections = Some(projections);
                        self.update(pass.gradients, pass.statistics, schedule);
                        self.report_step(&mut epoch.reporter, step, read)?
                    }
                }
            };
            let saved = self.save_within(epoch, store, per_epoch)?;
            if either(verdict, saved) == Verdict::Stop {
                return Ok(Verdict::Stop);
            }
        }
        Ok(Verdict::Continue)
    }

    /// Reports a queued step to the observer, unless it has been reported already.
    fn report_queued(&mut self, epoch: &mut Epoch<'_, B, K>, queued: Queued<B, K>) -> Result<Verdict> {
        match queued {
            Queued::Metrics(metrics) => {
                let step = metrics.step();
                self.report_step(&mut epoch.reporter, step, metrics.read(&epoch.parameters)?)
            }
            Queued::Reported(verdict) => Ok(verdict),
        }
    }

    /// Reports a step to the observer. Workers stop only when all of them know that one has
    /// requested it.
    fn report_step(
        &mut self,
        reporter: &mut EpochReporter<'_>,
        step: u64,
        (metrics, all_stop): Read,
    ) -> Result<Verdict> {
        let verdict = reporter.step(step, metrics, &mut self.means)?;
        let own = self.for_all(verdict);
        if self.exchange.is_none() {
            return Ok(own);
        }
        if all_stop {
            self.stop = false;
        }
        Ok(if all_stop { Verdict::Stop } else { Verdict::Continue })
    }

    /// Returns the observer's verdict if this worker is alone. Otherwise stores a stop request,
    /// which the other workers have yet to learn of.
    fn for_all(&mut self, verdict: Verdict) -> Verdict {
        if self.exchange.is_none() {
            return verdict;
        }
        self.stop |= verdict == Verdict::Stop;
        Verdict::Continue
    }

    /// Computes the loss and gradients of a batch.
    fn checked_pass(&mut self, batch: PatchBatch, source: &dyn PatchSource) -> Result<Pass<B, K>> {
        let shape = batch.shape();
        if shape != source.shape() {
            return Err(Error::Batch { expected: source.shape(), got: shape });
        }
        let images = batch.images().to_vec();
        let parts = self.parts(batch);
        with_exchange(self.exchange.as_ref(), || match &parts[..] {
            [full_batch_pass] if self.exchange.is_none() => self.full_batch_pass(full_batch_pass.clone(), images),
            [full_batch_pass] => self.shared(full_batch_pass.clone(), images),
            parts => self.grad_cache_pass(parts, images),
        })
    }

    /// Uploads a batch to the device in parts. A batch that the source caches and yields again is
    /// uploaded once.
    fn parts(&mut self, batch: PatchBatch) -> Vec<Part<B>> {
        if let Some((_, parts)) = self.cached.as_ref().filter(|(cached, _)| cached.shares_with(&batch)) {
            return parts.clone();
        }
        let reused = batch.is_shared().then(|| batch.clone());
        let _span = span("batch to the device");
        let parts = parts::<B, K>(batch, self.config.config().batch.micro_batch(), &self.device);
        self.cached = reused.map(|batch| (batch, parts.clone()));
        parts
    }

    /// Runs the optimizer and updates the running statistics.
    fn update(&mut self, gradients: ModelGradients<B>, statistics: [BatchStatistics<B>; 2], schedule: StepSchedule) {
        let _span = span("optimizer");
        let factor = schedule.factor(self.step);
        self.optimizer.begin_step();
        let optimizer = &mut self.optimizer;
        self.model.update_all(gradients, |changes| optimizer.update_all(changes, factor));
        self.model.update_running_together(statistics, K::update_running_stats);
        self.step += 1;
    }

    fn forward(&self, patches: Tensor<B, 4>) -> ModelParts<B> {
        let _span = span("forward");
        self.model.forward_train::<K>(patches)
    }

    fn backward(&self, objective: Tensor<B, 1>) -> ModelGradients<B> {
        let _span = span("backward");
        self.model.gradients(&objective.backward())
    }

    /// Processes all patches in one pass.
    fn full_batch_pass(&self, patches: Part<B>, images: Vec<u32>) -> Result<Pass<B, K>> {
        let output = self.forward(patches.tensor);
        let [_, dim] = output.projection.dims();
        let projections = output.projection.reshape([patches.images, patches.patches, dim]);
        let value = {
            let _span = span("loss");
            self.config.loss().value::<B, K>(projections.clone())?
        };
        let gradients = self.backward(value.objective.clone());
        self.finished(images, value, projections.inner(), gradients, output.statistics)
    }

    /// Processes all patches of this worker in one pass. The loss covers the projections of all
    /// workers.
    fn shared(&self, patches: Part<B>, images: Vec<u32>) -> Result<Pass<B, K>> {
        let output = self.forward(patches.tensor);
        let [_, dim] = output.projection.dims();
        let projections = output.projection.reshape([patches.images, patches.patches, dim]);
        let (value, gradient) = self.loss(projections.clone().inner())?;
        let objective = (projections.clone() * Tensor::from_inner(gradient)).sum();
        let gradients = self.backward(objective);
        self.finished(images, value, projections.inner(), gradients, output.statistics)
    }

    /// Computes the loss over the projections of all workers, `[image, patch, dim]`, and its
    /// gradient with respect to this worker's projections.
    fn loss(&self, projections: Tensor<B::InnerBackend, 3>) -> Result<(LossValue<B>, Tensor<B::InnerBackend, 3>)> {
        let [images, patches, dim] = projections.dims();
        let (first, all) = match &self.exchange {
            None => (0, projections),
            Some(exchange) => {
                let all = exchange.all_gather(projections.reshape([images * patches * dim]))?;
                let Rank { rank: number, world_size: count } = exchange.rank();
                (number * images, all.reshape([count * images, patches, dim]))
            }
        };
        let _span = span("loss");
        let all = Tensor::<B, 3>::from_inner(all).require_grad();
        let value = self.config.loss().value::<B, K>(all.clone())?;
        let gradient = all.grad(&value.objective.clone().backward()).expect("the loss depends on all of them");
        if let Some(exchange) = &self.exchange {
            // Burn's backward pass ends by waiting for all other backward passes of the process.
            // Synchronized batch norms wait for each other within their backward pass. So none may
            // begin before the loss's backward pass has ended on every worker.
            exchange.barrier()?;
        }
        Ok((value, gradient.narrow(0, first, images)))
    }

    /// Processes some patches of each image at a time, in two passes (GradCache). The first pass
    /// computes all projections, then the loss of the entire batch and its gradient. The second
    /// pass backpropagates that gradient. Only one part's activations are in memory at a time, plus
    /// all projections.
    ///
    /// # Source
    /// Gao et al., *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*,
    /// RepL4NLP 2021.
    fn grad_cache_pass(&self, parts: &[Part<B>], images: Vec<u32>) -> Result<Pass<B, K>> {
        let (mut projections, mut encoders, mut projectors) = (Vec::new(), Vec::new(), Vec::new());
        // Without gradients no activations are stored. A graph that is merely dropped stays in
        // memory until the next backward pass.
        let frozen = self.model.clone().no_grad();
        for part in parts {
            let _span = span("forward, without gradients");
            let output = frozen.forward_train::<K>(part.tensor.clone());
            let [_, dim] = output.projection.dims();
            projections.push(output.projection.reshape([part.images, part.patches, dim]).inner());
            let [encoder, projector] = output.statistics;
            encoders.push(encoder);
            projectors.push(projector);
        }
        let projections = Tensor::cat(projections, 1);
        let (value, gradient) = self.loss(projections.clone())?;
        let mut sum: Option<ModelGradients<B>> = None;
        let mut first = 0;
        for part in parts {
            let share = gradient.clone().narrow(1, first, part.patches);
            first += part.patches;
            let projection = self.forward(part.tensor.clone()).projection;
            let share = Tensor::from_inner(share.reshape(projection.shape()));
            let gradients = self.backward((projection * share).sum());
            sum = Some(match sum {
                Some(sum) => sum.plus(gradients),
                None => gradients,
            });
        }
        let gradients = sum.expect("a batch has parts");
        let statistics = [BatchStatistics::mean(encoders), BatchStatistics::mean(projectors)];
        self.finished(images, value, projections, gradients, statistics)
    }

    /// Sums the gradients over all workers and collects the results of the pass.
    fn finished(
        &self,
        images: Vec<u32>,
        value: LossValue<B>,
        projections: Tensor<B::InnerBackend, 3>,
        gradients: ModelGradients<B>,
        statistics: [BatchStatistics<B>; 2],
    ) -> Result<Pass<B, K>> {
        let _span = span("figures");
        let mut stops = Tensor::<B::InnerBackend, 1>::full([1], f32::from(self.stop), &projections.device());
        let gradients = match &self.exchange {
            None => gradients,
            Some(exchange) => gradients.map_flat(|own| {
                let values = own.dims()[0];
                let all = exchange.all_reduce(Tensor::cat(vec![own, stops.clone()], 0))?;
                stops = all.clone().narrow(0, values, 1);
                Ok::<_, Error>(all.narrow(0, 0, values))
            })?,
        };
        let squares = gradients.squares(K::squared_norms).ok_or_else(|| Error::not_finite("the gradient"))?;
        let readout = StepMetrics::new(self.step + 1, images, value, projections, squares, stops);
        Ok(Pass { gradients, statistics, readout })
    }
}

/// The metrics of a step by name, and whether a worker requested a stop.
type Read = (Vec<(&'static str, f64)>, bool);

/// The results of a step's forward and backward pass.
struct Pass<B: AutodiffBackend, K> {
    gradients: ModelGradients<B>,
    statistics: [BatchStatistics<B>; 2],
    readout: StepMetrics<B, K>,
}

/// An epoch in progress.
struct Epoch<'a, B: AutodiffBackend, K> {
    reporter: EpochReporter<'a>,
    /// The names of the trained parameters.
    parameters: Vec<String>,
    /// The last queued step.
    queued: Option<Queued<B, K>>,
    /// The projections of the last batch.
    projections: Option<Tensor<B::InnerBackend, 3>>,
}

/// A queued step.
enum Queued<B, K> {
    /// A step that has not been reported.
    Metrics(PendingMetrics<B, K>),
    /// A step that has been reported, with the observer's verdict.
    Reported(Verdict),
}

/// Returns `Stop` if either verdict is `Stop`.
fn either(one: Verdict, other: Verdict) -> Verdict {
    if one == Verdict::Stop { one } else { other }
}

/// Wraps batches to profile the time spent waiting for them.
fn awaited(mut batches: Batches<'_>) -> impl Iterator<Item = std::result::Result<PatchBatch, SourceError>> {
    std::iter::from_fn(move || {
        let _span = span("wait for a batch");
        batches.next()
    })
}

/// Some patches of each image of a batch.
#[derive(Debug, Clone)]
struct Part<B: AutodiffBackend> {
    /// `[image * patch, channel, height, width]`
    tensor: Tensor<B, 4>,
    images: usize,
    patches: usize,
}

/// Splits a batch into parts of `together` patches per image.
fn parts<B: AutodiffBackend, K: Kernels<B>>(batch: PatchBatch, together: usize, device: &B::Device) -> Vec<Part<B>> {
    let shape = batch.shape();
    let dims = [shape.images * together, shape.channels, shape.height, shape.width];
    let part =
        |values: Vec<f32>| Part { tensor: K::upload(values, dims, device), images: shape.images, patches: together };
    if together == shape.patches {
        return vec![part(batch.into_data())];
    }
    let of_image = shape.patches * shape.patch_len();
    let length = together * shape.patch_len();
    let first = |number: usize| {
        let rows = batch.data().chunks(of_image).flat_map(|image| &image[number * length..][..length]);
        rows.copied().collect()
    };
    (0..shape.patches / together).map(|number| part(first(number))).collect()
}
