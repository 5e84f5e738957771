//! Steps that are not finite: named, and stopped at or skipped.
#![cfg(feature = "ndarray")]

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_train::Error;
use bagssl_train::config::OnNotFinite;
use bagssl_train::optimizer::OptimizerConfig;
use bagssl_train::run_state::Nowhere;
use bagssl_train::trainer::{Ended, Trainer};

use crate::training::{Memory, Run, Watch, config, info, source};

/// Noise, but for one value of one image in some batches of the first epoch, which is not a number.
pub(crate) struct BrokenBatches(&'static [usize]);

/// The second batch alone.
pub(crate) const ONE_BROKEN: BrokenBatches = BrokenBatches(&[1]);

impl PatchSource for BrokenBatches {
    fn shape(&self) -> BatchShape {
        source().shape()
    }
    fn batches_per_epoch(&self) -> usize {
        4
    }
    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let batches: Vec<_> = source().epoch(epoch, first).collect();
        let broken = move |(number, batch): (usize, std::result::Result<PatchBatch, SourceError>)| {
            let batch = batch?;
            let (shape, images, labels) = (batch.shape(), batch.images().to_vec(), batch.labels().to_vec());
            let mut data = batch.into_data();
            if epoch == 0 && self.0.contains(&(first + number)) {
                // In the last patch of image 4.
                data[(4 * 3 + 2) * shape.patch_len() + 7] = f32::NAN;
            }
            Ok(PatchBatch::new(shape, data, images, labels)?)
        };
        Box::new(batches.into_iter().enumerate().map(broken))
    }
}

#[derive(Default)]
pub(crate) struct Skips(pub(crate) Vec<(u64, String, Vec<u32>)>);

impl Observer for Skips {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        if let Event::Skipped { step, value, images } = event {
            self.0.push((*step, (*value).into(), images.to_vec()));
        }
        Ok(Verdict::Continue)
    }
}

#[test]
fn non_finite_step_is_named_and_stops_or_skips() {
    let run = |policy, micro| {
        let mut config = config("bagssl").config().clone();
        config.on_not_finite = policy;
        config.batch.micro_batch = micro;
        let mut run: Run = Trainer::new(config.check().unwrap(), info(), Default::default()).unwrap();
        let mut skips = Skips::default();
        let ended = run.run(&ONE_BROKEN, &mut skips, &mut Nowhere);
        (ended, skips.0, run)
    };
    // A batch norm spreads what is broken over all images that it sees.
    for micro in [None, Some(1)] {
        let error = run(OnNotFinite::Stop, micro).0.unwrap_err();
        let Error::NotFinite { step: Some(2), ref images, .. } = error else { panic!("{error}") };
        assert!(images.contains(&4), "{error}");
        assert!(error.to_string().contains("at step 2, from images "), "{error}");
        let (ended, skips, run) = run(OnNotFinite::Skip, micro);
        assert_eq!((ended.unwrap(), run.step()), (Ended::Finished, 12));
        assert_eq!((skips.len(), skips[0].0), (1, 2));
        assert!(skips[0].2.contains(&4));
        let finite = |(_, _, values): (String, Vec<usize>, Vec<f32>)| values.iter().all(|value| value.is_finite());
        assert!(run.model().tensors().into_iter().all(finite));
    }
}

/// Every step is broken: there is nothing to finish.
struct AllBroken;

impl PatchSource for AllBroken {
    fn shape(&self) -> BatchShape {
        source().shape()
    }
    fn batches_per_epoch(&self) -> usize {
        2
    }
    fn epoch(&self, _: u32, first: usize) -> Batches<'_> {
        let shape = self.shape();
        let values = vec![f32::NAN; shape.rows() * shape.patch_len()];
        let images: Vec<u32> = (0..shape.images as u32).collect();
        Box::new((first..2).map(move |_| Ok(PatchBatch::new(shape, values.clone(), images.clone(), images.clone())?)))
    }
}

