//! A whole step of training is the same on each CPU backend.
#![cfg(feature = "candle")]

use bagssl_backend::{AnyTrainer, Backend, CpuOptions, candle, ndarray, ndarray_stock};
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::random::{Address, Purpose};
use bagssl_train::config::CheckedConfig;
use bagssl_train::optimizer::{OptimizerConfig, Trust};
use bagssl_train::preset::preset;
use bagssl_train::run_state::{Nowhere, Position, StateStore};
use bagssl_train::trainer::Ended;

const SHAPE: BatchShape = BatchShape { images: 6, patches: 3, channels: 3, height: 8, width: 12 };

/// Images of a color each, and noise.
struct Noise;

impl PatchSource for Noise {
    fn shape(&self) -> BatchShape {
        SHAPE
    }

    fn batches_per_epoch(&self) -> usize {
        4
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let batch = move |number: usize| {
            let mut data = Vec::new();
            for row in 0..SHAPE.rows() as u32 {
                let image = row / SHAPE.patches as u32 + 1000 * number as u32;
                let address = Address { seed: 5, epoch, image, patch: row % SHAPE.patches as u32 };
                let mut colors = Address { patch: 0, ..address }.stream(Purpose::Crop);
                let mut noise = address.stream(Purpose::Augment);
                for _ in 0..SHAPE.channels {
                    let color = colors.uniform(-1.0, 1.0);
                    data.extend((0..SHAPE.height * SHAPE.width).map(|_| color + noise.uniform(-0.3, 0.3)));
                }
            }
            Ok(PatchBatch::new(SHAPE, data, (0..SHAPE.images as u32).collect(), vec![0; SHAPE.images])?)
        };
        Box::new((first..4).map(batch))
    }
}

/// Keeps the losses, and says stop after so many.
struct Losses {
    all: Vec<f64>,
    max: usize,
}

impl Observer for Losses {
    fn observe(&mut self, event: &Event<'_>) -> Result<Verdict, SourceError> {
        if let Event::Step { metrics, .. } = event {
            self.all.push(metrics[0].1);
        }
        Ok(if self.all.len() >= self.max { Verdict::Stop } else { Verdict::Continue })
    }
}

fn config(name: &str, optimizer: OptimizerConfig) -> CheckedConfig {
    let mut config = preset(name).unwrap().config();
    config.batch.images = SHAPE.images;
    config.batch.patches = SHAPE.patches;
    config.schedule.epochs = 3;
    config.model.projector = vec![16, 8];
    config.optimizer = optimizer;
    config.check().unwrap()
}

/// The weights of a model in training, each with its name.
fn weights(trainer: &dyn AnyTrainer) -> Vec<(String, Vec<f32>)> {
    let bytes = trainer.checkpoint().unwrap();
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
    let values = |name: &str| (name.to_string(), checkpoint.values(name).unwrap());
    checkpoint.names().into_iter().map(values).collect()
}

/// The weights before and after a step, and its loss.
type Step = [Vec<(String, Vec<f32>)>; 2];

fn step(backend: &dyn Backend, config: &CheckedConfig) -> (Step, f64) {
    let mut trainer = backend.trainer(config.clone(), bagssl_tests::info(), None).unwrap();
    let (before, mut losses) = (weights(&*trainer), Losses { all: Vec::new(), max: 1 });
    trainer.run(&Noise, &mut losses, &mut Nowhere).unwrap();
    ([before, weights(&*trainer)], losses.all[0])
}

/// With each loss. (Of SGD and LARS: a first step of AdamW is the sign of the gradient, and where a gradient is nothing, so is its
/// sign.)
#[test]
fn cpu_backends_take_the_same_step() {
    let sgd = OptimizerConfig::Sgd {
        learning_rate: 1e-3,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 1e-4,
        decay_norm_and_bias: true,
    };
    let trust = Trust::Clipped;
    let lars = OptimizerConfig::Lars {
        learning_rate: 0.1,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 1e-4,
        eta: 0.02,
        trust,
    };
    for (preset, optimizer) in [("bagssl", lars), ("bagssl-vicreg", sgd)] {
        let config = config(preset, optimizer);
        let (expected, loss) = step(&*candle(), &config);
        for (backend, other) in [("stock", ndarray_stock()), ("own kernels", ndarray(CpuOptions::default()))] {
            let (got, other) = step(&*other, &config);
            assert!((other - loss).abs() <= 1e-4 * loss.abs(), "{backend}: losses {other} and {loss}");
            let before = &expected[0];
            assert_eq!(&got[0], before, "{backend}: first weights depend on no backend");
            for (((name, before), (_, candle)), (_, other)) in before.iter().zip(&expected[1]).zip(&got[1]) {
                let length = |of: &dyn Fn(usize) -> f32| (0..before.len()).map(|i| of(i).powi(2)).sum::<f32>().sqrt();
                let change = length(&|i| other[i] - before[i]);
                let error = length(&|i| other[i] - candle[i]);
                assert!(error <= 1e-3 * change.max(1e-3), "{backend}, {name}: {error} of a change of {change}");
                assert!(other != before || name.ends_with("3.bias"), "{backend}, {name} has not moved");
            }
        }
    }
}

#[derive(Default)]
struct Memory(Vec<u8>);

impl StateStore for Memory {
    fn save(&mut self, _: Position, bytes: &[u8]) -> bagssl_train::Result<()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

/// On the independent backend too the loss falls, and a run that was stopped in its second epoch and resumed has the bits of one that
/// was not.
#[test]
fn candle_learns_and_resumes() {
    let adamw = preset("bagssl").unwrap().toml.parse::<toml::Table>().unwrap()["optimizer"].clone();
    let config = config("bagssl", adamw.try_into().unwrap());
    let backend = candle();
    let begin = |state| backend.trainer(config.clone(), bagssl_tests::info(), state).unwrap();
    let (mut uninterrupted, mut losses) = (begin(None), Losses { all: Vec::new(), max: usize::MAX });
    assert_eq!(uninterrupted.run(&Noise, &mut losses, &mut Nowhere).unwrap(), Ended::Finished);
    let losses = losses.all;
    assert!(losses.len() == 12 && losses[11] < losses[0] - 1.0, "{losses:?}");
    let (mut stopped, mut state) = (begin(None), Memory::default());
    let ended = stopped.run(&Noise, &mut Losses { all: Vec::new(), max: 6 }, &mut state);
    assert_eq!((ended.unwrap(), stopped.step()), (Ended::Stopped, 6));
    let mut resumed = begin(Some(&state.0));
    assert_eq!(resumed.step(), 6);
    resumed.run(&Noise, &mut Losses { all: Vec::new(), max: usize::MAX }, &mut Nowhere).unwrap();
    assert!(resumed.checkpoint().unwrap() == uninterrupted.checkpoint().unwrap(), "other weights");
}
