//! `bagssl bench train`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use bagssl_core::architecture::Architecture;
use bagssl_core::bag::Views;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::cpu::{Pool, Threads};
use bagssl_core::model::{CpuFast, Differentiable, Kernels, Stock};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::patch::{PatchSide, PatchSpec};
use bagssl_core::random::{Address, Purpose};
use bagssl_train::backend::{Candle, NdArray};
use bagssl_train::config::TrainConfig;
use bagssl_train::preset::preset;
use bagssl_train::store::Nowhere;
use bagssl_train::trainer::{RunInfo, Trainer};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;

use super::check_range;
use crate::output::say;

/// How fast a step of training is on this CPU: this project's kernels, Burn's ndarray and Burn's candle, in turns
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Encoder
    #[arg(long, value_parser = super::architecture, default_value = "resnet-small")]
    arch: Architecture,
    /// Side of a patch in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 16)]
    size: usize,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = 20)]
    images: usize,
    /// Patches of each
    #[arg(long, value_name = "N", default_value_t = 4)]
    patches: usize,
    /// Rounds, each with a step of every kind
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// Threads of this project's kernels [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Patches of noise.
struct Noise(BatchShape);

impl PatchSource for Noise {
    fn shape(&self) -> BatchShape {
        self.0
    }

    fn batches_per_epoch(&self) -> usize {
        usize::MAX / 2
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let mut random = Address { epoch, ..Address::default() }.stream(Purpose::Evaluation);
        let shape = self.0;
        let data: Vec<f32> = (0..shape.rows() * shape.patch_len()).map(|_| random.uniform(-1.0, 1.0)).collect();
        let images = (0..shape.images as u32).collect::<Vec<_>>();
        Box::new((first..).map(move |_| Ok(PatchBatch::new(shape, data.clone(), images.clone(), images.clone())?)))
    }
}

/// Stops after so many steps, and keeps when they ended.
struct Steps {
    wanted: usize,
    ends: Vec<Instant>,
}

impl Observer for Steps {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        if let Event::Step { .. } = event {
            self.ends.push(Instant::now());
        }
        Ok(if self.ends.len() >= self.wanted { Verdict::Stop } else { Verdict::Continue })
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    check_range("--size", args.size, 1..=4096)?;
    check_range("--images", args.images, 2..=4096)?;
    check_range("--patches", args.patches, 2..=4096)?;
    check_range("--rounds", args.rounds, 1..=1_000_000)?;
    check_range("--threads", args.threads, 0..=1024)?;
    Pool::set_global(args.threads);
    let shape =
        BatchShape { images: args.images, patches: args.patches, channels: 3, height: args.size, width: args.size };
    let mut kinds: [(&str, Stepper); 3] = [
        ("own kernels", stepper::<NdArray, CpuFast>(args.arch, shape)?),
        ("burn-ndarray", stepper::<NdArray, Stock>(args.arch, shape)?),
        ("burn-candle", stepper::<Candle, Stock>(args.arch, shape)?),
    ];
    let mut seconds = [const { Vec::new() }; 3];
    for _ in 0..args.rounds {
        for ((_, step), seconds) in kinds.iter_mut().zip(&mut seconds) {
            seconds.push(step()?);
        }
    }
    let medians = seconds.each_mut().map(|seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    });
    if args.json {
        let of = |index: usize| medians[index] * 1e3;
        let all = serde_json::json!({
            "milliseconds": {"own": of(0), "burn-ndarray": of(1), "burn-candle": of(2)},
            "patches_per_second": shape.rows() as f64 / medians[0],
            "threads": Pool::global().count(),
        });
        say!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "a step of {} on {} x {} patches of {}x{}, median of {} rounds, {} threads",
        args.arch.name(),
        args.images,
        args.patches,
        args.size,
        args.size,
        args.rounds,
        Pool::global().count()
    );
    for ((name, _), median) in kinds.iter().zip(medians) {
        let rate = shape.rows() as f64 / median;
        say!("{name:<14} {:>9.1} ms {rate:>9.0} patches/s {:>6.2} x", 1e3 * median, medians[0] / median);
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a step, and says how many seconds that was.
type Stepper = Box<dyn FnMut() -> Result<f64>>;

/// Makes something that takes a step and says how long that was.
fn stepper<B: Backend, K: Kernels<B>>(arch: Architecture, shape: BatchShape) -> Result<Stepper> {
    let text = preset("bagssl").context("the preset bagssl")?.toml;
    let mut table: toml::Table = text.parse()?;
    table.remove("augment");
    let mut config: TrainConfig = table.try_into()?;
    config.model.arch = arch;
    let spec = PatchSpec::new(PatchSide::Pixels(shape.height as u32), shape.height as u32)?;
    config.patch = spec;
    config.views = Views::FixedScale(spec);
    config.batch.images = shape.images;
    config.batch.patches = shape.patches;
    // Its batches never end.
    config.schedule.epochs = 1;
    let info = RunInfo { preset: String::new(), data: String::new(), settings: String::new() };
    let mut trainer: Trainer<Autodiff<B>, Differentiable<K>> = Trainer::new(config.check()?, info, Default::default())?;
    Ok(Box::new(move || {
        // The first of two steps also prepares what the second has at hand.
        let mut steps = Steps { wanted: 2, ends: Vec::new() };
        trainer.run(&Noise(shape), &mut steps, &mut Nowhere)?;
        Ok((steps.ends[1] - steps.ends[0]).as_secs_f64())
    }))
}
