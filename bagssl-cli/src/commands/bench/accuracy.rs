//! `bagssl bench accuracy`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl_core::batch::PatchBatch;
use bagssl_core::checkpoint::{Checkpoint, Spec};
use bagssl_core::color::Color;
use bagssl_core::cpu::{Executor, InstructionSet, with_threads};
use bagssl_core::plan::{Kind, Layer, Op, Plan};
use bagssl_data::{BagConfig, BagLoader, Dataset};
use bagssl_eval::Knn;
use bagssl_eval::{Features, Order};
use serde::Serialize;

use super::check_range;
use crate::backend::{CpuArgs, Name};
use crate::input::bag::BagArgs;
use crate::input::files;
use crate::input::source::DataArgs;
use crate::input::splits;
use crate::terminal::output::{say, tell};
use crate::terminal::progress::Progress;

/// Images per batch.
const BATCH: usize = 16;

/// Measure how much accuracy a checkpoint loses by Winograd convolution and bf16
///
/// The reference is the exact network, which computes plain sums of products in f32. Each
/// convolution gets the exact network's input on patches of real images. Its error is the largest
/// absolute difference to the exact output, divided by the output's largest magnitude. The final
/// embeddings and their nearest-neighbor accuracy are compared, too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoint file
    checkpoint: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bag: BagArgs,
    /// Also compare the embeddings of this backend
    #[arg(long, value_enum)]
    backend: Option<Name>,
    /// Exit with code 1 if the cosine of any embedding of --backend to the exact one is below this
    /// value
    #[arg(long, value_name = "COSINE", requires = "backend")]
    least: Option<f64>,
    /// Number of patches to compare the layers on
    #[arg(long, value_name = "N", default_value_t = 64)]
    patches: usize,
    /// Print the result as JSON, without progress
    #[arg(long)]
    json: bool,
}

/// The arithmetic or backend that computes the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Exact,
    Winograd,
    Bf16,
    /// A Burn backend.
    On(Name),
}

impl Serialize for Kernel {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Kernel::Exact => "exact",
            Kernel::Winograd => "winograd",
            Kernel::Bf16 => "bf16",
            Kernel::On(backend) => backend.text(),
        })
    }
}

impl Kernel {
    /// Returns the kernels that this machine's CPU supports.
    fn all() -> Vec<Kernel> {
        let mut all = vec![Kernel::Exact, Kernel::Winograd];
        all.extend(InstructionSet::Avx512Bf16.is_available().then_some(Kernel::Bf16));
        all
    }

    fn name(self) -> &'static str {
        match self {
            Kernel::Exact => "exact f32",
            Kernel::Winograd => "f32",
            Kernel::Bf16 => "bf16",
            Kernel::On(backend) => backend.text(),
        }
    }

    /// Returns the kernel of a Burn backend, or `None` for this project's CPU kernels.
    fn from_backend(backend: Name) -> Option<Kernel> {
        (backend != Name::Ndarray).then_some(Kernel::On(backend))
    }

    fn backend(self) -> Name {
        match self {
            Kernel::Exact | Kernel::Winograd | Kernel::Bf16 => Name::Ndarray,
            Kernel::On(backend) => backend,
        }
    }

    fn cpu(self) -> CpuArgs {
        CpuArgs { exact: self == Kernel::Exact, bf16: self == Kernel::Bf16 }
    }
}

/// The errors of one layer.
#[derive(Debug, Serialize)]
struct LayerError {
    layer: String,
    shape: String,
    /// The largest absolute difference divided by the largest magnitude, per kernel.
    errors: Vec<(Kernel, f64)>,
}

