//! Workers that share a batch take the steps that one worker takes with the whole of it.
#![cfg(feature = "ndarray")]

use std::sync::Arc;

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::checkpoint::NamedTensor;
use bagssl_core::model::{CpuFast, Differentiable};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::random::{Address, Purpose};
use bagssl_train::backend::NdArray;
use bagssl_train::config::CheckedConfig;
use bagssl_train::distributed::{Collective, Rank, Shard, SyncBatchNorm, Threads};
use bagssl_train::optimizer::OptimizerConfig;
use bagssl_train::preset::preset;
use bagssl_train::run_state::{Nowhere, Position, StateStore};
use bagssl_train::trainer::{Ended, RunInfo, Trainer};
use bagssl_train::{Error, Result};
use burn::backend::Autodiff;

type Run = Trainer<Autodiff<NdArray>, Differentiable<SyncBatchNorm<CpuFast>>>;

const SHAPE: BatchShape = BatchShape { images: 6, patches: 4, channels: 3, height: 8, width: 12 };

/// Images of a color each, and noise; a step in which a value is not a number, if there is one.
#[derive(Debug, Clone, Copy)]
struct Noise {
    batches: usize,
    broken: Option<usize>,
}

const THREE: Noise = Noise { batches: 3, broken: None };

impl PatchSource for Noise {
    fn shape(&self) -> BatchShape {
        SHAPE
    }

    fn batches_per_epoch(&self) -> usize {
        self.batches
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let broken = self.broken;
        Box::new((first..self.batches).map(move |number| {
            let mut data = Vec::new();
            for image in 0..SHAPE.images as u32 {
                let address = Address { epoch, image: image + 100 * number as u32, ..Address::default() };
                let mut random = address.stream(Purpose::Augment);
                let color = random.uniform(-1.0, 1.0);
                let values = SHAPE.patches * SHAPE.patch_len();
                data.extend((0..values).map(|_| color + random.uniform(-0.5, 0.5)));
            }
            if broken == Some(number) {
                // In the last image.
                *data.last_mut().unwrap() = f32::INFINITY;
            }
            Ok(PatchBatch::new(SHAPE, data, (0..SHAPE.images as u32).collect(), vec![0; SHAPE.images])?)
        }))
    }
}

/// Keeps the losses, and says stop after a step.
#[derive(Default)]
struct Watch {
    losses: Vec<f64>,
    stop_after: Option<usize>,
}

impl Observer for Watch {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        let Event::Step { metrics, .. } = event else { return Ok(Verdict::Continue) };
        self.losses.push(metrics[0].1);
        Ok(if self.stop_after == Some(self.losses.len()) { Verdict::Stop } else { Verdict::Continue })
    }
}

fn config(name: &str, micro: Option<usize>) -> CheckedConfig {
    let mut config = preset(name).unwrap().config();
    config.batch.images = SHAPE.images;
    config.batch.patches = SHAPE.patches;
    config.batch.micro_batch = micro;
    config.schedule.epochs = 1;
    config.model.projector = vec![16, 8];
    config.optimizer = OptimizerConfig::Sgd {
        learning_rate: 1e-2,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 1e-4,
        decay_norm_and_bias: true,
    };
    config.check().unwrap()
}

fn trainer(config: CheckedConfig) -> Run {
    let info = RunInfo { preset: "test".into(), data: "noise".into(), ..RunInfo::default() };
    Trainer::new(config, info, Default::default()).unwrap()
}

/// What each worker's run comes to.
type Outcome = (Result<Ended>, Vec<f64>, Vec<NamedTensor>, u64);

