//! `bagssl explain`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bagssl::{EmbedOptions, ImageEmbedding};
use bagssl_core::bag::{Bag, Grid};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::color::Color;
use bagssl_core::embed::{FeatureLayer, Rows};
use bagssl_core::explain::{Pairs, evidence};
use bagssl_core::heat::HeatMap;
use bagssl_data::{Dataset, Image};
use bagssl_eval::Samples;
use bagssl_eval::{Linear, SoftmaxModel};

use crate::backend::{CpuArgs, Name};
use crate::embedding;
use crate::input::bag::BagArgs;
use crate::input::files::Output;
use crate::input::source::{self, DataArgs};
use crate::memory::MemoryArgs;
use crate::terminal::output::{escaped, say};
use crate::terminal::picture::{hstack, png};

/// Show which patches of an image support a class, or its similarity to another image
///
/// The representation of an image is the mean of its patch embeddings. A linear probe's logit is
/// therefore a sum over patches, and the cosine of two images a sum over pairs of patches, so the
/// contributions are exact. In the picture, red patches contribute positively and blue patches
/// negatively.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("of").required(true).args(["class", "like"])))]
pub(crate) struct Args {
    /// Checkpoint file
    checkpoint: PathBuf,
    /// Image to explain
    image: PathBuf,
    /// Class to explain, by its name in the data set; a linear probe is fitted to the training
    /// split
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Image to compare with
    #[arg(long, value_name = "IMAGE")]
    like: Option<PathBuf>,
    /// Output file, .png
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    data: DataArgs<MemoryArgs>,
    #[command(flatten)]
    bag: BagArgs,
    #[command(flatten)]
    cpu: CpuArgs,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Backend that runs the network
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    /// Print the contributions as JSON, without progress
    #[arg(long)]
    json: bool,
}

/// The maximum number of pairs of patches. More would take too much memory.
const MAX_PAIRS: u64 = 50_000_000;

/// The number of pairs of patches to print.
const PAIRS: usize = 10;

/// Bytes per pixel: the image, in grey, twice with colors, twice in the picture and in its file; sums
/// and means of the map.
const OF_PIXEL: u64 = 3 * 8 + 16 + 16;
/// Bytes per pair of patches: its share, and to find the largest a copy with its place, sorted with
/// another one.
const OF_PAIR: u64 = 8 + 24 + 24;
/// Bytes per patch that is printed as JSON.
const OF_PRINTED: u64 = 2048;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.like.is_some() && (args.data.data.is_some() || args.data.exif) {
        bail!("--data, --exif: expected --class, got --like");
    }
    if let Some(like) = &args.like {
        args.data.columns.check(&[std::slice::from_ref(&args.image), std::slice::from_ref(like)])?;
    }
    let inputs = [Some(&args.image), args.like.as_ref(), Some(&args.checkpoint)];
    let inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    let output = Output::new(&args.output, args.force, &inputs)?;
    if args.output.extension().is_none_or(|extension| extension != "png") {
        bail!("{}: expected a name that ends in .png", args.output.display());
    }
    let bytes = args.data.memory.read(&args.checkpoint)?;
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    let picture = explain(args, &checkpoint)?;
    output.write(&png(&picture)?)?;
    if !args.json {
        say!("picture written to {}", args.output.display());
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Returns the bytes that the pictures and the output for an image take.
    fn output_bytes(&self, image: &Image, grid: Grid) -> u64 {
        let pixels = u64::from(image.size().height) * u64::from(image.size().width);
        let of_patch = 8 + if self.json { OF_PRINTED } else { 0 };
        (OF_PIXEL * pixels).saturating_add(of_patch * grid.patches() as u64)
    }
}

/// An image, its grid of patches and their embeddings.
struct EmbeddedImage {
    image: Image,
    grid: Grid,
    embedding: ImageEmbedding,
}

