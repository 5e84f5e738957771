//! `bagssl nearest`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl::{EmbedOptions, Embeddings, ImageEmbedding};
use bagssl_core::checkpoint::{Checkpoint, Spec};
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_data::{Dataset, OnBadImage};
use serde::Serialize;

use crate::backend::{CpuArgs, Name};
use crate::commands::embed::Feature;
use crate::embedding;
use crate::input::bag::BagArgs;
use crate::input::source::{self, BadImageArgs, ColumnArgs, report_skipped};
use crate::input::stop::StopArgs;
use crate::memory::{LimitArgs, MemoryArgs};
use crate::terminal::output::{field, say};

/// Find the images or patches most similar to a query image
///
/// Compares images by the cosine of their representations, and patches by the cosine of their
/// embeddings.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoint file
    checkpoint: PathBuf,
    /// Query image
    query: PathBuf,
    /// Image files, one folder of images, one data set, or - for standard input
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Maximum number of results to print
    #[arg(long, short = 'k', value_name = "N", default_value_t = 10)]
    count: usize,
    /// Compare patches: for each patch of the query, find the nearest patch of every image
    #[arg(long)]
    patches: bool,
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
    /// Threads that decode and crop images [default: one per core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Backend that runs the network
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    /// Print the result as JSON, without progress
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Neighbors {
    similarity: f32,
    image: String,
    /// The query's patch and the matching patch, each as `[top, left, side]` in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    patches: Option<[[u32; 3]; 2]>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.count == 0 {
        bail!("--count: expected at least 1, got 0");
    }
    let bytes = args.memory.read(&args.checkpoint)?;
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    args.columns.check(&[std::slice::from_ref(&args.query), &args.images])?;
    let query = source::images(std::slice::from_ref(&args.query), None, &args.columns, args.memory.budget())?;
    if query.len() != 1 {
        bail!("{}: expected one image, got {}", args.query.display(), query.len());
    }
    let others = source::images(&args.images, None, &args.columns, args.memory.budget())?;
    let found = search(args, &checkpoint, &query, &others)?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(ExitCode::SUCCESS);
    }
    for Neighbors { similarity, image, patches } in &found {
        match patches {
            None => say!("{similarity:>7.4}  {}", field(image)),
            Some([query, other]) => say!(
                "{similarity:>7.4}  {} at row {}, column {} ({} pixels) like row {}, column {}",
                field(image),
                other[0],
                other[1],
                other[2],
                query[0],
                query[1]
            ),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the nearest images or patches, in descending order of similarity.
fn search(
    args: &Args,
    checkpoint: &Checkpoint<'_>,
    query: &Arc<Dataset>,
    others: &Arc<Dataset>,
) -> Result<Vec<Neighbors>> {
    let spec = checkpoint.spec();
    let tap = args.tap.map_or(spec.layer, FeatureLayer::from);
    let network = args
        .backend
        .open_with(args.cpu)?
        .trained(checkpoint, &[tap])
        .with_context(|| args.checkpoint.display().to_string())?;
    let first = embed(args, spec, tap, (query, OnBadImage::Fail), &*network, true)?.images.remove(0);
    let rest = embed(args, spec, tap, (others, args.bad.on_bad_image.into()), &*network, args.json)?;
    report_skipped(&rest.skipped);
    let rest = rest.images;
    let mut found = match args.patches {
        true => patches(&first, &rest, others, args.count),
        false => images(&first, &rest, others),
    };
    leave_nearest(&mut found, args.count);
    Ok(found)
}

/// Sorts by similarity and leaves the first `count`. Equal ones keep their order.
fn leave_nearest(found: &mut Vec<Neighbors>, count: usize) {
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    found.truncate(count);
}

fn embed(
    args: &Args,
    spec: &Spec,
    tap: FeatureLayer,
    (dataset, on_bad_image): (&Arc<Dataset>, OnBadImage),
    network: &dyn Embed,
    quiet: bool,
) -> Result<Embeddings> {
    let result = |image| (size_of::<Neighbors>() + dataset.name(image).len()) as u64;
    let options = EmbedOptions {
        patches: args.bag.patches()?,
        stop: args.stop.options()?,
        feature: Some(tap),
        keep_patches: args.patches,
        threads: args.threads,
        on_bad_image,
        memory_limit: args.memory.bytes(),
        reserved: (0..dataset.len()).map(result).sum(),
        ..EmbedOptions::default()
    };
    embedding::embed(dataset, spec, network, &options, quiet)
}

fn unit(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter().map(|value| if length > 0.0 { value / length } else { 0.0 }).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn images(query: &ImageEmbedding, rest: &[ImageEmbedding], names: &Dataset) -> Vec<Neighbors> {
    let query = unit(&query.mean);
    let found = |other: &ImageEmbedding| Neighbors {
        similarity: cosine(&query, &unit(&other.mean)),
        image: names.name(other.image).into(),
        patches: None,
    };
    rest.iter().map(found).collect()
}

/// Returns the nearest patch of each image for each patch of the query, but for those that `count`
/// others are nearer than.
fn patches(query: &ImageEmbedding, rest: &[ImageEmbedding], names: &Dataset, count: usize) -> Vec<Neighbors> {
    let units = |embedded: &ImageEmbedding| -> Vec<Vec<f32>> {
        embedded.patches.values.chunks(embedded.patches.dim.max(1)).map(unit).collect()
    };
    let place = |embedded: &ImageEmbedding, patch: usize| {
        let crop = embedded.crops[patch];
        [crop.top, crop.left, crop.height]
    };
    let of_query = units(query);
    let mut found = Vec::new();
    for other in rest {
        let of_other = units(other);
        for (number, patch) in of_query.iter().enumerate() {
            let best = of_other.iter().enumerate().map(|(at, unit)| (cosine(patch, unit), at));
            if let Some((similarity, at)) = best.max_by(|a, b| a.0.total_cmp(&b.0)) {
                let patches = Some([place(query, number), place(other, at)]);
                found.push(Neighbors { similarity, image: names.name(other.image).into(), patches });
            }
        }
        leave_nearest(&mut found, count);
    }
    found
}
