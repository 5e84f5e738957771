//! `bagssl embed`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bagssl_core::aggregate::RunningMean;
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::embed::Tap;
use bagssl_data::bags::{BagConfig, BagLoader};
use bagssl_data::dataset::{Dataset, Split};
use clap::ValueEnum;

use crate::backend::{self, Device, Job, Name, Target};
use crate::bag::BagArgs;
use crate::files;
use crate::work;

/// Represent images by the mean of the embeddings of their patches
///
/// Writes an array [image, dim] of f32 to a .npy file, or to a .safetensors file as the tensor `embeddings`; the images'
/// names, a line each, are written beside it (NAME.names.txt).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The checkpoint
    checkpoint: PathBuf,
    /// Image files; or one data set: a folder with train/ and val/, such a folder in a .tar, or CIFAR's binary files
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// File to write, .npy or .safetensors
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Which half of a data set
    #[arg(long, value_enum, default_value_t)]
    split: Half,
    /// Which feature [default: the one that the checkpoint names]
    #[arg(long, value_enum)]
    tap: Option<Feature>,
    #[command(flatten)]
    bag: BagArgs,
    /// Look at each image once, as a whole
    #[arg(long, conflicts_with_all = ["random", "stride"])]
    whole: bool,
    /// Write the embedding of every patch, image by image, instead of their mean
    #[arg(long)]
    per_patch: bool,
    /// Threads that decode and cut images [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Where the network runs
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Half {
    Train,
    #[default]
    Val,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Feature {
    Embedding,
    FirstLayer,
    Projection,
}

impl From<Feature> for Tap {
    fn from(feature: Feature) -> Tap {
        match feature {
            Feature::Embedding => Tap::Embedding,
            Feature::FirstLayer => Tap::FirstLayer,
            Feature::Projection => Tap::Projection,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let format = Format::of(&args.output)?;
    let names_file = args.output.with_extension("names.txt");
    files::check_free(&args.output, args.force)?;
    files::check_free(&names_file, args.force)?;
    let bytes = files::read(&args.checkpoint)?;
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    let dataset = std::sync::Arc::new(open(args)?);
    let spec = checkpoint.spec();
    let bag = if args.whole { Bag::Whole } else { args.bag.of(&spec.patch, &dataset)? };
    let loader = BagLoader::new(
        dataset.clone(),
        BagConfig {
            bag,
            input: spec.patch.input(),
            normalisation: spec.normalisation,
            filter: spec.filter,
            batch: 16,
            threads: args.threads,
            ..BagConfig::default()
        },
    )?;
    let tap = args.tap.map_or(spec.tap, Tap::from);
    let job = Embedding { checkpoint: &checkpoint, loader: &loader, tap, per_patch: args.per_patch, quiet: args.json };
    let values = backend::on(args.backend, job)?;
    let dim = spec.model.dim(tap);
    files::write(&args.output, &format.encode(&values, dim)?)?;
    let rows = if args.per_patch { loader.patches() } else { 1 };
    let names: String = (0..dataset.len())
        .flat_map(|image| (0..rows).map(move |patch| (image, patch)))
        .map(|(image, patch)| match args.per_patch {
            true => format!("{}\t{patch}\n", dataset.name(image)),
            false => format!("{}\n", dataset.name(image)),
        })
        .collect();
    files::write(&names_file, names.as_bytes())?;
    let rows = values.len() / dim;
    if args.json {
        let done = serde_json::json!({
            "output": args.output, "names": names_file, "rows": rows, "dim": dim,
            "images": dataset.len(), "patches": loader.patches(), "tap": tap.name(),
        });
        println!("{done}");
    } else {
        println!(
            "{rows} rows of {dim} ({}, {}) in {}; names in {}",
            tap.name(),
            crate::eval::describe(bag),
            args.output.display(),
            names_file.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn open(args: &Args) -> Result<Dataset> {
    let split = match args.split {
        Half::Train => Split::Train,
        Half::Val => Split::Validation,
    };
    let is_set = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|extension| extension == "tar");
    match args.images.as_slice() {
        [path] if is_set(path) => Ok(Dataset::open(path, split)?),
        paths => {
            if let Some(set) = paths.iter().find(|path| is_set(path)) {
                bail!("{}: expected image files, or one data set alone", set.display());
            }
            Ok(Dataset::of_files(paths)?)
        }
    }
}

/// The form of the output.
enum Format {
    Npy,
    Safetensors,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
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

struct Embedding<'a> {
    checkpoint: &'a Checkpoint<'a>,
    loader: &'a BagLoader,
    tap: Tap,
    per_patch: bool,
    quiet: bool,
}

impl Job for Embedding<'_> {
    type Output = Vec<f32>;

    fn run<T: Target>(self, device: Device<T>) -> Result<Vec<f32>> {
        let network = T::trained(self.checkpoint, &[self.tap], &device)?;
        let bar = if self.quiet { indicatif::ProgressBar::hidden() } else { work::bar("embed", self.loader.images()) };
        let mut values = Vec::new();
        for batch in self.loader.batches() {
            let batch = batch.map_err(anyhow::Error::from_boxed)?;
            let rows = network.embed(&batch, &[self.tap]).map_err(anyhow::Error::from_boxed)?.remove(0);
            bar.inc(batch.shape().images as u64);
            if self.per_patch {
                values.extend(rows.values);
                continue;
            }
            for image in rows.values.chunks(rows.dim * batch.shape().patches) {
                let mut mean = RunningMean::new(rows.dim);
                image.chunks(rows.dim).try_for_each(|patch| mean.push(patch))?;
                values.extend(mean.mean().expect("a bag has a patch"));
            }
        }
        bar.finish_and_clear();
        Ok(values)
    }
}