fn explain(args: &Args, checkpoint: &Checkpoint<'_>) -> Result<Image> {
    let tap = checkpoint.spec().layer;
    let network = args
        .backend
        .open_with(args.cpu)?
        .trained(checkpoint, &[tap])
        .with_context(|| args.checkpoint.display().to_string())?;
    let embed = |dataset: &Arc<Dataset>, keep: bool, quiet: bool, reserved: u64| {
        let options = EmbedOptions {
            patches: args.bag.patches()?,
            keep_patches: keep,
            threads: args.data.threads,
            memory_limit: args.data.memory.bytes(),
            reserved,
            ..EmbedOptions::default()
        };
        anyhow::Ok(embedding::embed(dataset, checkpoint.spec(), &*network, &options, quiet)?.images)
    };
    let embed_file = |path: &Path, first: Option<&EmbeddedImage>| -> Result<EmbeddedImage> {
        let dataset = source::images(&[path.into()], None, &args.data.columns, args.data.memory.left()?)?;
        if dataset.len() != 1 {
            bail!("{}: expected one image, got {}", path.display(), dataset.len());
        }
        let image = dataset.decode(0)?.into_image();
        let patch = &checkpoint.spec().patch;
        let Bag::Grid { spec, stride } = args.bag.patches()?.bag(patch, image.size())? else {
            bail!("--random: expected a grid of patches, got random ones");
        };
        let grid = Grid::new(spec, image.size(), stride)?;
        let mut reserved = args.output_bytes(&image, grid);
        if let Some(first) = first {
            let pairs = check_pairs(first.grid, grid)?;
            reserved = reserved.saturating_add(args.output_bytes(&first.image, first.grid) + OF_PAIR * pairs);
        }
        Ok(EmbeddedImage { image, grid, embedding: embed(&dataset, true, true, reserved)?.remove(0) })
    };
    let embedded = embed_file(&args.image, None)?;
    match (&args.class, &args.like) {
        (Some(class), _) => {
            let train = args.data.open_labeled()?;
            let Some(class_number) = train.classes().iter().position(|known| known == class) else {
                bail!("--class: expected one of {}, got {class:?}", train.classes().join(", "));
            };
            let (dim, classes) = (checkpoint.spec().model.dim(tap), train.classes().len());
            let evidence = 8 * embedded.grid.patches() as u64 * classes as u64;
            let reserved = Linear::default().work_bytes(train.len(), dim, classes);
            let reserved =
                reserved.saturating_add(evidence).saturating_add(args.output_bytes(&embedded.image, embedded.grid));
            let probe = fit(&train, &embed(&train, false, args.json, reserved)?, tap, checkpoint)?;
            explain_class(args, &train, &probe, class_number, &embedded)
        }
        (None, Some(other)) => explain_pair(args, &embedded, &embed_file(other, Some(&embedded))?),
        (None, None) => Err(anyhow!("expected --class or --like, got neither")),
    }
}

fn fit(
    train: &Dataset,
    embedded: &[ImageEmbedding],
    tap: FeatureLayer,
    checkpoint: &Checkpoint<'_>,
) -> Result<SoftmaxModel> {
    let dim = checkpoint.spec().model.dim(tap);
    let values = embedded.iter().flat_map(|image| &image.mean).copied().collect();
    let labels = (0..train.len()).map(|image| train.label(image)).collect();
    Ok(Linear::default().fit(&Samples::new(Rows { values, dim }, labels)?)?)
}

fn explain_class(
    args: &Args,
    train: &Dataset,
    probe: &SoftmaxModel,
    class: usize,
    embedded: &EmbeddedImage,
) -> Result<Image> {
    let place = probe.classes().iter().position(|&known| known as usize == class);
    let place = place.with_context(|| format!("class {:?} has no training image", train.classes()[class]))?;
    let classes = probe.classes().len();
    let all = evidence(&embedded.embedding.patches, probe.weights(), classes)?;
    let shares: Vec<f64> = all.iter().skip(place).step_by(classes).copied().collect();
    let mut logits: Vec<(String, f64)> = (0..classes)
        .map(|index| {
            let sum: f64 = all.iter().skip(index).step_by(classes).sum();
            (train.classes()[probe.classes()[index] as usize].clone(), sum + probe.bias()[index])
        })
        .collect();
    if args.json {
        let logits: serde_json::Map<_, _> =
            logits.iter().map(|(name, logit)| (name.clone(), (*logit).into())).collect();
        let patches = shares_with_positions(embedded, &shares);
        let all = serde_json::json!({"class": train.classes()[class], "bias": probe.bias()[place], "logits": logits, "patches": patches});
        say!("{all}");
    } else {
        let sum: f64 = shares.iter().sum();
        say!(
            "{}: logit {:+.3} = bias {:+.3} and {:+.3} from {} patches",
            escaped(&train.classes()[class]),
            sum + probe.bias()[place],
            probe.bias()[place],
            sum,
            shares.len()
        );
        logits.sort_by(|a, b| b.1.total_cmp(&a.1));
        logits.iter().take(5).for_each(|(name, logit)| say!("  {logit:+8.3}  {}", escaped(name)));
    }
    let heat = HeatMap::new(&shares, embedded.grid, embedded.image.size())?;
    let limit = heat.max_abs().max(f64::MIN_POSITIVE);
    Ok(hstack(&[&embedded.image, &overlay(&heat, &embedded.image, limit)?]))
}

