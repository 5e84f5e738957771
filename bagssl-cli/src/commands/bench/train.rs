//! `bagssl bench train`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bagssl_core::architecture::Architecture;
use bagssl_core::bag::Views;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::cpu::{Pool, Threads};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::patch::{PatchSide, PatchSpec};
use bagssl_core::random::{Address, Purpose};
use bagssl_data::{Loader, OnBadImage, Split};
use bagssl_train::config::CheckedConfig;
use bagssl_train::preset::{names, preset};
use bagssl_train::run_state::Nowhere;
use bagssl_train::trainer::RunInfo;

use super::check_range;
use crate::backend::Name;
use crate::commands::train;
use crate::config::RunConfig;
use crate::input::source::DataArgs;
use crate::terminal::output::say;
use crate::terminal::profile::{Profile, UNTIMED, Window};

/// Measure the speed of training steps, on patches of noise
///
/// Without --backend, measures all CPU backends of this program in alternation. A program built
/// with the feature `candle` includes those with Burn's own operations.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Backend to train on
    #[arg(long, value_enum)]
    backend: Option<Name>,
    /// Encoder architecture
    #[arg(long, value_parser = super::architecture, default_value = "resnet-small")]
    arch: Architecture,
    /// Preset of the loss, projector and optimizer
    #[arg(long, value_name = "NAME", default_value = "bagssl")]
    preset: String,
    /// Sizes of the projector's layers, such as 2048,256 [default: the preset's]
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    projector: Option<Vec<usize>>,
    /// Side of a patch in pixels [default: 16, or the preset's with --loading]
    #[arg(long, value_name = "PIXELS", conflicts_with = "loading")]
    size: Option<usize>,
    /// Number of images per batch
    #[arg(long, value_name = "N", default_value_t = 20)]
    images: usize,
    /// Number of patches per image
    #[arg(long, value_name = "N", default_value_t = 4)]
    patches: usize,
    /// Number of patches per batch, instead of --images
    #[arg(long, value_name = "N", conflicts_with = "images")]
    batch: Option<usize>,
    /// Number of timed steps, after some untimed ones
    #[arg(long, value_name = "N", default_value_t = 7, visible_alias = "steps")]
    rounds: usize,
    /// Also train on images that are decoded, cropped and augmented as the preset specifies, and
    /// compare the speeds
    #[arg(long, requires = "backend")]
    loading: bool,
    /// Write a Chrome trace of the timed steps, and print where their time goes
    ///
    /// Open the trace in ui.perfetto.dev or chrome://tracing. On a GPU, the counts are those of
    /// this program's kernels, plans, products and copies. Burn's own kernels, and the small
    /// uploads for them, are not counted.
    #[arg(long, value_name = "FILE", requires = "backend")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A source that repeats one batch of noise.
struct RandomBatches(BatchShape);

impl PatchSource for RandomBatches {
    fn shape(&self) -> BatchShape {
        self.0
    }

    fn batches_per_epoch(&self) -> usize {
        1 << 30
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let mut random = Address { epoch, ..Address::default() }.stream(Purpose::Evaluation);
        let shape = self.0;
        let data: Vec<f32> = (0..shape.rows() * shape.patch_len()).map(|_| random.uniform(-1.0, 1.0)).collect();
        let images = (0..shape.images as u32).collect::<Vec<_>>();
        // Clones of a batch are transferred to the device only once.
        let batch = PatchBatch::new(shape, data, images.clone(), images);
        Box::new((first..).map(move |_| Ok(batch.clone()?)))
    }
}

/// Records when each step ended, and stops after the wanted number of steps.
struct Steps {
    wanted: usize,
    ends: Vec<Instant>,
    window: Option<Window>,
}

