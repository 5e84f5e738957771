//! The loop: it learns, and a resumed run is the uninterrupted one, bit for bit.
#![cfg(feature = "ndarray")]

use std::cell::Cell;

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::model::{CpuFast, Differentiable, Kernels, Stock};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::random::{Address, Purpose};
use bagssl_train::backend::NdArray;
use bagssl_train::config::{CheckedConfig, OnNotFinite, TrainConfig};
use bagssl_train::distributed::SyncBatchNorm;
use bagssl_train::loss::LinAlg;
use bagssl_train::optimizer::OptimizerConfig;
use bagssl_train::preset::{PRESETS, preset};
use bagssl_train::run_state::{Nowhere, Position, StateStore};
use bagssl_train::trainer::{Ended, RunInfo, Trainer};
use bagssl_train::{Error, Result};
use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::skips::{ONE_BROKEN, Skips};

/// What `bagssl-backend` has compiled.
pub(crate) type Cpu = Autodiff<NdArray>;
pub(crate) type Fast = Differentiable<SyncBatchNorm<CpuFast>>;
pub(crate) type Run = Trainer<Cpu, Fast>;

/// Images that are two colors plus noise of each patch's own.
pub(crate) struct Noise {
    seed: u64,
    shape: BatchShape,
    batches: usize,
}

impl PatchSource for Noise {
    fn shape(&self) -> BatchShape {
        self.shape
    }

    fn batches_per_epoch(&self) -> usize {
        self.batches
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let batch = move |number: usize| {
            let shape = self.shape;
            let mut data = Vec::new();
            for image in 0..shape.images as u32 {
                let address = Address { seed: self.seed, epoch, image: image + 1000 * number as u32, patch: 0 };
                let mut colors = address.stream(Purpose::Crop);
                let colors: Vec<f32> = (0..3).map(|_| colors.uniform(-1.0, 1.0)).collect();
                for patch in 0..shape.patches as u32 {
                    let mut noise = Address { patch, ..address }.stream(Purpose::Augment);
                    for value in 0..shape.patch_len() {
                        let channel = value / (shape.height * shape.width);
                        data.push(colors[channel] + noise.uniform(-0.3, 0.3));
                    }
                }
            }
            Ok(PatchBatch::new(shape, data, (0..shape.images as u32).collect(), vec![0; shape.images])?)
        };
        Box::new((first..self.batches).map(batch))
    }
}

pub(crate) fn config(name: &str) -> CheckedConfig {
    let mut config = preset(name).unwrap().config();
    config.batch.images = 6;
    config.batch.patches = 3;
    config.schedule.epochs = 3;
    config.model.projector = vec![16, 8];
    config.check().unwrap()
}

pub(crate) fn source() -> Noise {
    let shape = BatchShape { images: 6, patches: 3, channels: 3, height: 8, width: 12 };
    Noise { seed: 5, shape, batches: 4 }
}

pub(crate) fn info() -> RunInfo {
    RunInfo { preset: "test".into(), data: "noise".into(), ..RunInfo::default() }
}

fn trainer(name: &str) -> Run {
    Trainer::new(config(name), info(), Default::default()).unwrap()
}

/// Keeps the losses, and says stop after some step.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) losses: Vec<f64>,
    pub(crate) epochs: usize,
    /// Images, patches and dimensions of the projections of each epoch.
    pub(crate) projections: Vec<[usize; 3]>,
    pub(crate) saved: Vec<u64>,
    pub(crate) stop_after: Option<u64>,
}

impl Observer for Watch {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        match event {
            Event::Step { step, metrics, .. } => {
                self.losses.push(metrics[0].1);
                if self.stop_after == Some(*step) {
                    return Ok(Verdict::Stop);
                }
            }
            Event::Epoch { .. } => self.epochs += 1,
            Event::Projections { rows, patches, .. } => {
                assert_eq!(self.projections.len(), self.epochs, "before the epoch's own event");
                assert!(rows.values.iter().all(|value| value.is_finite()));
                self.projections.push([rows.len() / patches, *patches, rows.dim]);
            }
            Event::Saved { step } => self.saved.push(*step),
            _ => {}
        }
        Ok(Verdict::Continue)
    }
}

