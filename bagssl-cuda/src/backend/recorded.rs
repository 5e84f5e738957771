//! Tests the order of queued work, by training on a backend that records requests and computes
//! nothing.

use std::cell::RefCell;

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::model::Reading;
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::plan::{Op, Plan};
use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorPrimitive};

use super::kernels::{Cudnn, F32};
use crate::ops::operation::Operation;
use crate::ops::run::{OnCuda, Raw, outputs};
use bagssl_train::backend::NdArray;
use bagssl_train::config::CheckedConfig;
use bagssl_train::preset::preset;
use bagssl_train::run_state::Nowhere;
use bagssl_train::trainer::{RunInfo, Trainer};

/// A request to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A batch is uploaded to the device.
    Upload,
    /// An operation is queued.
    Run(&'static str),
    /// The copy of values to the host is queued.
    Read,
    /// The host waits for the values of a read, numbered from 0.
    Wait(usize),
    /// A step is reported to the observer.
    Told(u64),
}

thread_local! {
    static ASKED: RefCell<Vec<Asked>> = const { RefCell::new(Vec::new()) };
}

fn note(asked: Asked) {
    ASKED.with_borrow_mut(|all| all.push(asked));
}

/// Returns zeros for every operation.
#[allow(private_interfaces, reason = "nobody outside calls it")]
impl OnCuda for NdArray {
    fn run(operation: Operation, inputs: Vec<Raw<Self>>) -> Vec<Raw<Self>> {
        note(Asked::Run(operation.name()));
        let zeros = |shape: Vec<usize>| match shape[..] {
            [a] => Tensor::<Self, 1>::zeros([a], &Default::default()).into_primitive().tensor(),
            [a, b] => Tensor::<Self, 2>::zeros([a, b], &Default::default()).into_primitive().tensor(),
            [a, b, c] => Tensor::<Self, 3>::zeros([a, b, c], &Default::default()).into_primitive().tensor(),
            [a, b, c, d] => Tensor::<Self, 4>::zeros([a, b, c, d], &Default::default()).into_primitive().tensor(),
            _ => unreachable!("no operation gives such a tensor"),
        };
        outputs(&operation, &inputs).into_iter().map(|form| zeros(form.shape)).collect()
    }

    fn upload(values: Vec<f32>, dims: [usize; 4], device: &Self::Device) -> Raw<Self> {
        note(Asked::Upload);
        Tensor::<Self, 1>::from_floats(&values[..], device).reshape(dims).into_primitive().tensor()
    }

    fn read_later(values: Raw<Self>) -> Reading {
        let number = ASKED.with_borrow(|all| all.iter().filter(|&&asked| asked == Asked::Read).count());
        note(Asked::Read);
        let values = Tensor::<Self, 1>::from_primitive(TensorPrimitive::Float(values));
        Reading::new(move || {
            note(Asked::Wait(number));
            Ok(values.into_data().into_vec().expect("f32 is asked for"))
        })
    }
}

/// Batches of zeros: new ones, or clones of one batch.
struct Zeros {
    batches: usize,
    kept: bool,
}

impl PatchSource for Zeros {
    fn shape(&self) -> BatchShape {
        BatchShape { images: 4, patches: 2, channels: 3, height: 8, width: 12 }
    }

    fn batches_per_epoch(&self) -> usize {
        self.batches
    }

    fn epoch(&self, _: u32, first: usize) -> Batches<'_> {
        let shape = self.shape();
        let values = move || vec![0.0; shape.rows() * shape.patch_len()];
        let batch = move || PatchBatch::new(shape, values(), vec![0; shape.images], vec![0; shape.images]);
        let one = self.kept.then(batch);
        Box::new((first..self.batches).map(move |_| Ok(one.clone().unwrap_or_else(batch)?)))
    }
}

struct Told;

impl Observer for Told {
    fn observe(&mut self, event: &Event<'_>) -> Result<Verdict, SourceError> {
        if let Event::Step { step, .. } = event {
            note(Asked::Told(*step));
        }
        Ok(Verdict::Continue)
    }
}

fn config() -> CheckedConfig {
    let mut config = preset("bagssl").unwrap().config();
    (config.batch.images, config.batch.patches) = (4, 2);
    config.schedule.epochs = 1;
    config.model.projector = vec![16, 8];
    config.check().unwrap()
}

/// Returns the requests of one epoch with this number of batches.
fn epoch(batches: usize, kept: bool) -> Vec<Asked> {
    ASKED.take();
    let info = RunInfo::default();
    let mut trainer: Trainer<Autodiff<NdArray>, Cudnn<F32>> = Trainer::new(config(), info, Default::default()).unwrap();
    trainer.run(&Zeros { batches, kept }, &mut Told, &mut Nowhere).unwrap();
    ASKED.take()
}

/// Returns the number of places where gradients of maps are added: a value has one gradient per
/// reader.
fn meetings(plan: &Plan) -> usize {
    let mut readers = vec![0; plan.layers().len() + 1];
    for layer in plan.layers() {
        readers[layer.input] += 1;
        if let Op::ConvNorm { residual: Some(residual), .. } = layer.op {
            readers[residual] += 1;
        }
    }
    // The input patches have no gradient.
    readers[1..].iter().map(|&readers: &usize| readers.saturating_sub(1)).sum()
}

#[test]
fn gradients_of_maps_meet_in_an_operation_of_our_own() {
    let expected = meetings(config().plan().encoder());
    assert!(expected > 2, "{expected}");
    let sums = epoch(3, false).into_iter().filter(|&asked| asked == Asked::Run("sum of gradients")).count();
    assert_eq!(sums, 3 * expected);
}

#[test]
fn a_steps_figures_are_queued_before_the_next_step_and_waited_for_after_it() {
    let asked = epoch(4, false);
    let (moves, mut operations): (Vec<Asked>, Vec<Asked>) =
        asked.iter().copied().partition(|asked| !matches!(asked, Asked::Run(_)));
    use Asked::{Read, Told, Upload, Wait};
    let expected = [
        vec![Upload, Read],
        vec![Upload, Read, Wait(0), Told(1)],
        vec![Upload, Read, Wait(1), Told(2)],
        vec![Upload, Read, Wait(2), Told(3)],
        vec![Wait(3), Told(4)],
    ];
    assert_eq!(moves, expected.concat());
    // All operations of a step are queued between its upload and the copy of its metrics.
    for pair in asked.windows(2) {
        let queued = |asked| matches!(asked, Asked::Run(_));
        assert!(!queued(pair[1]) || queued(pair[0]) || pair[0] == Upload, "{pair:?}");
    }
    operations.dedup();
    assert!(operations.len() > 10, "{operations:?}");
}

#[test]
fn a_batch_that_its_source_keeps_is_brought_to_the_device_once() {
    let uploads = |kept| epoch(3, kept).into_iter().filter(|&asked| asked == Asked::Upload).count();
    assert_eq!((uploads(true), uploads(false)), (1, 3));
}
