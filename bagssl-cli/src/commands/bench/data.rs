//! `bagssl bench data`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bagssl_core::batch::PatchSource;
use bagssl_data::{Loader, LoaderConfig, Split};
use bagssl_train::preset::preset;

use super::check_range;
use crate::config::RunConfig;
use crate::input::source::DataArgs;
use crate::parallelism;
use crate::terminal::output::say;

/// Measure how fast training patches are decoded, cropped, resampled, augmented and normalized
///
/// Each round takes some batches of the preset's views. With --decode, every image is decoded each
/// time, as if the images did not fit into memory. Otherwise they are decoded before the timing
/// starts, as in all epochs but the first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Preset of the views: bagssl, bagssl-vicreg, multi-scale or emp-ssl-cifar
    #[arg(long, value_name = "NAME", default_value = "emp-ssl-cifar")]
    preset: String,
    #[command(flatten)]
    data: DataArgs,
    /// Number of patches per image [default: the preset's]
    #[arg(long, value_name = "N")]
    patches: Option<usize>,
    /// Number of images per batch [default: the preset's, but at most the size of the data set]
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Side of a patch in pixels, before resampling [default: the preset's share of the image]
    #[arg(long, value_name = "PIXELS")]
    crop: Option<u32>,
    /// Decode each image every time instead of caching it
    #[arg(long)]
    decode: bool,
    /// Only measure decoding, on one thread
    #[arg(long, conflicts_with_all = ["decode", "scaling", "threads", "patches", "images", "crop"])]
    decode_only: bool,
    /// Number of rounds; the median is printed
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// Minimum duration of a round in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    seconds: f64,
    /// Measure with 1, 2, 4.. threads, up to --threads
    #[arg(long, conflicts_with = "json")]
    scaling: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    check_range("--rounds", args.rounds, 1..=1_000_000)?;
    check_range("--threads", args.data.threads, 0..=1024)?;
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        bail!("--seconds: expected more than 0 and at most 3600, got {}", args.seconds);
    }
    if args.decode_only {
        return decode_only(args);
    }
    let threads = if args.data.threads == 0 { parallelism::cores() } else { args.data.threads };
    let counts: Vec<usize> = match args.scaling {
        true => std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|&count| count < threads).collect(),
        false => Vec::new(),
    };
    for count in counts.into_iter().chain([threads]) {
        let rates = measure(args, count)?;
        print(args, count, &rates)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the number of images that this thread decodes per second.
fn decode_only(args: &Args) -> Result<ExitCode> {
    let dataset = args.data.open(Split::Train)?;
    let (mut rates, mut pixels) = (Vec::with_capacity(args.rounds), 0);
    for _ in 0..args.rounds {
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed().as_secs_f64() < args.seconds {
            let size = dataset.decode(count % dataset.len())?.size();
            pixels = size.height * size.width;
            count += 1;
        }
        rates.push(count as f64 / begun.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let (slowest, fastest) = (rates[0], rates[rates.len() - 1]);
    match args.json {
        true => say!(
            "{}",
            serde_json::json!({"images_per_second": median, "fastest": fastest, "slowest": slowest, "images": dataset.len()})
        ),
        false => say!(
            "{median:.0} images/s decoded on one thread (median of {} rounds; {slowest:.0} to {fastest:.0}); last \
             image: {pixels} pixels",
            rates.len()
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// The measured patches per second of each round, in ascending order.
struct Rates {
    patches: Vec<f64>,
    each: usize,
    images: usize,
}

fn print(args: &Args, threads: usize, rates: &Rates) -> Result<()> {
    let median = rates.patches[rates.patches.len() / 2];
    let (slowest, fastest) = (rates.patches[0], rates.patches[rates.patches.len() - 1]);
    if args.json {
        let all = serde_json::json!({
            "patches_per_second": median, "fastest": fastest, "slowest": slowest,
            "images_per_second": median / rates.each as f64, "patches_per_image": rates.each,
            "images": rates.images, "threads": threads, "decode": args.decode, "preset": args.preset,
        });
        say!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    say!(
        "{median:.0} patches/s on {threads} threads, {:.0} per thread (median of {} rounds; {slowest:.0} to \
         {fastest:.0}), {} per image{}",
        median / threads as f64,
        rates.patches.len(),
        rates.each,
        if args.decode { ", decoded each time" } else { "" },
    );
    Ok(())
}

fn measure(args: &Args, threads: usize) -> Result<Rates> {
    let Some(known) = preset(&args.preset) else {
        bail!("--preset: expected one of bagssl, bagssl-vicreg, multi-scale, emp-ssl-cifar, got {:?}", args.preset);
    };
    let RunConfig { train, augment, .. } = RunConfig::preset(known);
    let dataset = args.data.open(Split::Train)?;
    let mut views = train.views;
    if let Some(side) = args.crop {
        use bagssl_core::patch::{PatchSide, PatchSpec};
        views = bagssl_core::bag::Views::FixedScale(PatchSpec::new(PatchSide::Pixels(side), views.input())?);
    }
    let config = LoaderConfig {
        views,
        patches: args.patches.unwrap_or(train.batch.patches),
        batch: args.images.unwrap_or(train.batch.images.min(dataset.len())),
        threads,
        augment,
        normalization: train.normalization,
        filter: train.filter,
        cache_bytes: if args.decode { 0 } else { u64::MAX },
        ..LoaderConfig::default()
    };
    let each = config.patches;
    let loader = Loader::new(dataset.clone(), config)?;
    let mut epoch = 0;
    if !args.decode {
        measure_rate(&loader, &mut epoch, Duration::MAX, loader.batches_per_epoch())?;
    }
    let mut patches = Vec::with_capacity(args.rounds);
    for _ in 0..args.rounds {
        patches.push(measure_rate(&loader, &mut epoch, Duration::from_secs_f64(args.seconds), usize::MAX)?);
    }
    patches.sort_by(f64::total_cmp);
    Ok(Rates { patches, each, images: dataset.len() })
}

/// Takes batches until `min_time` has passed or `max_batches` batches have been taken. Returns the patches
/// per second.
fn measure_rate(loader: &Loader, epoch: &mut u32, min_time: Duration, max_batches: usize) -> Result<f64> {
    let (begun, mut patches, mut batches) = (Instant::now(), 0, 0);
    while batches < max_batches && begun.elapsed() < min_time {
        for batch in loader.epoch(*epoch, 0) {
            patches += batch.map_err(anyhow::Error::from_boxed)?.shape().rows();
            batches += 1;
            if batches >= max_batches || begun.elapsed() >= min_time {
                break;
            }
        }
        *epoch = epoch.checked_add(1).context("epochs have run out")?;
    }
    Ok(patches as f64 / begun.elapsed().as_secs_f64())
}
