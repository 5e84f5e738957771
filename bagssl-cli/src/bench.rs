//! `bagssl bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bagssl_core::architecture::Architecture;
use bagssl_core::bag::Views;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::cpu::{Executor, InstructionSet, Options, Pool, Threads};
use bagssl_core::model::{CpuFast, Differentiable, Kernels, Stock};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::patch::{PatchSide, PatchSpec};
use bagssl_core::plan::{NamedTensor, Plan};
use bagssl_core::random::{Address, Purpose};
use bagssl_train::backend::{Candle, NdArray};
use bagssl_train::config::TrainConfig;
use bagssl_train::preset::preset;
use bagssl_train::store::Nowhere;
use bagssl_train::trainer::{RunInfo, Trainer};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::files;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Infer(InferArgs),
    Train(TrainArgs),
}

/// How fast an encoder embeds patches on this CPU: the median of several runs
#[derive(Debug, clap::Args)]
pub(crate) struct InferArgs {
    /// Encoder, with random weights
    #[arg(long, value_parser = architecture, default_value = "resnet18-cifar")]
    arch: Architecture,
    /// A checkpoint's encoder instead
    #[arg(long, value_name = "FILE", conflicts_with = "arch")]
    checkpoint: Option<PathBuf>,
    /// Side of a patch in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    size: usize,
    /// Patches at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Threads [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Instruction set [default: the fastest of this machine in f32]
    #[arg(long, value_enum)]
    set: Option<Set>,
    /// Only plain sums of products: no Winograd
    #[arg(long)]
    exact: bool,
    /// All patches of images of this size in one pass (encoders without padding)
    #[arg(long)]
    dense: bool,
    /// Runs that are timed, after two that are not
    #[arg(long, value_name = "N", default_value_t = 15)]
    runs: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Set {
    Portable,
    Neon,
    Avx2,
    Avx512,
    #[value(name = "avx512-bf16")]
    Avx512Bf16,
}

impl From<Set> for InstructionSet {
    fn from(set: Set) -> InstructionSet {
        match set {
            Set::Portable => InstructionSet::Portable,
            Set::Neon => InstructionSet::Neon,
            Set::Avx2 => InstructionSet::Avx2,
            Set::Avx512 => InstructionSet::Avx512,
            Set::Avx512Bf16 => InstructionSet::Avx512Bf16,
        }
    }
}

pub(crate) fn architecture(name: &str) -> std::result::Result<Architecture, String> {
    name.parse().map_err(|error: bagssl_core::Error| error.to_string())
}

#[derive(Debug, Serialize)]
struct Inferred {
    patches_per_second: f64,
    fastest: f64,
    slowest: f64,
    milliseconds: f64,
    /// To the first result: from the file on, or from random weights in memory.
    first_milliseconds: f64,
    patches: usize,
    batch: usize,
    height: usize,
    width: usize,
    threads: usize,
    instruction_set: &'static str,
    exact: bool,
    weight_bytes: usize,
    workspace_bytes: usize,
    peak_bytes: Option<u64>,
    gigaflops: f64,
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Infer(args) => infer(args),
        Command::Train(args) => train(args),
    }
}

fn check_range(name: &str, value: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    match range.contains(&value) {
        true => Ok(()),
        false => bail!("{name}: expected {} to {}, got {value}", range.start(), range.end()),
    }
}