impl Observer for Steps {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        if let Event::Step { .. } = event {
            self.ends.push(Instant::now());
        }
        if let Some(window) = &mut self.window {
            window.observe(event)?;
        }
        Ok(if self.ends.len() >= self.wanted { Verdict::Stop } else { Verdict::Continue })
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    check_range("--size", args.size.unwrap_or(SIZE), 1..=4096)?;
    check_range("--images", args.images, 2..=65536)?;
    check_range("--patches", args.patches, 2..=4096)?;
    check_range("--rounds", args.rounds, 1..=1_000_000)?;
    check_range("--threads", args.data.threads, 0..=1024)?;
    if !args.loading && (args.data.data.is_some() || args.data.exif) {
        bail!("--data, --exif: expected --loading, got none");
    }
    let images = match args.batch {
        Some(batch) if batch % args.patches != 0 || batch < 2 * args.patches => {
            bail!(
                "--batch: expected a multiple of {} (the patches per image) for at least two images, got {batch}",
                args.patches
            )
        }
        Some(batch) => batch / args.patches,
        None => args.images,
    };
    Pool::set_global(args.data.threads);
    let recipe = recipe(args, images)?;
    let side = recipe.train.patch.input() as usize;
    let shape = BatchShape { images, patches: args.patches, channels: 3, height: side, width: side };
    let config = recipe.train.clone().check()?;
    match args.backend {
        Some(name) => {
            let loader = match args.loading {
                true => {
                    let dataset = args.data.open(Split::Train)?;
                    Some(train::loader(&recipe, dataset, args.data.threads, OnBadImage::Fail)?)
                }
                false => None,
            };
            let profile = args.profile.as_deref().map(Profile::prepare).transpose()?;
            run_one_backend(name, args, &SingleDeviceRun { config, shape, rounds: args.rounds, loader, profile })
        }
        None => run_all_backends(args, &config, shape),
    }
}

/// The default side of a patch of noise, in pixels.
const SIZE: usize = 16;

/// Returns the preset with the overrides of the command line.
fn recipe(args: &Args, images: usize) -> Result<RunConfig> {
    let recipe = preset(&args.preset);
    let recipe = recipe.with_context(|| format!("--preset: expected one of {}, got {:?}", names(), args.preset))?;
    let mut run = RunConfig::preset(recipe);
    let config = &mut run.train;
    config.model.arch = args.arch;
    if let Some(projector) = &args.projector {
        config.model.projector = projector.clone();
    }
    if !args.loading {
        let side = args.size.unwrap_or(SIZE) as u32;
        let spec = PatchSpec::new(PatchSide::Pixels(side), side)?;
        config.patch = spec;
        config.views = Views::FixedScale(spec);
    }
    config.batch.images = images;
    config.batch.patches = args.patches;
    // More epochs than the benchmark needs.
    config.schedule.epochs = 1 << 20;
    Ok(run)
}

fn info() -> RunInfo {
    RunInfo::default()
}

/// The measured time and memory of training on a backend.
struct Trained {
    /// The median time of a step, in seconds.
    seconds: f64,
    /// The mean time of a step, in seconds.
    mean: f64,
    /// The time from the creation of the first trainer to the end of the first step, in seconds.
    first_step: f64,
    /// The growth of the memory in use from before the first step to the end of training, in bytes:
    /// of the GPU's memory in use, or of this process's peak memory.
    peak_memory: Option<u64>,
    /// The mean time of a step on images, in seconds.
    loading: Option<f64>,
}

/// A benchmark of training on one backend.
struct SingleDeviceRun {
    config: CheckedConfig,
    shape: BatchShape,
    rounds: usize,
    loader: Option<Loader>,
    profile: Option<&'static Profile>,
}