fn run_workers(config: &CheckedConfig, count: usize, source: Noise, stops: Option<(usize, usize)>) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let each = |end: Threads<NdArray>| {
            let rank = end.rank();
            let mut run = trainer(config.clone());
            run.set_workers(Arc::new(end)).unwrap();
            let stop_after = stops.filter(|(worker, _)| *worker == rank.rank).map(|(_, step)| step);
            let mut watch = Watch { stop_after, ..Watch::default() };
            let ended = run.run(&Shard::new(source, rank).unwrap(), &mut watch, &mut Nowhere);
            (ended, watch.losses, run.model().tensors(), run.step())
        };
        let workers: Vec<_> = Threads::new(count).into_iter().map(|end| scope.spawn(move || each(end))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |most, value| most.max(value.abs()))
}

#[test]
fn workers_step_equals_one_worker_with_full_batch() {
    // Of more than one step the losses alone: where the input of a ReLU is 0 but for rounding, its gradient is not.
    let steps = |batches| Noise { batches, broken: None };
    for (name, micro, source) in [
        ("bagssl", None, steps(1)),
        ("bagssl-vicreg", None, steps(1)),
        ("bagssl", Some(2), steps(1)),
        ("bagssl", None, THREE),
    ] {
        let config = config(name, micro);
        let first = trainer(config.clone()).model().tensors();
        let mut single = trainer(config.clone());
        let mut watch = Watch::default();
        single.run(&source, &mut watch, &mut Nowhere).unwrap();
        let expected = single.model().tensors();
        for count in [2, 3] {
            let workers = run_workers(&config, count, source, None);
            for (ended, losses, tensors, _) in &workers {
                assert_eq!(*ended.as_ref().unwrap(), Ended::Finished);
                assert_eq!(losses, &workers[0].1);
                assert!(tensors == &workers[0].2, "all workers have the same weights, bit for bit");
            }
            for (got, expected) in workers[0].1.iter().zip(&watch.losses) {
                assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{name}: {got}, expected {expected}");
            }
            if source.batches > 1 {
                continue;
            }
            for (((name, _, first), (_, _, expected)), (_, _, got)) in first.iter().zip(&expected).zip(&workers[0].2) {
                let change = largest(first.iter().zip(expected).map(|(a, b)| a - b));
                let error = largest(got.iter().zip(expected).map(|(a, b)| a - b));
                assert!(change > 0.0 || name.ends_with("3.bias"), "{name} has not moved");
                // (The loss does not depend on that bias: its gradient is rounding.)
                let scale = largest(expected.iter().copied()).max(change).max(1e-2);
                assert!(error <= 2e-5 * scale, "{count} workers, {name}: {error} of {scale}");
            }
        }
    }
}

/// Without exchanged statistics the step is another: the test above can fail.
#[test]
fn norms_of_a_shard_differ_from_full_batch() {
    let config = config("bagssl", None);
    let mut single = trainer(config.clone());
    single.run(&THREE, &mut Watch::default(), &mut Nowhere).unwrap();
    type Apart = Trainer<Autodiff<NdArray>, Differentiable<CpuFast>>;
    let ends = Threads::new(2);
    let tensors = std::thread::scope(|scope| {
        let config = &config;
        let each = |end: Threads<NdArray>| {
            let rank = end.rank();
            let info = RunInfo { preset: "test".into(), data: "noise".into(), ..RunInfo::default() };
            let mut run: Apart = Trainer::new(config.clone(), info, Default::default()).unwrap();
            run.set_workers(Arc::new(end)).unwrap();
            run.run(&Shard::new(THREE, rank).unwrap(), &mut Watch::default(), &mut Nowhere).unwrap();
            run.model().tensors()
        };
        let workers: Vec<_> = ends.into_iter().map(|end| scope.spawn(move || each(end))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).next().unwrap()
    });
    let pairs = single.model().tensors().into_iter().zip(tensors);
    let error = largest(pairs.flat_map(|((_, _, a), (_, _, b))| a.into_iter().zip(b).map(|(a, b)| a - b)));
    assert!(error > 1e-3, "{error}");
}