/// Returns the number of pairs of patches. Returns an error if there are too many.
fn check_pairs(first: Grid, second: Grid) -> Result<u64> {
    let count = (first.patches() as u64).saturating_mul(second.patches() as u64);
    if count > MAX_PAIRS {
        bail!("--like: expected at most {MAX_PAIRS} pairs of patches, got {count}; use a larger --stride");
    }
    Ok(count)
}

fn explain_pair(args: &Args, first: &EmbeddedImage, second: &EmbeddedImage) -> Result<Image> {
    let pairs = Pairs::new(&first.embedding.patches, &second.embedding.patches)?;
    let (rows, columns) = (first.embedding.patches.len(), second.embedding.patches.len());
    let of_first: Vec<f64> = pairs.shares().chunks(columns).map(|row| row.iter().sum()).collect();
    let of_second: Vec<f64> = (0..columns).map(|at| pairs.shares().iter().skip(at).step_by(columns).sum()).collect();
    let place = |embedded: &EmbeddedImage, patch: usize| {
        let crop = embedded.embedding.crops[patch];
        (crop.top, crop.left)
    };
    if args.json {
        let top: Vec<_> = pairs
            .top(PAIRS)
            .into_iter()
            .map(|pair| serde_json::json!({"first": place(first, pair.first), "second": place(second, pair.second), "share": pair.share}))
            .collect();
        let all = serde_json::json!({
            "cosine": pairs.cosine(), "pairs": top,
            "first": shares_with_positions(first, &of_first), "second": shares_with_positions(second, &of_second),
        });
        say!("{all}");
    } else {
        say!("cosine {:.4}, the sum over {rows} x {columns} pairs of patches; largest contributions:", pairs.cosine());
        for pair in pairs.top(PAIRS) {
            let (a, b) = (place(first, pair.first), place(second, pair.second));
            say!("  {:+.5}  row {}, column {} with row {}, column {}", pair.share, a.0, a.1, b.0, b.1);
        }
    }
    let heat = [
        HeatMap::new(&of_first, first.grid, first.image.size())?,
        HeatMap::new(&of_second, second.grid, second.image.size())?,
    ];
    let limit = |heat: &HeatMap| heat.max_abs().max(f64::MIN_POSITIVE);
    let pictures =
        [overlay(&heat[0], &first.image, limit(&heat[0]))?, overlay(&heat[1], &second.image, limit(&heat[1]))?];
    Ok(hstack(&[&first.image, &pictures[0], &second.image, &pictures[1]]))
}

fn shares_with_positions(embedded: &EmbeddedImage, shares: &[f64]) -> Vec<serde_json::Value> {
    let one = |(crop, share): (&bagssl_core::patch::Crop, &f64)| serde_json::json!({"top": crop.top, "left": crop.left, "side": crop.height, "share": share});
    embedded.embedding.crops.iter().zip(shares).map(one).collect()
}

fn overlay(heat: &HeatMap, image: &Image, limit: f64) -> Result<Image> {
    const OPACITY: f64 = 0.6;
    // Draws the map on a grey image, so that all color comes from the map.
    let mut grey = image.clone();
    grey.set_color(Color::Grey);
    Ok(Image::new(image.size(), heat.overlay(grey.rgb(), limit, OPACITY)?))
}
