//! `bagssl embed`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bagssl::{EmbedOptions, Embeddings, ImageEmbedding, Patches};
use bagssl_core::aggregate::RunningMean;
use bagssl_core::anytime::Reason;
use bagssl_core::bag::Grid;
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::cpu::{Dense, Pool, Threads, with_threads};
use bagssl_core::embed::{FeatureLayer, Rows};
use bagssl_core::patch::PatchSide;
use bagssl_data::{Dataset, Decoded, OnBadImage, Skipped, Split, ToTensor};
use clap::ValueEnum;

use crate::backend::{CpuArgs, Name};
use crate::embedding::{embed, reason_name};
use crate::input::bag::BagArgs;
use crate::input::files::{self, Output, write_together};
use crate::input::source::{self, BadImageArgs, ColumnArgs, report_skipped};
use crate::input::stop::StopArgs;
use crate::memory::{LimitArgs, MemoryArgs};
use crate::terminal::output::{field, say};
use crate::terminal::progress::Progress;

/// Represent images by the mean of the embeddings of their patches
///
/// Writes an f32 array of shape [images, dim] to a .npy file, or to a .safetensors file as the
/// tensor `embeddings`. A second file, NAME.names.txt, has one tab-separated line per row: the
/// image's name, the number of patches embedded and the number of patches in the bag. With
/// --per-patch, each line has the name and the patch's top, left, height and width in pixels.
/// Control characters and backslashes in names are escaped.
///
/// As in torchvision, EXIF orientation is not applied and transparency is dropped. The patches that
/// --random and early stopping choose depend only on the image's pixels.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoint file
    checkpoint: PathBuf,
    /// Image files, one folder of images, one data set, or - for standard input
    ///
    /// A data set may have any format that `bagssl train --data` accepts.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Output file, .npy or .safetensors
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Split of a data set [default: val, or all images if there are no splits]
    #[arg(long, value_enum)]
    split: Option<SplitChoice>,
    /// Layer whose features are read [default: the one recorded in the checkpoint]
    #[arg(long, value_enum)]
    tap: Option<Feature>,
    #[command(flatten)]
    bag: BagArgs,
    #[command(flatten)]
    stop: StopArgs,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    /// Embed each image once as a whole, instead of its patches
    #[arg(long, conflicts_with_all = ["random", "stride", "tolerance", "max_patches", "deadline_ms"])]
    whole: bool,
    /// Embed all patches of an image in one pass, spaced by the encoder's stride
    ///
    /// Needs an encoder without padding, such as bagnet33, and patches that are not resampled.
    /// --memory-limit then limits only the memory of images being decoded (512 MiB by default).
    #[arg(long, conflicts_with_all = ["random", "stride", "whole", "tolerance", "max_patches", "deadline_ms", "tap"])]
    dense: bool,
    /// Write the embedding of every patch, image by image, instead of the mean
    #[arg(long)]
    per_patch: bool,
    /// Threads that decode and crop images, or that run the network with --dense [default: one per
    /// core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Backend that runs the network
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    /// Print the result as JSON, without progress
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitChoice {
    Train,
    Val,
}