/// Keeps the last state, and wants one every so many steps if there is a number.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) Vec<u8>, pub(crate) Option<u64>);

impl StateStore for Memory {
    fn is_due(&self, at: Position) -> bool {
        self.1.is_some_and(|every| at.step.is_multiple_of(every))
    }

    fn save(&mut self, _: Position, bytes: &[u8]) -> Result<()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

#[test]
fn presets_are_consistent() {
    for preset in PRESETS {
        let table: toml::Table = preset.toml.parse().unwrap();
        assert!(table.contains_key("augment"), "{}", preset.name);
        preset.config().check().unwrap_or_else(|error| panic!("{}: {error}", preset.name));
    }
}

#[test]
fn training_lowers_the_loss() {
    let mut trainer = trainer("bagssl");
    let mut watch = Watch::default();
    let mut store = Memory(Vec::new(), Some(5));
    assert_eq!(trainer.run(&source(), &mut watch, &mut store).unwrap(), Ended::Finished);
    assert_eq!((watch.losses.len(), watch.epochs, watch.saved), (12, 3, vec![5, 10, 12]));
    assert_eq!(watch.projections, [[6, 3, 8]; 3]);
    assert!(watch.losses[11] < watch.losses[0] - 1.0, "{:?}", watch.losses);
}

#[test]
fn resumed_run_equals_uninterrupted_run() {
    let mut whole = trainer("bagssl");
    whole.run(&source(), &mut Watch::default(), &mut Nowhere).unwrap();
    for stop in 1..12 {
        let (mut store, mut watch) = (Memory::default(), Watch { stop_after: Some(stop), ..Watch::default() });
        assert_eq!(trainer("bagssl").run(&source(), &mut watch, &mut store).unwrap(), Ended::Stopped);
        let mut resumed: Run = Trainer::resume(config("bagssl"), info(), Default::default(), &store.0).unwrap();
        assert_eq!(resumed.step(), stop);
        resumed.run(&source(), &mut Watch::default(), &mut store).unwrap();
        assert_eq!(whole.checkpoint().unwrap(), resumed.checkpoint().unwrap(), "stopped after {stop}");
    }
}

#[test]
fn state_of_another_run_is_refused() {
    let mut store = Memory::default();
    let mut watch = Watch { stop_after: Some(2), ..Watch::default() };
    let mut run = trainer("bagssl");
    run.run(&source(), &mut watch, &mut store).unwrap();
    let resume =
        |config, info, bytes: &[u8]| -> Result<Run> { Trainer::resume(config, info, Default::default(), bytes) };
    assert!(resume(config("bagssl"), info(), &store.0).is_ok());
    // Which settings are others is said, and images are among them.
    let differs = |config, info| match resume(config, info, &store.0) {
        Err(Error::OtherRun { is_fixed: true, changed, .. }) => {
            changed.into_iter().map(|change| [change.setting, change.from, change.to]).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let to_vicreg = differs(config("bagssl-vicreg"), info());
    for (side, loss) in [(2, "loss.tcr."), (1, "loss.vic_reg.")] {
        assert!(to_vicreg.iter().any(|change| change[0].starts_with(loss) && change[side] == "none"), "{to_vicreg:?}");
    }
    assert!(
        to_vicreg.iter().all(|[name, from, to]| from != to && name != "seed" && !name.starts_with("model.")),
        "{to_vicreg:?}"
    );
    let only = |setting: &str, from: &str, to: &str| vec![[setting, from, to].map(String::from)];
    let other = RunInfo { data: "other".into(), ..info() };
    assert_eq!(differs(config("bagssl"), other), only("images", &info().data, "other"));
    let other = RunInfo { settings: vec![("backend".into(), "other".into())], ..info() };
    assert_eq!(differs(config("bagssl"), other), only("backend", "none", "other"));
    let text = resume(config("bagssl"), RunInfo { data: "other".into(), ..info() }, &store.0).unwrap_err().to_string();
    assert!(
        text.contains("got others (images other); start over with --force") && !text.contains("--resume-from"),
        "{text}"
    );
    // A checkpoint for use has no counters to go on from.
    let checkpoint = run.checkpoint().unwrap();
    assert!(Checkpoint::from_bytes(&checkpoint).unwrap().spec().training.is_none());
    let error = resume(config("bagssl"), info(), &checkpoint).unwrap_err().to_string();
    assert!(error.contains("expected a state to resume from"), "{error}");
    assert!(matches!(resume(config("bagssl"), info(), b"no file"), Err(Error::Core(_))));
}

/// Learning rate, epochs and where things lie may be changed; the first two only if that is meant.
#[test]
fn changes_on_resuming_are_recorded() {
    #[derive(Default)]
    struct Changes(Vec<String>);
    impl Observer for Changes {
        fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
            if let Event::Changed { step, setting, from, to } = event {
                self.0.push(format!("{step} {setting} {from} {to}"));
            }
            Ok(Verdict::Continue)
        }
    }
    let lies = |place: &str| RunInfo { circumstances: vec![("data".into(), place.into())], ..info() };
    let (mut store, mut watch) = (Memory::default(), Watch { stop_after: Some(2), ..Watch::default() });
    let mut run: Run = Trainer::new(config("bagssl"), lies("here"), Default::default()).unwrap();
    run.run(&source(), &mut watch, &mut store).unwrap();

    let mut config = config("bagssl").config().clone();
    let rate = config.optimizer.learning_rate();
    config.optimizer = config.optimizer.with_learning_rate(0.5);
    config.schedule.epochs = 2;
    let config = config.check().unwrap();
    let resume =
        |info, bytes: &[u8]| -> Result<Run> { Trainer::resume(config.clone(), info, Default::default(), bytes) };
    let Err(Error::OtherRun { changed, .. }) = resume(lies("there"), &store.0) else { panic!("it is another run") };
    assert_eq!(changed.len(), 2, "{changed:?}");
    let meant = RunInfo { may_change: true, ..lies("there") };
    let mut run = resume(meant.clone(), &store.0).unwrap();
    let mut recorded = Changes::default();
    assert_eq!(run.run(&source(), &mut recorded, &mut store).unwrap(), Ended::Finished);
    let rate = format!("2 optimizer.learning_rate {rate} 0.5");
    assert_eq!(recorded.0, [&*rate, "2 schedule.epochs 3 2", "2 data here there"]);
    assert_eq!(run.step(), 8);
    // It is said once, and kept; but where things lay is not for who uses the weights.
    let mut run = resume(meant, &store.0).unwrap();
    let mut recorded = Changes::default();
    run.run(&source(), &mut recorded, &mut store).unwrap();
    assert!(recorded.0.is_empty(), "{:?}", recorded.0);
    let checkpoint = run.checkpoint().unwrap();
    let checkpoint = Checkpoint::from_bytes(&checkpoint).unwrap();
    let changes: Vec<&str> =
        checkpoint.spec().provenance.changes.iter().map(|change| change.setting.as_str()).collect();
    assert_eq!(changes, ["optimizer.learning_rate", "schedule.epochs"]);
    // Fewer epochs than are done.
    let mut short = config.config().clone();
    short.schedule.epochs = 1;
    let meant = RunInfo { may_change: true, ..info() };
    let mut run: Run = Trainer::resume(short.check().unwrap(), meant, Default::default(), &store.0).unwrap();
    let error = run.run(&source(), &mut Watch::default(), &mut Nowhere).unwrap_err().to_string();
    assert_eq!(error, "schedule.epochs: expected at least 2 (the epochs already started), got 1");
}

#[test]
fn source_errors_are_reported() {
    struct Broken(BatchShape);
    impl PatchSource for Broken {
        fn shape(&self) -> BatchShape {
            BatchShape { images: 7, ..self.0 }
        }
        fn batches_per_epoch(&self) -> usize {
            2
        }
        fn epoch(&self, epoch: u32, _: usize) -> Batches<'_> {
            let source = source();
            let batch = source.epoch(epoch, 0).next().unwrap();
            Box::new([batch, Err("image 3 is broken".into())].into_iter().skip(usize::from(self.0.images != 6)))
        }
    }
    let run =
        |source: Broken| trainer("bagssl").run(&source, &mut Watch::default(), &mut Nowhere).unwrap_err().to_string();
    let shape = source().shape;
    assert!(run(Broken(shape)).contains("expected shape"));
    assert_eq!(run(Broken(BatchShape { images: 5, ..shape })), "image 3 is broken");
}

/// Gives batches up to one that cannot be read.
struct Vanishes(u64);

impl PatchSource for Vanishes {
    fn shape(&self) -> BatchShape {
        source().shape
    }
    fn batches_per_epoch(&self) -> usize {
        4
    }
    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let good = self.0.saturating_sub(4 * u64::from(epoch) + first as u64) as usize;
        let batches: Vec<_> = source().epoch(epoch, first).take(good).collect();
        Box::new(batches.into_iter().chain([Err("image 3 has vanished".into())]).take(4 - first))
    }
}