impl SingleDeviceRun {
    fn run(&self, name: Name) -> Result<Trained> {
        let backend = name.open()?;
        let before = backend.memory_used();
        let begun = Instant::now();
        let steps = |source: &dyn PatchSource, window: Option<Window>| -> Result<(f64, Vec<Instant>)> {
            let mut trainer = backend.trainer(self.config.clone(), info(), None)?;
            let mut steps = Steps { wanted: UNTIMED + self.rounds, ends: Vec::new(), window };
            trainer.run(source, &mut steps, &mut Nowhere)?;
            let timed = &steps.ends[UNTIMED - 1..];
            let whole = (timed[timed.len() - 1] - timed[0]).as_secs_f64() / (timed.len() - 1) as f64;
            Ok((whole, steps.ends))
        };
        let (mean, ends) =
            steps(&RandomBatches(self.shape), self.profile.map(|profile| Window::new(profile, self.rounds)))?;
        let first_step = (ends[0] - begun).as_secs_f64();
        let peak_memory = backend.memory_used().zip(before).map(|(after, before)| after.saturating_sub(before));
        let mut seconds: Vec<f64> =
            ends[UNTIMED - 1..].windows(2).map(|ends| (ends[1] - ends[0]).as_secs_f64()).collect();
        // Batches arrive in bursts, so means are compared instead of medians.
        let loading = self.loader.as_ref().map(|loader| steps(loader, None)).transpose()?;
        let loading = loading.map(|(seconds, _)| seconds);
        Ok(Trained { seconds: median(&mut seconds), mean, first_step, peak_memory, loading })
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn run_one_backend(name: Name, args: &Args, work: &SingleDeviceRun) -> Result<ExitCode> {
    let parameters = work.config.plan().parameters().iter().map(|parameter| parameter.len()).sum::<usize>();
    let (shape, steps) = (work.shape, work.rounds);
    let Trained { seconds, mean, first_step, peak_memory, loading } = work.run(name)?;
    let rate = |seconds: f64| shape.rows() as f64 / seconds;
    let profile = work.profile.map(Profile::finish).transpose()?.flatten();
    if args.json {
        let mut all = serde_json::json!({
            "patches_per_second": rate(seconds),
            "milliseconds": 1e3 * seconds,
            "first_step_seconds": first_step,
            "peak_memory_bytes": peak_memory,
            "loading_patches_per_second": loading.map(rate),
            "loading_ratio": loading.map(|seconds| mean / seconds),
            "backend": name.text(),
            "arch": args.arch.name(),
            "preset": args.preset,
            "images": shape.images,
            "patches": shape.patches,
            "size": shape.height,
            "parameters": parameters,
            "steps": steps,
        });
        if let Some((_, profile)) = profile {
            all["profile"] = profile;
        }
        say!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    let side = shape.height;
    say!(
        "{} on {}: {:.0} patches/s; step of {} x {} patches of {side}x{side}: {:.2} ms (median of {steps} steps)",
        args.arch.name(),
        name.text(),
        rate(seconds),
        shape.images,
        shape.patches,
        1e3 * seconds
    );
    let memory = peak_memory.map_or_else(String::new, |bytes| format!("; peak memory {} MiB", bytes >> 20));
    say!("first step after {first_step:.2} s{memory}");
    if let Some((table, _)) = profile {
        say!("{}", table.trim_end());
    }
    if let Some(loading) = loading {
        say!(
            "with image loading: {:.0} patches/s, {:.1} % of the rate on noise",
            rate(loading),
            100.0 * mean / loading
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the CPU backends in alternation.
fn run_all_backends(args: &Args, config: &CheckedConfig, shape: BatchShape) -> Result<ExitCode> {
    let mut kinds = Name::cpu_backends()
        .iter()
        .map(|&name| Ok((name, stepper(name, config, shape)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut seconds = vec![Vec::new(); kinds.len()];
    for _ in 0..args.rounds {
        for ((_, step), seconds) in kinds.iter_mut().zip(&mut seconds) {
            seconds.push(step()?);
        }
    }
    let medians: Vec<f64> = seconds.iter_mut().map(|seconds| median(seconds)).collect();
    if args.json {
        let each = kinds.iter().zip(&medians).map(|((name, _), median)| (name.text().into(), (1e3 * median).into()));
        let all = serde_json::json!({
            "milliseconds": each.collect::<serde_json::Map<_, _>>(),
            "patches_per_second": shape.rows() as f64 / medians[0],
            "threads": Pool::global().count(),
        });
        say!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "step of {} on {} x {} patches of {}x{}: median of {} rounds, {} threads",
        args.arch.name(),
        shape.images,
        args.patches,
        shape.height,
        shape.width,
        args.rounds,
        Pool::global().count()
    );
    for ((name, _), median) in kinds.iter().zip(&medians) {
        let (name, rate) = (name.text(), shape.rows() as f64 / median);
        say!("{name:<14} {:>9.1} ms {rate:>9.0} patches/s {:>6.2} x", 1e3 * median, medians[0] / median);
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a step and returns its duration in seconds.
type Stepper = Box<dyn FnMut() -> Result<f64>>;

/// Returns a function that runs a step and returns its duration in seconds.
fn stepper(name: Name, config: &CheckedConfig, shape: BatchShape) -> Result<Stepper> {
    let mut trainer = name.open()?.trainer(config.clone(), info(), None)?;
    Ok(Box::new(move || {
        // Only the second of two steps is timed: the first one includes setup.
        let mut steps = Steps { wanted: 2, ends: Vec::new(), window: None };
        trainer.run(&RandomBatches(shape), &mut steps, &mut Nowhere)?;
        Ok((steps.ends[1] - steps.ends[0]).as_secs_f64())
    }))
}
