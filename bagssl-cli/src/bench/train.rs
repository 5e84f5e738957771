//! `bagssl bench train`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bagssl_core::architecture::Architecture;
use bagssl_core::bag::Views;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::cpu::{Pool, Threads};
use bagssl_core::model::{CpuFast, Differentiable, Kernels, Stock};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::patch::{PatchSide, PatchSpec};
use bagssl_core::random::{Address, Purpose};
use bagssl_train::backend::{Candle, NdArray};
use bagssl_train::config::{CheckedConfig, TrainConfig};
use bagssl_train::loss::Algebra;
use bagssl_train::preset::preset;
use bagssl_train::store::Nowhere;
use bagssl_train::trainer::{RunInfo, Trainer};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;

use super::check_range;
use crate::backend::{self, Device, Job, Name, Target};
use crate::output::say;
use crate::train::Run;

/// How fast a step of training is, on patches of noise
///
/// On the backend that is asked for; without one, this project's kernels on the CPU, Burn's ndarray and Burn's candle, in
/// turns.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to train
    #[arg(long, value_enum)]
    backend: Option<Name>,
    /// Encoder
    #[arg(long, value_parser = super::architecture, default_value = "resnet-small")]
    arch: Architecture,
    /// The recipe whose loss, projector and optimiser are used
    #[arg(long, value_name = "NAME", default_value = "bagssl")]
    preset: String,
    /// Sizes of the projector's layers, such as 2048,256 [default: the recipe's]
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    projector: Option<Vec<usize>>,
    /// Side of a patch in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 16)]
    size: usize,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = 20)]
    images: usize,
    /// Patches of each
    #[arg(long, value_name = "N", default_value_t = 4)]
    patches: usize,
    /// Patches of all images together, instead of --images
    #[arg(long, value_name = "N", conflicts_with = "images")]
    batch: Option<usize>,
    /// Steps that are timed, after some that are not
    #[arg(long, value_name = "N", default_value_t = 7, visible_alias = "steps")]
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
    check_range("--images", args.images, 2..=65536)?;
    check_range("--patches", args.patches, 2..=4096)?;
    check_range("--rounds", args.rounds, 1..=1_000_000)?;
    check_range("--threads", args.threads, 0..=1024)?;
    let images = match args.batch {
        Some(batch) if batch % args.patches != 0 || batch < 2 * args.patches => {
            bail!(
                "--batch: expected a multiple of the {} patches of an image, and two images, got {batch}",
                args.patches
            )
        }
        Some(batch) => batch / args.patches,
        None => args.images,
    };
    Pool::set_global(args.threads);
    let shape = BatchShape { images, patches: args.patches, channels: 3, height: args.size, width: args.size };
    let config = config(args, shape)?;
    match args.backend {
        Some(name) => on_one(name, args, config, shape),
        None => on_all(args, &config, shape),
    }
}

fn config(args: &Args, shape: BatchShape) -> Result<CheckedConfig> {
    let recipe = preset(&args.preset);
    let text = recipe.with_context(|| format!("--preset: expected the name of a recipe, got {:?}", args.preset))?.toml;
    let mut table: toml::Table = text.parse()?;
    table.remove("augment");
    let mut config: TrainConfig = table.try_into()?;
    config.model.arch = args.arch;
    if let Some(projector) = &args.projector {
        config.model.projector = projector.clone();
    }
    let spec = PatchSpec::new(PatchSide::Pixels(shape.height as u32), shape.height as u32)?;
    config.patch = spec;
    config.views = Views::FixedScale(spec);
    config.batch.images = shape.images;
    config.batch.patches = shape.patches;
    // Its batches never end.
    config.schedule.epochs = 1;
    Ok(config.check()?)
}

fn info() -> RunInfo {
    RunInfo { preset: String::new(), data: String::new(), settings: String::new() }
}

/// What a backend's training takes.
struct Trained {
    /// A step, the median.
    seconds: f64,
    /// From nothing to the end of the first step.
    first_step: f64,
    /// The most memory held: of the GPU, less what was in use before the first step, or of the program.
    peak_memory: Option<u64>,
    steps: usize,
}