#[test]
fn workers_stop_after_the_same_step() {
    let workers = run_workers(&config("bagssl", None), 2, THREE, Some((1, 1)));
    for (ended, losses, _, step) in workers {
        assert_eq!((ended.unwrap(), losses.len(), step), (Ended::Stopped, 2, 2));
    }
}

#[test]
fn non_finite_step_ends_all_workers() {
    let workers = run_workers(&config("bagssl", None), 3, Noise { broken: Some(1), ..THREE }, None);
    for (ended, losses, ..) in workers {
        assert!(matches!(ended.unwrap_err(), Error::NotFinite { step: Some(2), .. }));
        assert_eq!(losses.len(), 1);
    }
}

/// The images of one worker vanish: the first one saves what all have done.
#[test]
fn progress_is_saved_when_another_worker_exits() {
    struct Vanishes(Shard<Noise>, bool);
    impl PatchSource for Vanishes {
        fn shape(&self) -> BatchShape {
            self.0.shape()
        }
        fn batches_per_epoch(&self) -> usize {
            self.0.batches_per_epoch()
        }
        fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
            let good = if self.1 { 2 } else { usize::MAX };
            let gone = self.1.then(|| Err("an image has vanished".into()));
            Box::new(self.0.epoch(epoch, first).take(good).chain(gone))
        }
    }
    #[derive(Default)]
    struct Last(Option<(u64, Vec<u8>)>);
    impl StateStore for Last {
        fn save(&mut self, at: Position, bytes: &[u8]) -> Result<()> {
            self.0 = Some((at.step, bytes.to_vec()));
            Ok(())
        }
    }
    let config = &config("bagssl", None);
    let saved: Vec<(String, Last)> = std::thread::scope(|scope| {
        let each = |end: Threads<NdArray>| {
            let rank = end.rank();
            let mut run = trainer(config.clone());
            run.set_workers(Arc::new(end)).unwrap();
            let source = Vanishes(Shard::new(THREE, rank).unwrap(), rank.rank == 1);
            let mut store = Last::default();
            let error = run.run(&source, &mut Watch::default(), &mut store).unwrap_err().to_string();
            (error, store)
        };
        let workers: Vec<_> = Threads::new(2).into_iter().map(|end| scope.spawn(move || each(end))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let [(other, first), (own, second)] = &saved[..] else { panic!("two workers") };
    assert_eq!((other.as_str(), own.as_str()), ("workers: another worker has exited", "an image has vanished"));
    assert!(second.0.is_none());
    let (step, bytes) = first.0.as_ref().unwrap();
    let info = RunInfo { preset: "test".into(), data: "noise".into(), ..RunInfo::default() };
    let mut resumed: Run = Trainer::resume(config.clone(), info, Default::default(), bytes).unwrap();
    assert_eq!((*step, resumed.step()), (2, 2));
    resumed.run(&THREE, &mut Watch::default(), &mut Nowhere).unwrap();
}

#[test]
fn unequal_shards_are_refused() {
    let rank = |number, count| Rank { rank: number, world_size: count };
    assert_eq!(rank(1, 3).share(6).unwrap(), 2..4);
    let error = rank(0, 4).share(6).unwrap_err().to_string();
    assert_eq!(error, "batch.images: expected a multiple of the number of workers (4), got 6");
    assert!(rank(0, 7).share(6).is_err());
    assert!(Shard::new(THREE, rank(0, 4)).is_err());
    let mut ends = Threads::<NdArray>::new(4).into_iter();
    assert!(trainer(config("bagssl", None)).set_workers(Arc::new(ends.next().unwrap())).is_err());
    // A source of the whole batch, where a part is due.
    let mut ends = Threads::<NdArray>::new(2).into_iter();
    let mut run = trainer(config("bagssl", None));
    run.set_workers(Arc::new(ends.next().unwrap())).unwrap();
    let error = run.run(&THREE, &mut Watch::default(), &mut Nowhere).unwrap_err();
    assert!(matches!(error, Error::Batch { expected: BatchShape { images: 3, .. }, .. }), "{error}");
}