fn infer(args: &InferArgs) -> Result<ExitCode> {
    check_range("--size", args.size, 1..=4096)?;
    check_range("--batch", args.batch, 1..=4096)?;
    check_range("--runs", args.runs, 1..=1_000_000)?;
    check_range("--threads", args.threads, 0..=1024)?;
    let begun = Instant::now();
    let bytes = args.checkpoint.as_ref().map(|path| files::read(path)).transpose()?;
    let checkpoint = match (&bytes, &args.checkpoint) {
        (Some(bytes), Some(path)) => Some(Checkpoint::from_bytes(bytes).with_context(|| path.display().to_string())?),
        _ => None,
    };
    let (whole, tensors): (Plan, Vec<NamedTensor>) = match &checkpoint {
        Some(checkpoint) => (checkpoint.spec().model.encoder().clone(), Vec::new()),
        None => (args.arch.plan(), args.arch.plan().first_weights(0)),
    };
    let plan = if args.dense { whole.dense()?.0 } else { whole };
    let size = [args.size; 2];
    let set = args.set.map_or_else(InstructionSet::best, InstructionSet::from);
    // Random weights are made first; a checkpoint's are read as part of the time.
    let begun = if checkpoint.is_some() { begun } else { Instant::now() };
    let mut source = |name: &str| match &checkpoint {
        Some(checkpoint) => checkpoint.stored(&format!("encoder.{name}")).map(Into::into),
        None => {
            let (.., values) =
                tensors.iter().find(|(known, ..)| known == name).expect("a plan names all its parameters");
            Ok(values.into())
        }
    };
    let options = Options { set, exact: args.exact, batch: args.batch, size };
    let executor = Executor::new(&plan, &mut source, options)?;
    let pool = Pool::new(args.threads);
    let mut workspace = executor.workspace(args.batch, size, &pool)?;
    let input: Vec<f32> = (0..args.batch * 3 * args.size * args.size).map(|i| (i % 23) as f32 / 11.5 - 1.0).collect();
    let first_output = executor.run(&mut workspace, &input, &pool)?;
    let first = begun.elapsed().as_secs_f64();
    executor.run(&mut workspace, &input, &pool)?;
    let mut seconds = Vec::with_capacity(args.runs);
    for _ in 0..args.runs {
        let begun = Instant::now();
        std::hint::black_box(executor.run(&mut workspace, &input, &pool)?);
        seconds.push(begun.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let patches = first_output.len() / plan.output_dim();
    let median = seconds[seconds.len() / 2];
    let rate = |seconds: f64| patches as f64 / seconds;
    let operations = 2 * plan.multiply_accumulates(size).unwrap_or(0) * args.batch as u64;
    let result = Inferred {
        patches_per_second: rate(median),
        fastest: rate(seconds[0]),
        slowest: rate(seconds[seconds.len() - 1]),
        milliseconds: 1e3 * median,
        first_milliseconds: 1e3 * first,
        patches,
        batch: args.batch,
        height: args.size,
        width: args.size,
        threads: pool.count(),
        instruction_set: set.name(),
        exact: args.exact,
        weight_bytes: executor.bytes(),
        workspace_bytes: workspace.bytes(),
        peak_bytes: peak_bytes(),
        gigaflops: operations as f64 / median / 1e9,
    };
    if args.json {
        println!("{}", serde_json::to_string(&result)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mega = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    println!(
        "{:.1} patches/s (median of {} runs; {:.1} to {:.1}), {:.2} ms for {} at a time",
        result.patches_per_second, args.runs, result.slowest, result.fastest, result.milliseconds, args.batch
    );
    println!(
        "{} on {} threads{}; {:.0} GFLOP/s of a plain convolution; weights {:.1} MiB, workspace {:.1} MiB; first result \
         after {:.0} ms",
        result.instruction_set,
        result.threads,
        if args.exact { ", exact" } else { "" },
        result.gigaflops,
        mega(result.weight_bytes),
        mega(result.workspace_bytes),
        result.first_milliseconds
    );
    Ok(ExitCode::SUCCESS)
}

/// The most memory that this process has held, where the system says.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// How fast a step of training is on this CPU: this project's kernels, Burn's ndarray and Burn's candle, in turns
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// Encoder
    #[arg(long, value_parser = architecture, default_value = "resnet-small")]
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

fn train(args: &TrainArgs) -> Result<ExitCode> {
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
        println!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
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
        println!("{name:<14} {:>9.1} ms {rate:>9.0} patches/s {:>6.2} x", 1e3 * median, medians[0] / median);
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
