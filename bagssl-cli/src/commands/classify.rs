//! `bagssl fit` and `bagssl classify`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bagssl::{EmbedOptions, Embeddings, ImageEmbedding, StopOptions};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::embed::{Embed, Rows};
use bagssl_data::Dataset;
use bagssl_eval::Knn;
use bagssl_eval::Linear;
use bagssl_eval::Samples;
use bagssl_eval::fnv1a;
use bagssl_eval::{Classifier, ClassifierKind};
use clap::ValueEnum;
use serde::Serialize;

use crate::backend::{CpuArgs, Name};
use crate::embedding::{embed, reason_name};
use crate::input::bag::BagArgs;
use crate::input::files::Output;
use crate::input::source::{self, BadImageArgs, ColumnArgs, DataArgs, report_skipped};
use crate::input::stop::StopArgs;
use crate::memory::{LimitArgs, MemoryArgs};
use crate::terminal::output::{escaped, field, say};

/// Fit a classifier to labeled images, and save it
///
/// Represents each image of the training split by the mean of its patch embeddings. `bagssl
/// classify` applies the classifier to other images.
#[derive(Debug, clap::Args)]
pub(crate) struct FitArgs {
    /// Checkpoint file
    checkpoint: PathBuf,
    /// Output file, .safetensors
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Kind of classifier
    #[arg(long = "by", value_enum, default_value_t)]
    kind: Kind,
    /// Number of neighbors that vote, with --by knn [default: 20]
    #[arg(long, alias = "neighbours", value_name = "N")]
    neighbors: Option<usize>,
    /// Temperature of the votes, with --by knn [default: 0.07]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    #[command(flatten)]
    data: DataArgs<MemoryArgs>,
    #[command(flatten)]
    bag: BagArgs,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    bad: BadImageArgs,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Kind {
    /// A linear probe: multinomial logistic regression
    #[default]
    Linear,
    /// The nearest training images
    Knn,
}

/// Classify images, looking at no more patches than needed
///
/// Embeds patches in random order and stops once no other class is expected to win. Prints one line
/// per image: its class, the number of patches embedded and the number of patches in the bag, the
/// reason for stopping, and its name. If the images are a data set whose classes have the same
/// names, also prints the accuracy.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoint file
    checkpoint: PathBuf,
    /// Classifier file from `bagssl fit`
    classifier: PathBuf,
    /// Image files, one folder of images, one data set, or - for standard input
    ///
    /// A data set is read from its validation split, or completely if it has no splits.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Stop once the confidence that more patches would not change the class reaches this share
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,
    /// Look at all patches, unless another rule stops earlier
    #[arg(long, conflicts_with = "confidence")]
    all: bool,
    /// Compare the accuracy and time of several stopping rules
    ///
    /// The rules are 2, 4, 8.. patches, all patches, and a confidence of 0.9, 0.95 and 0.99. The
    /// images must have known classes.
    #[arg(long, conflicts_with_all = ["confidence", "all", "tolerance", "max_patches", "deadline_ms"])]
    curve: bool,
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

pub(crate) fn fit(args: &FitArgs) -> Result<ExitCode> {
    let output = Output::new(&args.output, args.force, &[&args.checkpoint])?;
    if args.output.extension().is_none_or(|extension| extension != "safetensors") {
        bail!("{}: expected a name that ends in .safetensors", args.output.display());
    }
    let bytes = args.data.memory.read(&args.checkpoint)?;
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    if args.kind == Kind::Linear && (args.neighbors.is_some() || args.temperature.is_some()) {
        bail!("--neighbors, --temperature: expected --by knn, got linear");
    }
    let usual = Knn::default();
    let neighbors = args.neighbors.unwrap_or(usual.neighbors);
    let knn = Knn { neighbors, temperature: args.temperature.unwrap_or(usual.temperature) };
    knn.check()?;
    let train = args.data.open_labeled()?;
    let (spec, linear) = (checkpoint.spec(), Linear::default());
    let dim = spec.model.dim(spec.layer);
    let reserved = match args.kind {
        Kind::Linear => linear.work_bytes(train.len(), dim, train.classes().len()),
        // The labels, once more as bytes, and in the file. The rows are results.
        Kind::Knn => 12 * train.len() as u64,
    };
    let options = EmbedOptions {
        patches: args.bag.patches()?,
        threads: args.data.threads,
        on_bad_image: args.bad.on_bad_image.into(),
        memory_limit: args.data.memory.bytes(),
        reserved,
        ..EmbedOptions::default()
    };
    let network = args.backend.open_with(args.cpu)?.trained(&checkpoint, &[spec.layer]);
    let network = network.with_context(|| args.checkpoint.display().to_string())?;
    let Embeddings { images: embedded, skipped } = embed(&train, spec, &*network, &options, args.json)?;
    let count = embedded.len();
    let mut values = Vec::with_capacity(count * dim);
    embedded.iter().for_each(|image| values.extend_from_slice(&image.mean));
    let labels = embedded.iter().map(|image| train.label(image.image)).collect();
    drop(embedded);
    let samples = Samples::new(Rows { values, dim }, labels)?;
    let kind = match args.kind {
        Kind::Linear => ClassifierKind::Linear(linear.fit(&samples)?),
        Kind::Knn => ClassifierKind::Neighbors(knn, samples),
    };
    let classifier = Classifier::new(kind, train.classes().to_vec(), network_of(&checkpoint)?)?;
    output.write(&classifier.to_bytes()?)?;
    report_skipped(&skipped);
    if args.json {
        let done = serde_json::json!({"output": args.output, "images": count, "classes": train.classes(), "skipped": skipped.len(), "by": classifier.describe()});
        say!("{done}");
    } else {
        say!("{}, fitted to {}, written to {}", classifier.describe(), train.summary(), args.output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a hash (FNV-1a, 64 bits) that identifies a network and its feature layer. It covers the
/// checkpoint's description, norms and biases. Converting the weights to another type does not
/// change the hash, because norms and biases are not converted.
fn network_of(checkpoint: &Checkpoint<'_>) -> Result<String> {
    let spec = checkpoint.spec();
    let parts = (&spec.model, &spec.patch, &spec.filter, &spec.normalization, &spec.provenance, spec.layer);
    let mut described = serde_json::to_vec(&parts)?;
    for parameter in spec.model.parameters().iter().filter(|parameter| parameter.shape.len() == 1) {
        described.extend(checkpoint.values(&parameter.name)?.into_iter().flat_map(f32::to_le_bytes));
    }
    Ok(fnv1a(&described))
}

pub(crate) fn classify(args: &Args) -> Result<ExitCode> {
    let bytes = args.memory.read(&args.checkpoint)?;
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    let named = || args.classifier.display().to_string();
    let classifier = Classifier::from_bytes(&args.memory.read_classifier(&args.classifier)?).with_context(named)?;
    let spec = checkpoint.spec();
    let (expected, got) = (network_of(&checkpoint)?, classifier.network());
    if got != expected {
        bail!("{}: expected a classifier for network {expected}, got one for {got}", named());
    }
    let dim = spec.model.dim(spec.layer);
    if classifier.dim() != dim {
        bail!("{}: expected features of length {dim}, got {}", named(), classifier.dim());
    }
    args.columns.check(&[&args.images])?;
    let dataset = source::images(&args.images, None, &args.columns, args.memory.budget())?;
    let network = args
        .backend
        .open_with(args.cpu)?
        .trained(&checkpoint, &[spec.layer])
        .with_context(|| args.checkpoint.display().to_string())?;
    let classify = Classify { args, checkpoint: &checkpoint, classifier: &classifier, dataset };
    if args.curve {
        classify.curve(&*network)?;
    } else {
        classify.classify_once(&*network)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Classify<'a> {
    args: &'a Args,
    checkpoint: &'a Checkpoint<'a>,
    classifier: &'a Classifier,
    dataset: Arc<Dataset>,
}

/// The classification of an image.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    image: &'a str,
    class: &'a str,
    patches: u64,
    of_patches: u64,
    stopped: &'static str,
}

/// A point of the curve.
#[derive(Debug, Serialize)]
struct Point {
    rule: String,
    patches: f64,
    accuracy: f64,
    milliseconds: f64,
}

impl Classify<'_> {
    fn embed(&self, network: &dyn Embed, stop: StopOptions, confidence: Option<f64>) -> Result<Embeddings> {
        let options = EmbedOptions {
            patches: self.args.bag.patches()?,
            stop,
            decide: confidence.map(|confidence| (self.classifier, confidence)),
            threads: self.args.threads,
            on_bad_image: self.args.bad.on_bad_image.into(),
            memory_limit: self.args.memory.bytes(),
            // A search has reserved it otherwise.
            reserved: if confidence.is_none() { self.classifier.work_bytes() } else { 0 },
            ..EmbedOptions::default()
        };
        embed(&self.dataset, self.checkpoint.spec(), network, &options, self.args.json)
    }

    fn classify_once(&self, network: &dyn Embed) -> Result<()> {
        let begun = Instant::now();
        let confidence = (!self.args.all).then_some(self.args.confidence);
        let Embeddings { images: embedded, skipped } = self.embed(network, self.args.stop.options()?, confidence)?;
        report_skipped(&skipped);
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3 / embedded.len() as f64;
        let classes = self.classes_of(&embedded)?;
        let predicted = |(embedded, &class): (&ImageEmbedding, &u32)| Prediction {
            image: self.dataset.name(embedded.image),
            class: &self.classifier.classes()[class as usize],
            patches: embedded.used,
            of_patches: embedded.total,
            stopped: reason_name(embedded.reason),
        };
        let predicted: Vec<Prediction<'_>> = embedded.iter().zip(&classes).map(predicted).collect();
        let accuracy = self.truth().map(|truth| accuracy(&embedded, &classes, &truth));
        let patches = mean_patches(&embedded);
        if self.args.json {
            let all = serde_json::json!({
                "images": predicted, "accuracy": accuracy, "mean_patches": patches, "milliseconds_per_image": milliseconds,
                "skipped": skipped.iter().map(|skipped| &skipped.name).collect::<Vec<_>>(),
            });
            say!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        let width = predicted.iter().map(|predicted| escaped(predicted.class).len()).max().unwrap_or(0);
        for Prediction { image, class, patches, of_patches, stopped } in &predicted {
            let class = escaped(class);
            say!("{class:<width$}  {patches:>5} of {of_patches:<5}  {stopped:<13}  {}", field(image));
        }
        let of_all = accuracy.map(|accuracy| format!("{accuracy:.1} % correct, ")).unwrap_or_default();
        say!("{of_all}{patches:.1} patches and {milliseconds:.2} ms per image");
        Ok(())
    }

    fn curve(&self, network: &dyn Embed) -> Result<()> {
        let Some(truth) = self.truth() else {
            bail!("--curve: expected a data set with the classifier's classes, got images without them");
        };
        // An untimed run first: it warms the caches and memory pages for the timed runs.
        let first = self.embed(network, StopOptions::at_most(2), None)?;
        report_skipped(&first.skipped);
        let most = first.images.iter().map(|image| image.total).max().unwrap_or(0);
        let counts =
            core::iter::successors(Some(2_u64), |count| count.checked_mul(2)).take_while(|&count| count < most);
        let mut rules: Vec<(String, StopOptions, Option<f64>)> =
            counts.map(|count| (format!("{count} patches"), StopOptions::at_most(count), None)).collect();
        rules.push(("all patches".into(), StopOptions::default(), None));
        rules.extend([0.9, 0.95, 0.99].map(|sure| (format!("decided at {sure}"), StopOptions::default(), Some(sure))));
        let mut points = Vec::new();
        for (rule, stop, confidence) in rules {
            let begun = Instant::now();
            let embedded = self.embed(network, stop, confidence)?.images;
            let milliseconds = begun.elapsed().as_secs_f64() * 1e3 / embedded.len() as f64;
            let accuracy = accuracy(&embedded, &self.classes_of(&embedded)?, &truth);
            points.push(Point { rule, patches: mean_patches(&embedded), accuracy, milliseconds });
        }
        if self.args.json {
            say!("{}", serde_json::to_string_pretty(&points)?);
            return Ok(());
        }
        say!("{} images; ms: time of the whole run per image\n", self.dataset.len());
        say!("{:<16} {:>10} {:>10} {:>10}", "rule", "patches", "correct %", "ms");
        for Point { rule, patches, accuracy, milliseconds } in points {
            say!("{rule:<16} {patches:>10.1} {accuracy:>10.1} {milliseconds:>10.2}");
        }
        Ok(())
    }

    fn classes_of(&self, embedded: &[ImageEmbedding]) -> Result<Vec<u32>> {
        embedded.iter().map(|image| Ok(self.classifier.predict(&image.mean)?)).collect()
    }

    /// Returns the true classes of the images, numbered as in the classifier. Returns `None` if it
    /// lacks one of the data set's classes.
    fn truth(&self) -> Option<Vec<u32>> {
        let number = |name: &String| self.classifier.classes().iter().position(|known| known == name);
        let numbers: Vec<u32> =
            self.dataset.classes().iter().map(|name| number(name).map(|at| at as u32)).collect::<Option<_>>()?;
        Some((0..self.dataset.len()).map(|image| numbers[self.dataset.label(image) as usize]).collect())
    }
}

fn mean_patches(embedded: &[ImageEmbedding]) -> f64 {
    embedded.iter().map(|image| image.used as f64).sum::<f64>() / embedded.len() as f64
}

/// Returns the percentage of correctly classified images. `truth` has the classes of all images of
/// the data set.
fn accuracy(embedded: &[ImageEmbedding], predicted: &[u32], truth: &[u32]) -> f64 {
    let right = embedded.iter().zip(predicted).filter(|(image, predicted)| truth[image.image] == **predicted).count();
    100.0 * right as f64 / embedded.len() as f64
}
