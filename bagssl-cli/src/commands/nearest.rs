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
use crate::input::source::{self, BadImageArgs, ColumnArgs, tell_skipped};
use crate::input::stop::StopArgs;
use crate::memory::MemoryArgs;
use crate::terminal::output::{field, say};

/// Find the images, or patches, that are most like a given one
///
/// Images are compared by the cosine of their representations, patches by that of their embeddings.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The checkpoint
    checkpoint: PathBuf,
    /// The image that others are compared with
    query: PathBuf,
    /// Images, folders of images, or a data set
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// How many are shown
    #[arg(long, short = 'k', value_name = "N", default_value_t = 10)]
    count: usize,
    /// Compare single patches: the nearest ones in other images to each patch of the query
    #[arg(long)]
    patches: bool,
    /// Which feature [default: the one that the checkpoint names]
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
    /// Threads that decode and cut images [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Where the network runs
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Neighbors {
    similarity: f32,
    image: String,
    /// The query's patch and the found one, `[top, left, side]` in pixels.
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

/// The nearest ones first.
fn search(
    args: &Args,
    checkpoint: &Checkpoint<'_>,
    query: &Arc<Dataset>,
    others: &Arc<Dataset>,
) -> Result<Vec<Neighbors>> {
    let spec = checkpoint.spec();
    let tap = args.tap.map_or(spec.tap, FeatureLayer::from);
    let network = args
        .backend
        .open_with(args.cpu)?
        .trained(checkpoint, &[tap])
        .with_context(|| args.checkpoint.display().to_string())?;
    let first = embed(args, spec, tap, (query, OnBadImage::Fail), &*network, true)?.images.remove(0);
    let rest = embed(args, spec, tap, (others, args.bad.on_bad_image.into()), &*network, args.json)?;
    tell_skipped(&rest.skipped);
    let rest = rest.images;
    let mut found = if args.patches { patches(&first, &rest, others) } else { images(&first, &rest, others) };
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
    found.truncate(args.count);
    Ok(found)
}

fn embed(
    args: &Args,
    spec: &Spec,
    tap: FeatureLayer,
    (dataset, on_bad_image): (&Arc<Dataset>, OnBadImage),
    network: &dyn Embed,
    quiet: bool,
) -> Result<Embeddings> {
    let options = EmbedOptions {
        patches: args.bag.patches()?,
        stop: args.stop.options()?,
        feature: Some(tap),
        keep_patches: args.patches,
        threads: args.threads,
        on_bad_image,
        memory_limit: args.memory.bytes(),
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

/// For each patch of the query its nearest one in each image.
fn patches(query: &ImageEmbedding, rest: &[ImageEmbedding], names: &Dataset) -> Vec<Neighbors> {
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
    }
    found
}