#[test]
fn progress_before_an_error_is_saved() {
    let mut whole = trainer("bagssl");
    whole.run(&source(), &mut Watch::default(), &mut Nowhere).unwrap();
    for good in [3, 8, 9] {
        let (mut store, mut watch) = (Memory::default(), Watch::default());
        let error = trainer("bagssl").run(&Vanishes(good), &mut watch, &mut store).unwrap_err().to_string();
        assert_eq!((error.as_str(), watch.saved), ("image 3 has vanished", vec![good]));
        let mut resumed: Run = Trainer::resume(config("bagssl"), info(), Default::default(), &store.0).unwrap();
        resumed.run(&source(), &mut Watch::default(), &mut Nowhere).unwrap();
        assert_eq!(whole.checkpoint().unwrap(), resumed.checkpoint().unwrap(), "after {good}");
    }
}

/// The epoch that somebody stops after its last step is told as any other.
#[test]
fn stop_at_epoch_end_completes_the_epoch() {
    let mut watch = Watch { stop_after: Some(8), ..Watch::default() };
    assert_eq!(trainer("bagssl").run(&source(), &mut watch, &mut Nowhere).unwrap(), Ended::Stopped);
    assert_eq!((watch.losses.len(), watch.epochs, watch.projections.len()), (8, 2, 2));
}