#[test]
fn skipped_steps_are_counted() {
    let mut skipping = config("bagssl").config().clone();
    skipping.on_not_finite = OnNotFinite::Skip;
    // The bias correction of AdamW goes by the steps that were made, before and after a resumption.
    let adam = toml::from_str::<std::collections::BTreeMap<String, OptimizerConfig>>(
        "o.adamw = { rate = 0.01, betas = [0.9, 0.99], epsilon = 1e-8, decay = 0.1, decay_vectors = false }",
    );
    skipping.optimizer = adam.unwrap()["o"];
    let config = skipping.check().unwrap();
    let new = || -> Run { Trainer::new(config.clone(), info(), Default::default()).unwrap() };
    let mut uninterrupted = new();
    uninterrupted.run(&ONE_BROKEN, &mut Watch::default(), &mut Nowhere).unwrap();
    assert_eq!((uninterrupted.step(), uninterrupted.skipped()), (12, 1));
    let (mut store, mut watch) = (Memory::default(), Watch { stop_after: Some(3), ..Watch::default() });
    new().run(&ONE_BROKEN, &mut watch, &mut store).unwrap();
    let mut resumed: Run = Trainer::resume(config.clone(), info(), Default::default(), &store.0).unwrap();
    assert_eq!((resumed.step(), resumed.skipped()), (3, 1));
    resumed.run(&ONE_BROKEN, &mut Watch::default(), &mut Nowhere).unwrap();
    assert_eq!(uninterrupted.checkpoint().unwrap(), resumed.checkpoint().unwrap());

    let (mut run, mut store) = (new(), Memory::default());
    let error = run.run(&AllBroken, &mut Watch::default(), &mut store).unwrap_err();
    assert!(matches!(error, Error::NothingTrained { steps: 2 }), "{error}");
    // Again: no more than before.
    let mut resumed: Run = Trainer::resume(config, info(), Default::default(), &store.0).unwrap();
    assert!(resumed.run(&AllBroken, &mut Watch::default(), &mut Nowhere).is_err());
}

/// Keeps the figures of each epoch, and says stop after some step.
#[derive(Default)]
struct Epochs(Vec<Vec<(&'static str, f64)>>, Option<u64>);

impl Observer for Epochs {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        match event {
            Event::Epoch { metrics, .. } => self.0.push(metrics.to_vec()),
            Event::Step { step, .. } if self.1 == Some(*step) => return Ok(Verdict::Stop),
            _ => {}
        }
        Ok(Verdict::Continue)
    }
}

/// The means of an epoch whose last two steps are skipped are those of the steps before, also if it was resumed in between.
#[test]
fn resumed_epoch_of_skipped_steps_has_means() {
    let mut config = config("bagssl").config().clone();
    config.on_not_finite = OnNotFinite::Skip;
    let (config, source) = (config.check().unwrap(), BrokenBatches(&[2, 3]));
    let new = || -> Run { Trainer::new(config.clone(), info(), Default::default()).unwrap() };
    let mut uninterrupted = Epochs::default();
    new().run(&source, &mut uninterrupted, &mut Nowhere).unwrap();
    assert!(
        uninterrupted.0[0].iter().any(|(name, mean)| *name == "loss" && mean.is_finite()),
        "{:?}",
        uninterrupted.0[0]
    );
    let (mut store, mut epochs) = (Memory::default(), Epochs(Vec::new(), Some(2)));
    new().run(&source, &mut epochs, &mut store).unwrap();
    let mut resumed: Run = Trainer::resume(config.clone(), info(), Default::default(), &store.0).unwrap();
    epochs.1 = None;
    resumed.run(&source, &mut epochs, &mut Nowhere).unwrap();
    assert_eq!(epochs.0, uninterrupted.0);
}

/// Cannot write down the end of the second epoch.
struct Full;

impl Observer for Full {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        match event {
            Event::Epoch { epoch: 1, .. } => Err("the disk is full".into()),
            _ => Ok(Verdict::Continue),
        }
    }
}

/// The second epoch of the run, of which all steps are skipped.
struct SecondBroken;

impl PatchSource for SecondBroken {
    fn shape(&self) -> BatchShape {
        source().shape()
    }
    fn batches_per_epoch(&self) -> usize {
        2
    }
    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        if epoch == 1 {
            AllBroken.epoch(epoch, first)
        } else {
            Box::new(Vec::from_iter(source().epoch(epoch, first).take(2 - first)).into_iter())
        }
    }
}

/// An epoch whose end could not be written down is done again: a state after it would go on with the next one, and the line would be missing.
#[test]
fn unreported_epoch_end_is_not_saved() {
    let mut config = config("bagssl").config().clone();
    config.on_not_finite = OnNotFinite::Skip;
    let config = config.check().unwrap();
    for source in [&source() as &dyn PatchSource, &SecondBroken] {
        let mut run: Run = Trainer::new(config.clone(), info(), Default::default()).unwrap();
        let mut store = Memory::default();
        let error = run.run(source, &mut Full, &mut store).unwrap_err().to_string();
        assert_eq!((error.as_str(), run.step()), ("the disk is full", 2 * source.batches_per_epoch() as u64));
        assert!(store.0.is_empty());
    }
}
