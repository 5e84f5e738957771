//! The training loop.

use std::marker::PhantomData;
use std::sync::Arc;

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::checkpoint::{Checkpoint, FORMAT_VERSION, OPTIMISER_PREFIX, Provenance, Spec, Training, to_bytes};
use bagssl_core::embed::Rows;
use bagssl_core::model::{BatchStatistics, Kernels, Model, ModelGradients, Trained};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::profile::span;
use burn::module::{AutodiffModule, Module};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::config::{CheckedConfig, OnNotFinite};
use crate::error::{Error, Result};
use crate::loss::{Algebra, LossValue};
use crate::optimiser::{Optimiser, Together};
use crate::readout::{Figures, Readout};
use crate::schedule::StepSchedule;
use crate::store::Store;
use crate::workers::{Exchange, Rank, with_exchange};

/// What a run is called in its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// The name of the preset or config.
    pub preset: String,
    /// The fingerprint of the training images.
    pub data: String,
    /// Everything else that the weights depend on, as text: with the config it decides whether a run may be resumed.
    pub settings: String,
}

/// A model in training: what one step after the other changes.
#[derive(Debug)]
pub struct Trainer<B: AutodiffBackend, K> {
    config: CheckedConfig,
    info: RunInfo,
    device: B::Device,
    model: Model<B>,
    optimiser: Optimiser<B::InnerBackend>,
    step: u64,
    /// The last batch on the device, if its source keeps it and may give it again.
    kept: Option<(PatchBatch, Vec<Part<B>>)>,
    exchange: Option<Arc<dyn Exchange<B::InnerBackend>>>,
    /// Whether this worker's observer has said stop: the others hear of it with the next step.
    stop: bool,
    kernels: PhantomData<K>,
}

/// How a call of [`Trainer::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Finished,
    /// An observer said stop; the state has been saved.
    Stopped,
}

impl<B: AutodiffBackend, K: Kernels<B> + Algebra<B::InnerBackend>> Trainer<B, K> {
    /// A model with random weights, at step 0.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting of the optimiser lies outside its range.
    pub fn new(config: CheckedConfig, info: RunInfo, device: B::Device) -> Result<Self> {
        let model = Model::init(config.plan(), config.config().seed, &device);
        let optimiser = Optimiser::new(config.config().optimiser)?;
        let (exchange, stop, kernels) = (None, false, PhantomData);
        Ok(Trainer { config, info, device, model, optimiser, step: 0, kept: None, exchange, stop, kernels })
    }

    /// The state that a run's [`Store`] was given.
    ///
    /// # Errors
    /// [`Error::Core`] if the bytes are not such a state, [`Error::OtherRun`] (with an empty path) if it is one of a run
    /// with other settings.
    pub fn resume(config: CheckedConfig, info: RunInfo, device: B::Device, bytes: &[u8]) -> Result<Self> {
        let checkpoint = Checkpoint::from_bytes(bytes)?;
        let mut trainer = Trainer::new(config, info, device)?;
        let same = |training: Training| training.config == trainer.settings_hash();
        let training = checkpoint.spec().training.filter(|&training| same(training));
        let training = training.ok_or_else(|| Error::OtherRun { path: Default::default() })?;
        trainer.model = Model::load(&checkpoint, &trainer.device)?;
        let names = checkpoint.names().into_iter().filter(|name| name.starts_with(OPTIMISER_PREFIX));
        let tensors = names
            .map(|name| Ok((name.to_string(), checkpoint.values(name)?)))
            .collect::<bagssl_core::Result<Vec<_>>>()?;
        let parameters = trainer.config.plan().parameters();
        trainer.optimiser.restore(training.step, &parameters, tensors, &trainer.device)?;
        trainer.step = training.step;
        Ok(trainer)
    }

    /// Lets `together` make the optimiser's steps.
    pub fn set_together(&mut self, together: Box<dyn Together<B::InnerBackend>>) {
        self.optimiser.set_together(together);
    }