/// A learning rate at which the weights leave the numbers that there are.
#[test]
fn non_finite_weights_are_not_saved() {
    let mut config = config("bagssl").config().clone();
    config.optimizer = OptimizerConfig::Sgd {
        learning_rate: 1e30,
        momentum: 0.0,
        nesterov: false,
        weight_decay: 1e30,
        decay_norm_and_bias: true,
    };
    config.schedule.warm_up = 0.0;
    let mut run: Run = Trainer::new(config.check().unwrap(), info(), Default::default()).unwrap();
    let (mut store, mut watch) = (Memory(Vec::new(), Some(1)), Watch::default());
    let error = run.run(&source(), &mut watch, &mut store).unwrap_err();
    assert!(matches!(error, Error::Unusable { step: 1, .. }), "{error}");
    assert!(error.to_string().contains("expected finite values"), "{error}");
    assert!(store.0.is_empty() && watch.saved.is_empty());
    assert!(matches!(run.checkpoint(), Err(Error::Unusable { .. })));
}

/// Micro-batches of patches: one step of SGD is that of a single graph in which the same parts go through the network, with
/// the loss of all of them together.
#[test]
fn micro_batches_have_the_full_batch_gradient() {
    for name in ["bagssl", "bagssl-vicreg"] {
        let optimizer = OptimizerConfig::Sgd {
            learning_rate: 1.0,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            decay_norm_and_bias: false,
        };
        let mut config = TrainConfig { optimizer, ..config(name).config().clone() };
        config.batch.patches = 6;
        config.batch.micro_batch = Some(2);
        let config = config.check().unwrap();
        let shape = BatchShape { patches: 6, ..source().shape };
        let source = Noise { shape, ..source() };
        let mut trainer: Run = Trainer::new(config.clone(), info(), Default::default()).unwrap();
        let model = trainer.model().clone();
        trainer.run(&source, &mut Watch { stop_after: Some(1), ..Watch::default() }, &mut Nowhere).unwrap();

        let batch = source.epoch(0, 0).next().unwrap().unwrap();
        let of_image = 6 * shape.patch_len();
        let part = |number: usize| {
            let length = 2 * shape.patch_len();
            let values: Vec<f32> =
                batch.data().chunks(of_image).flat_map(|image| image[number * length..][..length].to_vec()).collect();
            let patches = Tensor::<Autodiff<NdArray>, 1>::from_floats(&values[..], &Default::default());
            let output = model.forward_train::<Differentiable<SyncBatchNorm<CpuFast>>>(patches.reshape([12, 3, 8, 12]));
            output.projection.reshape([6, 2, 8])
        };
        let value = config.loss().value::<_, Stock>(Tensor::cat((0..3).map(part).collect(), 1)).unwrap();
        let gradients = model.gradients(&value.objective.backward());
        let mut whole = model.clone();
        whole.update_all(gradients, |changes| {
            changes.into_iter().map(|change| change.value - change.gradient).collect()
        });

        let split: Vec<_> = trainer.model().tensors();
        for ((name, _, before), ((_, _, whole), (_, _, split))) in
            model.tensors().iter().zip(whole.tensors().iter().zip(&split))
        {
            if name.contains("running") {
                assert_ne!(before, split, "{name} has not moved");
                continue;
            }
            let most = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0_f32, |most, (a, b)| most.max((a - b).abs()));
            let (change, error) = (most(before, whole), most(whole, split));
            assert!(error <= 1e-5 * change.max(1.0), "{name}: {error} of a change of {change}");
        }
        // Not that of parts with a loss of their own.
        let first = config.loss().value::<_, Stock>(part(0)).unwrap().metrics()[0].1;
        assert!((first - value.metrics()[0].1).abs() > 1e-3);
    }
    let mut odd = config("bagssl").config().clone();
    odd.batch.micro_batch = Some(2);
    let error = odd.check().unwrap_err().to_string();
    assert_eq!(error, "batch.micro_batch: expected a divisor of the 3 patches, got 2");
}