impl From<SplitChoice> for Split {
    fn from(split: SplitChoice) -> Split {
        match split {
            SplitChoice::Train => Split::Train,
            SplitChoice::Val => Split::Validation,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Feature {
    /// The encoder's output
    Embedding,
    /// The output of the projector's first layer, after its activation
    FirstLayer,
    /// The projector's output
    Projection,
}

impl From<Feature> for FeatureLayer {
    fn from(feature: Feature) -> FeatureLayer {
        match feature {
            Feature::Embedding => FeatureLayer::Embedding,
            Feature::FirstLayer => FeatureLayer::FirstLayer,
            Feature::Projection => FeatureLayer::Projection,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let format = Format::from_path(&args.output)?;
    let names_file = args.output.with_extension("names.txt");
    let mut inputs: Vec<&Path> = args.images.iter().map(PathBuf::as_path).collect();
    inputs.push(&args.checkpoint);
    let output = Output::new(&args.output, args.force, &inputs)?;
    let names_output = Output::new(&names_file, args.force, &inputs)?;
    let bytes =
        if args.dense { files::read_checkpoint(&args.checkpoint)? } else { args.memory.read(&args.checkpoint)? };
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    args.columns.check(&[&args.images])?;
    let dataset = source::images(&args.images, args.split.map(Split::from), &args.columns, args.memory.budget());
    let dataset = dataset.map_err(|error| match args.split {
        None => source::with_split_advice(error, &args.images, &args.columns),
        Some(_) => error,
    })?;
    let spec = checkpoint.spec();
    let tap = args.tap.map_or(spec.layer, FeatureLayer::from);
    // The lines with the names grow by doubling; each has two numbers.
    let line = |image| 2 * (dataset.name(image).len() + 48) as u64;
    let options = EmbedOptions {
        patches: if args.whole { Patches::Whole } else { args.bag.patches()? },
        stop: args.stop.options()?,
        feature: Some(tap),
        keep_patches: args.per_patch,
        threads: args.threads,
        on_bad_image: args.bad.on_bad_image.into(),
        memory_limit: args.memory.bytes(),
        reserved: (0..dataset.len()).map(line).sum(),
        ..EmbedOptions::default()
    };
    let Embeddings { images: embedded, skipped } = if args.dense {
        dense(args, &checkpoint, &dataset)?
    } else {
        let network = args.backend.open_with(args.cpu)?.trained(&checkpoint, &[tap]);
        let network = network.with_context(|| args.checkpoint.display().to_string())?;
        embed(&dataset, spec, &*network, &options, args.json)?
    };
    let dim = spec.model.dim(tap);
    let (mut values, mut names) = (Vec::new(), String::new());
    for image in &embedded {
        let name = field(dataset.name(image.image));
        match args.per_patch {
            true => {
                values.extend(&image.patches.values);
                for crop in &image.crops {
                    writeln!(names, "{name}\t{}\t{}\t{}\t{}", crop.top, crop.left, crop.height, crop.width)?;
                }
            }
            false => {
                values.extend(&image.mean);
                writeln!(names, "{name}\t{}\t{}", image.used, image.total)?;
            }
        }
    }
    write_together([(output, &format.encode(&values, dim)?), (names_output, names.as_bytes())])?;
    report_skipped(&skipped);
    let rows = values.len() / dim;
    let (used, total) = embedded.iter().fold((0, 0), |sum, image| (sum.0 + image.used, sum.1 + image.total));
    if args.json {
        let mut reasons = std::collections::BTreeMap::new();
        embedded.iter().for_each(|image| *reasons.entry(reason_name(image.reason)).or_insert(0_usize) += 1);
        let done = serde_json::json!({
            "output": args.output, "names": names_file, "rows": rows, "dim": dim, "images": embedded.len(),
            "patches": used, "patches_of_all_bags": total, "stopped": reasons, "tap": tap.name(),
            "skipped": skipped.iter().map(|skipped| &skipped.name).collect::<Vec<_>>(), "passed_over": dataset.ignored(),
        });
        say!("{done}");
    } else {
        say!(
            "{rows} rows of {dim} ({}), {used} of {total} patches embedded, written to {}; names in {}",
            tap.name(),
            args.output.display(),
            names_file.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Embeds all patches of each image in one pass.
fn dense(args: &Args, checkpoint: &Checkpoint<'_>, dataset: &Dataset) -> Result<Embeddings> {
    let spec = checkpoint.spec();
    let side = match spec.patch.side() {
        PatchSide::Pixels(side) if side == spec.patch.input() => side,
        side => {
            bail!("--dense: expected patches that are not resampled, got {side:?} at {} pixels", spec.patch.input())
        }
    };
    if spec.layer != FeatureLayer::Embedding {
        bail!("--dense: expected a checkpoint whose feature is the embedding, got one of {}", spec.layer.name());
    }
    if args.backend != Name::Ndarray {
        bail!("--dense: expected --backend ndarray, got {}", args.backend.text());
    }
    checkpoint.check_values().with_context(|| args.checkpoint.display().to_string())?;
    let options = args.cpu.options(1, [side as usize; 2])?;
    let pool = (args.threads > 0).then(|| Pool::new(args.threads));
    let mut source = |name: &str| checkpoint.tensor_ref(&format!("encoder.{name}")).map(Into::into);
    let encoder = Dense::new(spec.model.encoder(), &mut source, side as usize, options)?;
    let levels = ToTensor::new(spec.normalization);
    let bar = Progress::images("embed", dataset.len(), args.json);
    let (mut all, mut skipped) = (Vec::with_capacity(dataset.len()), Vec::new());
    let policy = OnBadImage::from(args.bad.on_bad_image);
    for index in 0..dataset.len() {
        bar.inc(1);
        let name = || dataset.name(index).to_string();
        let decoded = policy.skip_or_fail(dataset.decode(index))?;
        let fits = |image: Decoded| match Grid::new(spec.patch, image.size(), encoder.stride() as u32) {
            Ok(grid) => Ok(Ok((image, grid))),
            Err(error) if policy == OnBadImage::Skip => Ok(Err(error.to_string())),
            Err(error) => Err(error).with_context(name),
        };
        let (image, grid) = match decoded.map_or_else(|reason| Ok(Err(reason)), fits)? {
            Ok(both) => both,
            Err(reason) => {
                skipped.push(Skipped { image: index as u32, name: name(), reason, times: 1 });
                continue;
            }
        };
        let mut values = Vec::new();
        levels.append(&image, &mut values);
        let encode = |threads: &dyn Threads| encoder.encode(&values, image.size(), threads);
        let rows = pool.as_ref().map_or_else(|| with_threads(encode), |pool| encode(pool)).with_context(name)?;
        let mut mean = RunningMean::new(rows.dim);
        rows.values.chunks(rows.dim).try_for_each(|row| mean.push(row))?;
        let total = mean.count();
        all.push(ImageEmbedding {
            image: index,
            mean: mean.mean().context("a grid has a patch")?,
            patches: Rows { values: if args.per_patch { rows.values } else { Vec::new() }, dim: rows.dim },
            crops: if args.per_patch { grid.crops().collect() } else { Vec::new() },
            used: total,
            total,
            reason: Reason::Complete,
        });
    }
    bar.finish();
    Ok(Embeddings::new(all, skipped)?)
}

/// The file format of the output.
enum Format {
    Npy,
    Safetensors,
}

impl Format {
    fn from_path(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(Format::Npy),
            Some("safetensors") => Ok(Format::Safetensors),
            _ => bail!("{}: expected a name that ends in .npy or .safetensors", path.display()),
        }
    }

    fn encode(&self, values: &[f32], dim: usize) -> Result<Vec<u8>> {
        match self {
            Format::Npy => Ok(files::npy(values, dim)),
            Format::Safetensors => files::safetensors("embeddings", values, dim),
        }
    }
}