    /// Makes this one of several workers that share each batch and take the same steps. All begin with the same config (whose
    /// batch is the whole one) and state; each has a source of its own images. The kernels have to be
    /// [`Synchronised`](crate::workers::Synchronised), so that batch norms see the whole batch. If the observer of one says
    /// stop, all stop after the next step.
    ///
    /// # Errors
    /// [`Error::Setting`] if the images of a batch cannot be divided evenly among the workers.
    pub fn set_workers(&mut self, exchange: Arc<dyn Exchange<B::InnerBackend>>) -> Result<()> {
        exchange.rank().share(self.config.config().batch.images)?;
        self.exchange = Some(exchange);
        Ok(())
    }

    /// Makes this a worker on its own again. Others that wait for it are told that it has ended.
    pub fn leave_workers(&mut self) {
        self.exchange = None;
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The model.
    pub fn model(&self) -> &Model<B> {
        &self.model
    }

    /// The model without gradients, for use.
    pub fn trained_model(&self) -> Model<B::InnerBackend> {
        self.model.valid()
    }

    /// Trains to the end of the schedule, or until the observer says stop. The state is saved after each epoch, and
    /// before the return (by the first of several workers). Where work is queued ([`Kernels::QUEUED`]) the observer hears of a step when the next one is under
    /// way, and that one is then done as well.
    ///
    /// # Errors
    /// [`Error::Source`], [`Error::Observer`], [`Error::Kernels`] or [`Error::File`] as they arise; [`Error::NotFinite`] with
    /// its step if the loss or a gradient is no number (unless the config says to skip such steps); [`Error::Batch`] or
    /// [`Error::Batches`] if a batch is not of the promised shape, or there are
    /// not as many of them.
    pub fn run(
        &mut self,
        source: &dyn PatchSource,
        observer: &mut dyn Observer,
        store: &mut dyn Store,
    ) -> Result<Ended> {
        let per_epoch = source.batches_per_epoch() as u64;
        if per_epoch == 0 {
            return Err(Error::Batches { expected: 1, got: 0 });
        }
        if let Some(exchange) = &self.exchange {
            let (shape, share) = (source.shape(), exchange.rank().share(self.config.config().batch.images)?);
            if shape.images != share.len() {
                return Err(Error::Batch { expected: BatchShape { images: share.len(), ..shape }, got: shape });
            }
        }
        let schedule = self.config.config().schedule.check(per_epoch)?;
        while self.step < schedule.steps() {
            let verdict = self.epoch(source, observer, schedule, per_epoch)?;
            if self.exchange.as_ref().is_none_or(|exchange| exchange.rank().number == 0) {
                store.save(&self.state(per_epoch)?)?;
            }
            let saved = observer.observe(&Event::Saved { step: self.step }).map_err(Error::Observer)?;
            let stops = saved == Verdict::Stop;
            // The other workers have yet to hear of it.
            self.stop |= stops && self.exchange.is_some();
            if (verdict == Verdict::Stop || stops && self.exchange.is_none()) && self.step < schedule.steps() {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::Finished)
    }

    /// The rest of the epoch that the next step belongs to.
    fn epoch(
        &mut self,
        source: &dyn PatchSource,
        observer: &mut dyn Observer,
        schedule: StepSchedule,
        per_epoch: u64,
    ) -> Result<Verdict> {
        let (epoch, first) = ((self.step / per_epoch) as u32, (self.step % per_epoch) as usize);
        let parameters = self.config.plan().parameters().into_iter().filter(|parameter| parameter.role.is_trained());
        let parameters: Vec<String> = parameters.map(|parameter| parameter.name).collect();
        let skips = self.config.config().on_not_finite == OnNotFinite::Skip;
        let rate = self.config.config().optimiser.rate();
        let mut telling = Telling { observer, epoch, schedule, rate, sums: Vec::new(), count: 0.0 };
        let (mut verdict, mut waiting) = (Verdict::Continue, None::<Figures<B, K>>);
        let mut last_projections = None;
        for batch in awaited(source.epoch(epoch, first)) {
            let batch = batch.map_err(Error::Source)?;
            if let Some(exchange) = &self.exchange {
                // Within a step nothing waits for a worker that has ended before it.
                exchange.meet()?;
            }
            let pass = self.checked_pass(batch, source)?;
            let projections = pass.readout.projections();
            if K::QUEUED && !skips {
                // The device goes on with this step while the one before is waited for.
                self.update(pass.gradients, pass.statistics, schedule);
                last_projections = Some(projections);
                if let Some(before) = waiting.replace(pass.readout.begin()) {
                    verdict = self.told(&mut telling, before.step(), before.read(&parameters)?)?;
                }
            } else {
                let figures = pass.readout.begin();
                let step = figures.step();
                verdict = match figures.read(&parameters) {
                    Err(Error::NotFinite { what, images, .. }) if skips => {
                        self.step += 1;
                        telling.skipped(step, &what, &images)?
                    }
                    read => {
                        let read = read?;
                        last_projections = Some(projections);
                        self.update(pass.gradients, pass.statistics, schedule);
                        self.told(&mut telling, step, read)?
                    }
                };
            }
            if verdict == Verdict::Stop {
                break;
            }
        }
        if let Some(last) = waiting {
            let last = self.told(&mut telling, last.step(), last.read(&parameters)?)?;
            verdict = if last == Verdict::Stop { last } else { verdict };
        }
        if verdict == Verdict::Stop {
            return Ok(Verdict::Stop);
        }
        let (expected, got) = (per_epoch, self.step - u64::from(epoch) * per_epoch);
        if got != expected {
            return Err(Error::Batches { expected, got });
        }
        let seen = match last_projections {
            Some(projections) => telling.projections(self.step, projections)?,
            None => Verdict::Continue,
        };
        let verdict = telling.epoch(self.step)?;
        Ok(if seen == Verdict::Stop { seen } else { verdict })
    }

    /// Tells the observer of a step. Workers stop when all know that one of them wants to.
    fn told(&mut self, telling: &mut Telling<'_>, step: u64, (figures, all_stop): Read) -> Result<Verdict> {
        let own = telling.step(step, figures)?;
        if self.exchange.is_none() {
            return Ok(own);
        }
        self.stop |= own == Verdict::Stop;
        if all_stop {
            self.stop = false;
        }
        Ok(if all_stop { Verdict::Stop } else { Verdict::Continue })
    }

    /// The loss and the gradients of a batch.
    fn checked_pass(&mut self, batch: PatchBatch, source: &dyn PatchSource) -> Result<Pass<B, K>> {
        let shape = batch.shape();
        if shape != source.shape() {
            return Err(Error::Batch { expected: source.shape(), got: shape });
        }
        let images = batch.images().to_vec();
        let parts = self.parts(batch);
        with_exchange(self.exchange.as_ref(), || match &parts[..] {
            [whole] if self.exchange.is_none() => self.whole(whole.clone(), images),
            [whole] => self.shared(whole.clone(), images),
            parts => self.in_parts(parts, images),
        })
    }

    /// A batch on the device, in parts. One that the source keeps and gives again is brought there once.
    fn parts(&mut self, batch: PatchBatch) -> Vec<Part<B>> {
        if let Some((_, parts)) = self.kept.as_ref().filter(|(kept, _)| kept.shares_with(&batch)) {
            return parts.clone();
        }
        let kept = batch.is_shared().then(|| batch.clone());
        let _span = span("batch to the device");
        let parts = parts::<B, K>(batch, self.config.config().batch.together(), &self.device);
        self.kept = kept.map(|batch| (batch, parts.clone()));
        parts
    }

    /// The optimiser's step.
    fn update(&mut self, gradients: ModelGradients<B>, statistics: [BatchStatistics<B>; 2], schedule: StepSchedule) {
        let _span = span("optimiser");
        let factor = schedule.factor(self.step);
        self.optimiser.begin_step();
        let optimiser = &mut self.optimiser;
        self.model.update_together(gradients, |changes| optimiser.update_together(changes, factor));
        self.model.update_running_together(statistics, K::running);
        self.step += 1;
    }

    fn forward(&self, patches: Tensor<B, 4>) -> Trained<B> {
        let _span = span("forward");
        self.model.forward_train::<K>(patches)
    }

    fn backward(&self, objective: Tensor<B, 1>) -> ModelGradients<B> {
        let _span = span("backward");
        self.model.gradients(&objective.backward())
    }

    /// All patches at once.
    fn whole(&self, patches: Part<B>, images: Vec<u32>) -> Result<Pass<B, K>> {
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

    /// All patches at once, of this worker's images: the loss is that of all workers' projections.
    fn shared(&self, patches: Part<B>, images: Vec<u32>) -> Result<Pass<B, K>> {
        let output = self.forward(patches.tensor);
        let [_, dim] = output.projection.dims();
        let projections = output.projection.reshape([patches.images, patches.patches, dim]);
        let (value, gradient) = self.loss(projections.clone().inner())?;
        let objective = (projections.clone() * Tensor::from_inner(gradient)).sum();
        let gradients = self.backward(objective);
        self.finished(images, value, projections.inner(), gradients, output.statistics)
    }

    /// The loss of the projections of all workers, `[image, patch, dim]`, and its gradient in this worker's.
    fn loss(&self, projections: Tensor<B::InnerBackend, 3>) -> Result<(LossValue<B>, Tensor<B::InnerBackend, 3>)> {
        let [images, patches, dim] = projections.dims();
        let (first, all) = match &self.exchange {
            None => (0, projections),
            Some(exchange) => {
                let all = exchange.gather(projections.reshape([images * patches * dim]))?;
                let Rank { number, count } = exchange.rank();
                (number * images, all.reshape([count * images, patches, dim]))
            }
        };
        let _span = span("loss");
        let all = Tensor::<B, 3>::from_inner(all).require_grad();
        let value = self.config.loss().value::<B, K>(all.clone())?;
        let gradient = all.grad(&value.objective.clone().backward()).expect("the loss depends on all of them");
        if let Some(exchange) = &self.exchange {
            // A backward pass of Burn's ends by waiting for all others of the process. Norms wait for each other within
            // theirs, so that none may begin before the loss's have ended everywhere.
            exchange.meet()?;
        }
        Ok((value, gradient.narrow(0, first, images)))
    }

    /// Some patches of each image at a time, twice: once for the projections, of which the loss of the whole batch is made
    /// and its gradient, and once to lead that gradient back. What is kept in between is one part's, but for projections.
    ///
    /// # Source
    /// Gao et al., *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*, RepL4NLP 2021.
    fn in_parts(&self, parts: &[Part<B>], images: Vec<u32>) -> Result<Pass<B, K>> {
        let (mut projections, mut encoders, mut projectors) = (Vec::new(), Vec::new(), Vec::new());
        // Without gradients nothing is kept; a graph that is merely dropped stays until the next backward pass.
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

    /// The pass, with the sum of all workers' gradients.
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
            Some(exchange) => gradients.together(|own| {
                let values = own.dims()[0];
                let all = exchange.sum(Tensor::cat(vec![own, stops.clone()], 0))?;
                stops = all.clone().narrow(0, values, 1);
                Ok::<_, Error>(all.narrow(0, 0, values))
            })?,
        };
        let squares = gradients.squares(K::squares).ok_or_else(|| Error::not_finite("the gradient"))?;
        let readout = Readout::new(self.step + 1, images, value, projections, squares, stops);
        Ok(Pass { gradients, statistics, readout })
    }

    /// A hash of all that the weights depend on.
    fn settings_hash(&self) -> u64 {
        let config = toml::to_string(self.config.config()).expect("a config is plain data");
        fnv1a(&[&config, &self.info.data, &self.info.settings])
    }

    /// The model as a checkpoint when the schedule is through: what is needed to use it, and no more.
    ///
    /// # Errors
    /// [`Error::Core`] if it cannot be written as one, [`Error::Kernels`] if what the kernels had queued has failed.
    pub fn checkpoint(&self) -> Result<Vec<u8>> {
        let tensors = self.model.tensors();
        K::check().map_err(Error::Kernels)?;
        Ok(to_bytes(&self.spec(self.config.config().schedule.epochs, None), &tensors)?)
    }

    /// The checkpoint with all that a resumed run needs.
    fn state(&self, per_epoch: u64) -> Result<Vec<u8>> {
        let training = Training {
            epoch: (self.step / per_epoch) as u32,
            batch: self.step % per_epoch,
            step: self.step,
            config: self.settings_hash(),
        };
        let tensors = [self.model.tensors(), self.optimiser.tensors()].concat();
        K::check().map_err(Error::Kernels)?;
        Ok(to_bytes(&self.spec(training.epoch, Some(training)), &tensors)?)
    }

    fn spec(&self, epochs_done: u32, training: Option<Training>) -> Spec {
        let config = self.config.config();
        Spec {
            format_version: FORMAT_VERSION,
            model: self.config.plan().clone(),
            patch: config.patch,
            filter: config.filter,
            normalisation: config.normalisation,
            tap: config.model.tap,
            views: config.views,
            provenance: Provenance {
                created_by: format!("bagssl {}", env!("CARGO_PKG_VERSION")),
                preset: self.info.preset.clone(),
                data: self.info.data.clone(),
                seed: config.seed,
                epochs: epochs_done,
                steps: self.step,
            },
            training,
        }
    }
}

/// The figures of a step, and whether a worker wants to stop.
type Read = (Vec<(&'static str, f64)>, bool);

/// What a step's backward pass leaves.
struct Pass<B: AutodiffBackend, K> {
    gradients: ModelGradients<B>,
    statistics: [BatchStatistics<B>; 2],
    readout: Readout<B, K>,
}

/// What the observer of an epoch is told.
struct Telling<'a> {
    observer: &'a mut dyn Observer,
    epoch: u32,
    schedule: StepSchedule,
    rate: f64,
    sums: Vec<(&'static str, f64)>,
    count: f64,
}

impl Telling<'_> {
    fn step(&mut self, step: u64, mut figures: Vec<(&'static str, f64)>) -> Result<Verdict> {
        figures.push(("rate", self.rate * self.schedule.factor(step - 1)));
        if self.sums.is_empty() {
            self.sums = figures.iter().map(|&(name, _)| (name, 0.0)).collect();
        }
        self.sums.iter_mut().zip(&figures).for_each(|(sum, (_, value))| sum.1 += value);
        self.count += 1.0;
        self.tell(&Event::Step { step, steps: self.schedule.steps(), epoch: self.epoch, figures: &figures })
    }

    fn skipped(&mut self, step: u64, what: &str, images: &[u32]) -> Result<Verdict> {
        self.tell(&Event::Skipped { step, what, images })
    }

    /// What the last batch was projected to, `[image, patch, dim]`.
    fn projections<B: Backend>(&mut self, step: u64, projections: Tensor<B, 3>) -> Result<Verdict> {
        let [_, patches, dim] = projections.dims();
        let values = projections.into_data().convert::<f32>().into_vec().expect("converted to f32");
        self.tell(&Event::Projections { epoch: self.epoch, step, rows: &Rows { values, dim }, patches })
    }

    /// The epoch's end, with the means of the figures of its steps.
    fn epoch(mut self, step: u64) -> Result<Verdict> {
        let count = f64::max(self.count, 1.0);
        let means: Vec<_> = self.sums.iter().map(|&(name, sum)| (name, sum / count)).collect();
        self.tell(&Event::Epoch { epoch: self.epoch, step, figures: &means })
    }

    fn tell(&mut self, event: &Event<'_>) -> Result<Verdict> {
        self.observer.observe(event).map_err(Error::Observer)
    }
}

/// Batches, with the time that they are waited for.
fn awaited(mut batches: Batches<'_>) -> impl Iterator<Item = std::result::Result<PatchBatch, SourceError>> {
    std::iter::from_fn(move || {
        let _span = span("wait for a batch");
        batches.next()
    })
}

/// Some patches of every image of a batch.
#[derive(Debug, Clone)]
struct Part<B: AutodiffBackend> {
    /// `[image * patch, channel, height, width]`
    tensor: Tensor<B, 4>,
    images: usize,
    patches: usize,
}

/// A batch in parts of `together` patches of each image.
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

/// A hash of texts that is the same with every compiler (FNV-1a, Fowler, Noll, Vo).
fn fnv1a(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