/// Burn's operations, as if they were queued.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Queued;

impl<B: Backend> Kernels<B> for Queued {
    const IS_ASYNC: bool = true;

    fn check() -> std::result::Result<(), String> {
        let left = CHECKS.get();
        CHECKS.set(left.saturating_sub(1));
        if left == 1 { Err("a launch has failed".into()) } else { Ok(()) }
    }
}

thread_local! {
    /// After so many checks of [`Queued`] on this thread one fails; 0 for never.
    static CHECKS: Cell<usize> = const { Cell::new(0) };
}

impl<B: Backend> LinAlg<B> for Queued {}

// Burn's own operations take ten times as long on ndarray as on candle where they are not optimized.
#[cfg(feature = "candle")]
pub(crate) type OnBurn = Autodiff<bagssl_train::backend::Candle>;
#[cfg(not(feature = "candle"))]
pub(crate) type OnBurn = Autodiff<NdArray>;

/// What a step has left after a kernel failed is not saved, though the error is told once and the next check finds none.
#[test]
fn state_after_failed_kernels_is_not_saved() {
    let mut run: Trainer<OnBurn, Differentiable<Queued>> =
        Trainer::new(config("bagssl"), info(), Default::default()).unwrap();
    let mut store = Memory::default();
    CHECKS.set(3);
    let error = run.run(&source(), &mut Watch::default(), &mut store).unwrap_err();
    assert!(matches!(&error, Error::Kernels(value) if value.contains("a launch has failed")), "{error}");
    assert!(run.step() >= 3 && store.0.is_empty(), "{} steps, {} bytes", run.step(), store.0.len());
}