/// Training on one backend, in one run.
struct OnOne {
    config: CheckedConfig,
    shape: BatchShape,
    rounds: usize,
}

/// Steps that are not timed: the first compiles, the next find memory to use again.
const UNTIMED: usize = 3;

impl Job for OnOne {
    type Output = Trained;

    fn run<T: Target>(self, device: Device<T>) -> Result<Trained> {
        let before = T::memory_held();
        let begun = Instant::now();
        let mut trainer: Run<T> = Trainer::new(self.config, info(), device)?;
        T::prepare(&mut trainer);
        let mut steps = Steps { wanted: UNTIMED + self.rounds, ends: Vec::new() };
        trainer.run(&Noise(self.shape), &mut steps, &mut Nowhere)?;
        let first_step = (steps.ends[0] - begun).as_secs_f64();
        let peak_memory = T::memory_held().zip(before).map(|(after, before)| after.saturating_sub(before));
        let mut seconds: Vec<f64> =
            steps.ends[UNTIMED - 1..].windows(2).map(|ends| (ends[1] - ends[0]).as_secs_f64()).collect();
        let steps = seconds.len();
        Ok(Trained { seconds: median(&mut seconds), first_step, peak_memory, steps })
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn on_one(name: Name, args: &Args, config: CheckedConfig, shape: BatchShape) -> Result<ExitCode> {
    let parameters = config.plan().parameters().iter().map(|parameter| parameter.len()).sum::<usize>();
    let Trained { seconds, first_step, peak_memory, steps } =
        backend::on(name, OnOne { config, shape, rounds: args.rounds })?;
    let rate = shape.rows() as f64 / seconds;
    if args.json {
        let all = serde_json::json!({
            "patches_per_second": rate,
            "milliseconds": 1e3 * seconds,
            "first_step_seconds": first_step,
            "peak_memory_bytes": peak_memory,
            "backend": name.text(),
            "arch": args.arch.name(),
            "preset": args.preset,
            "images": shape.images,
            "patches": shape.patches,
            "size": shape.height,
            "parameters": parameters,
            "steps": steps,
        });
        say!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    let size = args.size;
    say!(
        "{} on {}: {rate:.0} patches/s, a step of {} x {} patches of {size}x{size} in {:.2} ms (median of {steps})",
        args.arch.name(),
        name.text(),
        shape.images,
        shape.patches,
        1e3 * seconds
    );
    let memory = peak_memory.map_or_else(String::new, |bytes| format!("; {} MiB of memory at most", bytes >> 20));
    say!("the first step is done after {first_step:.2} s{memory}");
    Ok(ExitCode::SUCCESS)
}

/// The CPU's backends in turns.
fn on_all(args: &Args, config: &CheckedConfig, shape: BatchShape) -> Result<ExitCode> {
    let mut kinds: [(&str, Stepper); 3] = [
        ("own kernels", stepper::<NdArray, CpuFast>(config, shape)?),
        ("burn-ndarray", stepper::<NdArray, Stock>(config, shape)?),
        ("burn-candle", stepper::<Candle, Stock>(config, shape)?),
    ];
    let mut seconds = [const { Vec::new() }; 3];
    for _ in 0..args.rounds {
        for ((_, step), seconds) in kinds.iter_mut().zip(&mut seconds) {
            seconds.push(step()?);
        }
    }
    let medians = seconds.each_mut().map(|seconds| median(seconds));
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
        shape.images,
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
fn stepper<B: Backend, K: Kernels<B> + Algebra<B>>(config: &CheckedConfig, shape: BatchShape) -> Result<Stepper> {
    let mut trainer: Trainer<Autodiff<B>, Differentiable<K>> =
        Trainer::new(config.clone(), info(), Default::default())?;
    Ok(Box::new(move || {
        // The first of two steps also prepares what the second has at hand.
        let mut steps = Steps { wanted: 2, ends: Vec::new() };
        trainer.run(&Noise(shape), &mut steps, &mut Nowhere)?;
        Ok((steps.ends[1] - steps.ends[0]).as_secs_f64())
    }))
}
