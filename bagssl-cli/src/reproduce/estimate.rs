//! Estimates the disk space and time of a reproduction.

use std::time::Instant;

use anyhow::Result;
use bagssl_core::batch::{PatchSource, SourceError};
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_data::{BagConfig, BagLoader};
use bagssl_eval::report::Method;
use bagssl_train::run_state::Nowhere;
use bagssl_train::trainer::RunInfo;

use super::Reproduction;
use super::claim::ClaimStage;
use super::stage::Stage;
use crate::terminal::output::say;
use crate::{parallelism, train};

/// Steps of the warm-up. The first one is not timed.
const STEPS: u64 = 6;
/// Batches of bags to time.
const BATCHES: usize = 3;

/// Times a few steps and a few bags, and prints estimates for all unfinished stages.
pub(super) fn print(reproduction: &Reproduction<'_>) -> Result<()> {
    let (left, claims) = (reproduction.pending_stages()?, reproduction.pending_claims()?);
    let splits = reproduction.shared.splits;
    let train = &reproduction.stages[0].config.train;
    let per_epoch = (splits.train.len() / train.batch.images) as u64;
    let steps = per_epoch * u64::from(train.schedule.epochs);
    let shape = (train.batch.images, train.batch.patches);
    say!("each training: {} epochs, {steps} steps of {} images x {} patches", train.schedule.epochs, shape.0, shape.1);

    let plan = train.clone().check()?;
    let weights: usize = plan.plan().parameters().iter().map(|parameter| 4 * parameter.len()).sum();
    let mut trainings = 0;
    for stage in &left {
        trainings += usize::from(stage.needs_training(reproduction.shared)?);
    }
    // A checkpoint, and a state with at most two moments per parameter.
    let disk = trainings * 4 * weights + (10 << 20);
    say!("disk: about {} MB under {}", disk.div_ceil(1 << 20), reproduction.out.display());
    if let Some(folder) = reproduction.shared.features.folder() {
        let bytes = features(reproduction, &left, &claims)?;
        say!("features: at most about {} MB under {}", bytes.div_ceil(1 << 20), folder.display());
    }
    if left.is_empty() && claims.is_empty() {
        say!("time: only the report is left");
        return Ok(());
    }
    let timed = || warm_up(reproduction);
    let (step, image) = if reproduction.args.backend.is_gpu() { timed()? } else { parallelism::on_one_thread(timed)?? };
    let measuring = splits.images_to_evaluate() as f64 / 2.0 * image;
    let patches: usize = claims.iter().map(|claim| claim.patches()).sum();
    let looking = patches as f64 * image / reproduction.patches()? as f64;
    let all = trainings as f64 * steps as f64 * step + left.len() as f64 * measuring + looking;
    let at_a_time = reproduction.jobs.min(left.len().max(claims.len())) as f64;
    say!(
        "time: about {:.0} s ({:.2} s a step, {:.1} ms to embed an image's bag, {} at a time); measured with one job \
         alone, so more if the machine is busy",
        all / at_a_time,
        step,
        1e3 * image,
        reproduction.jobs
    );
    Ok(())
}

/// Returns the size in bytes of all features to extract, assuming an empty cache. Features of
/// claims may coincide with others.
fn features(reproduction: &Reproduction<'_>, left: &[&Stage], claims: &[&ClaimStage]) -> Result<usize> {
    let plan = reproduction.stages[0].config.train.clone().check()?;
    let row =
        |taps: &[FeatureLayer]| -> usize { taps.iter().map(|&tap| size_of::<f32>() * plan.plan().dim(tap)).sum() };
    let splits = reproduction.shared.splits;
    let images = Color::ALL.len() * (splits.train.len() + splits.test.len());
    let measured = left.iter().filter(|stage| stage.model != Method::Pixels);
    let measured: usize = measured.map(|stage| images * row(&stage.layers())).sum();
    let embedded: usize = claims.iter().map(|claim| claim.patches()).sum();
    let all = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];
    // The whole image counts as one more patch.
    Ok(measured * (reproduction.patches()? + 1) + embedded * row(&all))
}

/// Records the time at the end of each step, and stops after some steps.
#[derive(Default)]
struct Clock(Vec<Instant>);

impl Observer for Clock {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        if let Event::Step { step, .. } = event {
            self.0.push(Instant::now());
            if *step >= STEPS {
                return Ok(Verdict::Stop);
            }
        }
        Ok(Verdict::Continue)
    }
}

/// Returns the seconds per training step, and the seconds to embed one image's bag.
fn warm_up(reproduction: &Reproduction<'_>) -> Result<(f64, f64)> {
    let (stage, shared) = (&reproduction.stages[0], reproduction.shared);
    let backend = reproduction.args.backend.open()?;
    let config = stage.config.train.clone().check()?;
    let loader =
        train::loader(&stage.config, shared.splits.train.clone(), shared.options.threads, shared.options.on_bad_image)?;
    let info = RunInfo::default();
    let mut trainer = backend.trainer(config, info, None)?;
    let mut clock = Clock::default();
    trainer.run(&loader as &dyn PatchSource, &mut clock, &mut Nowhere)?;
    let steps = clock.0;
    let step = match (steps.first(), steps.last()) {
        (Some(first), Some(last)) if steps.len() > 1 => (*last - *first).as_secs_f64() / (steps.len() - 1) as f64,
        _ => 0.0,
    };
    let train = &stage.config.train;
    let bags = BagLoader::new(
        shared.splits.test.clone(),
        BagConfig {
            bag: shared.bag,
            input: train.patch.input(),
            normalization: train.normalization,
            filter: train.filter,
            batch: 16,
            threads: shared.options.threads,
            ..BagConfig::default()
        },
    )?;
    let network = backend.random(train.clone().check()?.plan(), 0, train.patch.input(), &stage.layers())?;
    let (mut images, mut seconds) = (0, 0.0);
    for batch in bags.batches().take(BATCHES) {
        let batch = batch.map_err(anyhow::Error::from_boxed)?;
        let started = Instant::now();
        network.embed(&batch, &[FeatureLayer::Projection]).map_err(anyhow::Error::from_boxed)?;
        seconds += started.elapsed().as_secs_f64();
        images += batch.shape().images;
    }
    Ok((step, seconds / images.max(1) as f64))
}