/// The effect of a kernel on the embeddings.
#[derive(Debug, Serialize)]
struct NetworkError {
    kernel: Kernel,
    lowest_cosine: f64,
    mean_cosine: f64,
    /// The largest absolute difference divided by the largest magnitude.
    error: f64,
    /// The kNN accuracy in percent.
    knn: f64,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    check_range("--patches", args.patches, 1..=4096)?;
    if args.least.is_some() && args.backend == Some(Name::Ndarray) {
        bail!("--least: expected a --backend other than ndarray (the reference), got ndarray");
    }
    if let Some(least) = args.least.filter(|least| !(-1.0..=1.0).contains(least)) {
        bail!("--least: expected a cosine from -1 to 1, got {least}");
    }
    // Reports a backend that is not available before the work begins.
    args.backend.map(Name::open).transpose()?;
    let bytes = files::read_checkpoint(&args.checkpoint)?;
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    let splits = splits::open(&args.data)?;
    let splits = [splits.train, splits.test];
    let layers = by_layer(args, &checkpoint, &splits[1])?;
    let mut whole: Vec<(Kernel, [Features; 2])> = Vec::new();
    for kernel in Kernel::all().into_iter().chain(args.backend.and_then(Kernel::from_backend)) {
        whole.push((kernel, embeddings(args, &checkpoint, &splits, kernel)?));
    }
    let networks: Vec<NetworkError> =
        whole.iter().map(|(kernel, features)| compare(*kernel, features, &whole[0].1)).collect::<Result<_>>()?;
    match args.json {
        true => say!("{}", serde_json::json!({"layers": layers, "networks": networks})),
        false => print(&layers, &networks),
    }
    // NaN counts as lower.
    let is_low = |cosine: f64, least: f64| cosine < least || cosine.is_nan();
    let low = |network: &&NetworkError| args.least.is_some_and(|least| is_low(network.lowest_cosine, least));
    if let Some(NetworkError { kernel, lowest_cosine, .. }) = networks.last().filter(low) {
        tell!("{}: the lowest cosine is {lowest_cosine:.7}", kernel.name());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(layers: &[LayerError], networks: &[NetworkError]) {
    let kernels: Vec<String> = layers[0].errors.iter().map(|(kernel, _)| format!("{:>9}", kernel.name())).collect();
    say!("{:<24} {:<24}{}", "layer", "outputs", kernels.concat());
    for LayerError { layer, shape, errors } in layers {
        let errors: Vec<String> = errors.iter().map(|(_, error)| format!("{error:>9.1e}")).collect();
        say!("{layer:<24} {shape:<24}{}", errors.concat());
    }
    say!("\n{:<10} {:>14} {:>12} {:>9} {:>8}", "embedding", "lowest cosine", "mean cosine", "error", "kNN %");
    for NetworkError { kernel, lowest_cosine, mean_cosine, error, knn } in networks {
        say!("{:<10} {lowest_cosine:>14.7} {mean_cosine:>12.7} {error:>9.1e} {knn:>8.1}", kernel.name());
    }
}

fn bag(args: &Args, checkpoint: &Checkpoint<'_>, dataset: &Arc<Dataset>, batch: usize) -> Result<BagLoader> {
    let Spec { patch, normalization, filter, .. } = *checkpoint.spec();
    let (side, bag) = (patch.input(), args.bag.of(&patch, dataset)?);
    let (color, threads) = (Color::Rgb, args.data.threads);
    let shared = BagConfig::default();
    let config = BagConfig { bag, input: side, color, normalization, filter, batch, seed: 0, threads, ..shared };
    Ok(BagLoader::new(dataset.clone(), config)?)
}

/// Returns patches and their size `[height, width]`. Spreads the requested number of patches over
/// as many images as possible. The patches of an image are adjacent in the result.
fn patches(args: &Args, checkpoint: &Checkpoint<'_>, dataset: &Arc<Dataset>) -> Result<(Vec<f32>, [usize; 2])> {
    let loader = bag(args, checkpoint, dataset, 1)?;
    let each = args.patches.div_ceil(dataset.len());
    let (mut all, mut size) = (Vec::new(), [0; 2]);
    for batch in loader.batches().take(args.patches.div_ceil(each)) {
        let batch: PatchBatch = batch.map_err(anyhow::Error::from_boxed)?;
        let shape = batch.shape();
        size = [shape.height, shape.width];
        let step = (shape.patches / each).max(1);
        batch.data().chunks(shape.patch_len()).step_by(step).take(each).for_each(|patch| all.extend(patch));
    }
    Ok((all, size))
}

/// Returns the errors of each convolution on its own.
fn by_layer(args: &Args, checkpoint: &Checkpoint<'_>, dataset: &Arc<Dataset>) -> Result<Vec<LayerError>> {
    let plan = checkpoint.spec().model.encoder();
    let (input, size) = patches(args, checkpoint, dataset)?;
    let sizes = plan.sizes(size).context("a patch is too small for the plan")?;
    let maps = maps(checkpoint, plan, &input, size)?;
    let mut layers = Vec::new();
    for (index, layer) in plan.layers().iter().enumerate() {
        let Op::ConvNorm { conv, inputs, outputs, .. } = &layer.op else { continue };
        let mut alone = layer.clone();
        alone.input = 0;
        if let Op::ConvNorm { residual, relu, .. } = &mut alone.op {
            (*residual, *relu) = (None, false);
        }
        let alone = Plan::new(Kind::Map(*inputs), vec![alone])?;
        let size = sizes[layer.input];
        let by = |kernel: Kernel| output(checkpoint, &alone, kernel, &maps[layer.input], size);
        let exact = by(Kernel::Exact)?;
        let errors = Kernel::all().into_iter().skip(1);
        let errors = errors.map(|kernel| Ok((kernel, error(&by(kernel)?, &exact)))).collect::<Result<_>>()?;
        let [height, width] = sizes[index + 1];
        layers.push(LayerError { layer: conv.clone(), shape: format!("{height}x{width}x{outputs}"), errors });
    }
    Ok(layers)
}

/// Returns the input and every feature map of the exact network, each of shape `[row, channel,
/// height, width]`. Stops at the first layer whose output is not a map.
fn maps(checkpoint: &Checkpoint<'_>, plan: &Plan, input: &[f32], size: [usize; 2]) -> Result<Vec<Vec<f32>>> {
    let mut maps = vec![input.to_vec()];
    for last in 0..plan.layers().len() {
        let Kind::Map(channels) = plan.kind(last + 1) else { break };
        let layers: Vec<Layer> = plan.layers()[..=last].to_vec();
        let pixels = output(checkpoint, &Plan::new(plan.input(), layers)?, Kernel::Exact, input, size)?;
        let pixels_of_row = pixels.len() / channels / (input.len() / (3 * size[0] * size[1]));
        let rows = pixels.chunks(pixels_of_row * channels);
        let planes =
            rows.flat_map(|row| (0..channels).flat_map(move |channel| row.iter().skip(channel).step_by(channels)));
        maps.push(planes.copied().collect());
    }
    Ok(maps)
}

/// Returns the output of a plan.
fn output(
    checkpoint: &Checkpoint<'_>,
    plan: &Plan,
    kernel: Kernel,
    input: &[f32],
    size: [usize; 2],
) -> Result<Vec<f32>> {
    let (Kind::Map(channels) | Kind::Rows(channels)) = plan.input();
    let batch = input.len() / (channels * size[0] * size[1]);
    let mut source = |name: &str| checkpoint.tensor_ref(&format!("encoder.{name}")).map(Into::into);
    let executor = Executor::new(plan, &mut source, kernel.cpu().options(batch, size)?)?;
    with_threads(|threads| {
        let mut workspace = executor.workspace(batch, size, threads)?;
        Ok(executor.run(&mut workspace, input, threads)?)
    })
}

/// Returns the largest absolute difference divided by the largest magnitude of `exact`.
fn error(values: &[f32], exact: &[f32]) -> f64 {
    let max_steps =
        |values: &mut dyn Iterator<Item = f32>| values.fold(0_f32, |max_steps, value| max_steps.max(value.abs()));
    let difference = max_steps(&mut values.iter().zip(exact).map(|(value, exact)| value - exact));
    f64::from(difference) / f64::from(max_steps(&mut exact.iter().copied())).max(f64::MIN_POSITIVE)
}

fn compare(kernel: Kernel, features: &[Features; 2], exact: &[Features; 2]) -> Result<NetworkError> {
    let dim = features[1].dim();
    let cosines: Vec<f64> = features[1]
        .values()
        .chunks(dim)
        .zip(exact[1].values().chunks(dim))
        .map(|(a, b)| {
            let dot =
                |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
        })
        .collect();
    let [train, test] = features.each_ref().map(|split| split.samples(split.patches(), Order::Given));
    Ok(NetworkError {
        kernel,
        lowest_cosine: cosines.iter().fold(1.0, |least: f64, &cosine| if cosine > least { least } else { cosine }),
        mean_cosine: cosines.iter().sum::<f64>() / cosines.len() as f64,
        error: error(features[1].values(), exact[1].values()),
        knn: Knn::default().evaluate(&train?, &test?)?.accuracy,
    })
}

/// Returns the features of both splits.
fn embeddings(
    args: &Args,
    checkpoint: &Checkpoint<'_>,
    splits: &[Arc<Dataset>; 2],
    kernel: Kernel,
) -> Result<[Features; 2]> {
    let tap = checkpoint.spec().layer;
    let network = kernel.backend().open_with(kernel.cpu())?.trained(checkpoint, &[tap])?;
    let all = splits[0].len() + splits[1].len();
    let bar = Progress::images(kernel.name(), all, args.json);
    let features = |split: &Arc<Dataset>| -> Result<Features> {
        let loader = bag(args, checkpoint, split, BATCH)?;
        let before = bar.position();
        let mut progress = |done: usize| bar.set_position(before + done as u64);
        Ok(bagssl_eval::extract(&*network, loader.batches(), &[tap], &mut progress)?.remove(0))
    };
    let both = [features(&splits[0])?, features(&splits[1])?];
    bar.finish();
    Ok(both)
}