/// Reading a step after the next one has begun changes when one hears of it, and nothing else.
#[test]
fn late_read_metrics_are_equal() {
    type Late = Trainer<OnBurn, Differentiable<Queued>>;
    type AtOnce = Trainer<OnBurn, Differentiable<SyncBatchNorm<Stock>>>;
    let late = |config: CheckedConfig| -> Late { Trainer::new(config, info(), Default::default()).unwrap() };
    let mut at_once: AtOnce = Trainer::new(config("bagssl"), info(), Default::default()).unwrap();
    let mut queued = late(config("bagssl"));
    let (mut expected, mut got) = (Watch::default(), Watch::default());
    let mut stores = [Memory(Vec::new(), Some(3)), Memory(Vec::new(), Some(3))];
    at_once.run(&source(), &mut expected, &mut stores[0]).unwrap();
    queued.run(&source(), &mut got, &mut stores[1]).unwrap();
    assert_eq!(expected.saved, [3, 6, 9, 12]);
    assert_eq!((got.losses, got.epochs, got.saved), (expected.losses, expected.epochs, expected.saved));
    assert_eq!(queued.checkpoint().unwrap(), at_once.checkpoint().unwrap());

    // Who says stop after step 5 gets step 6 as well, and hears of both.
    let (mut store, mut watch) = (Memory::default(), Watch { stop_after: Some(5), ..Watch::default() });
    let mut stopped = late(config("bagssl"));
    assert_eq!(stopped.run(&source(), &mut watch, &mut store).unwrap(), Ended::Stopped);
    assert_eq!((stopped.step(), watch.losses.len()), (6, 6));
    let mut resumed: Late = Trainer::resume(config("bagssl"), info(), Default::default(), &store.0).unwrap();
    resumed.run(&source(), &mut Watch::default(), &mut store).unwrap();
    assert_eq!(resumed.checkpoint().unwrap(), at_once.checkpoint().unwrap());
    // A save after step 5, of which it then has heard before step 6 begins, does not change that: other workers do not save.
    let mut watch = Watch { stop_after: Some(5), ..Watch::default() };
    let mut stopped = late(config("bagssl"));
    assert_eq!(stopped.run(&source(), &mut watch, &mut Memory(Vec::new(), Some(5))).unwrap(), Ended::Stopped);
    assert_eq!((stopped.step(), watch.losses.len(), watch.saved), (6, 6, vec![5, 6]));

    // A step that is no number is named, not the one after it; to skip it, it has to be read first.
    let error = late(config("bagssl")).run(&ONE_BROKEN, &mut Watch::default(), &mut Nowhere).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { step: Some(2), images, .. } if images.contains(&4)), "{error}");
    let mut skipping = config("bagssl").config().clone();
    skipping.on_not_finite = OnNotFinite::Skip;
    let (mut run, mut skips) = (late(skipping.check().unwrap()), Skips::default());
    assert_eq!(run.run(&ONE_BROKEN, &mut skips, &mut Nowhere).unwrap(), Ended::Finished);
    assert_eq!((skips.0.len(), skips.0[0].0), (1, 2));
}
