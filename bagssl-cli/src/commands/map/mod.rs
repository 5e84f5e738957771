//! `bagssl map`.

mod points;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl::claims::NO_PROJECTOR;
use bagssl::{EvalOptions, Event, Model, Splits, extract_features};
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Spec;
use bagssl_core::embed::{FeatureLayer, Rows};
use bagssl_core::random::{Address, Purpose};
use bagssl_data::{BagConfig, BagLoader, Dataset, Split};
use bagssl_eval::Features;
use bagssl_eval::analysis::{Tsne, pca};
use bagssl_eval::report::{Block, Page, Point, Scatter, Thumbnail};
use bagssl_eval::{Origin, Protocol};
use serde::Serialize;
use serde_json::json;

use crate::backend::{CpuArgs, Name};
use crate::claims::{ClaimArgs, PageArgs, for_each_checkpoint};
use crate::commands::embed::Feature;
use crate::embedding::by_flag;
use crate::input::bag::BagArgs;
use crate::input::features::FeatureArgs;
use crate::input::groups::GroupsChoice;
use crate::input::source::{BadImageArgs, DataArgs, fingerprint};
use crate::terminal::progress::Progress;
use points::{images_of, same_class, unit};

/// Draw a map of a representation, with images or patches as points of a plane
///
/// Similar images or patches lie close together, colored by class, with thumbnails where there is
/// space. Features are normalized to unit length first, so the map reflects cosines, like `eval`.
/// Several checkpoints share one page.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoints to draw
    #[arg(required = true)]
    checkpoints: Vec<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    /// Split of the data set to draw
    #[arg(long, value_enum, default_value = "validation")]
    split: SplitChoice,
    /// Draw a point per patch, not per image
    #[arg(long)]
    patches: bool,
    /// Draw at most N points; the images are sampled at random
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    limit: u32,
    /// Method of the projection to the plane
    #[arg(long, value_enum, default_value_t)]
    method: Method,
    /// t-SNE: approximate number of neighbors [default: 30, or (points - 1) / 3 if that is less]
    #[arg(long, value_name = "N")]
    perplexity: Option<f64>,
    /// t-SNE: steps of gradient descent
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Layer whose features are drawn [default: the checkpoint's]
    #[arg(long, value_enum)]
    tap: Option<Feature>,
    #[command(flatten)]
    bag: BagArgs,
    /// Convert images to grey
    #[arg(long)]
    grey: bool,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Backend to run the network on
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    page: PageArgs,
}

/// The method of the projection to the plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Method {
    /// t-SNE: preserves neighbors; distances between clusters mean little
    #[default]
    Tsne,
    /// The first two principal components: preserves distances as well as two directions can
    Pca,
}

/// A split of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SplitChoice {
    Train,
    Validation,
}

/// The results for one checkpoint.
#[derive(Serialize)]
struct MapReport {
    name: String,
    origin: Origin,
    tap: &'static str,
    /// The percentage of the variance along each of the two principal components.
    #[serde(skip_serializing_if = "Option::is_none")]
    explained: Option<[f64; 2]>,
    /// How often a point's nearest point of another image has the same class, in percent: by
    /// cosine, and on the map. `None` if all points are of one image.
    same_class: Option<[f64; 2]>,
    points: Vec<Placed>,
    #[serde(skip)]
    map: Scatter,
}

#[derive(Serialize)]
struct Placed {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<usize>,
    class: String,
    x: f64,
    y: f64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !args.page.is_written() {
        bail!("--report: expected a folder to write the map into, or --json, got neither");
    }
    if args.perplexity.is_some() && args.method == Method::Pca {
        bail!("--perplexity: expected --method tsne with it, got pca");
    }
    args.page.check_files("map")?;
    let claim = ClaimArgs {
        checkpoints: args.checkpoints.clone(),
        data: args.data.clone(),
        bad: args.bad,
        grey: args.grey,
        seed: args.seed,
        groups: GroupsChoice::default(),
        backend: args.backend,
        cpu: args.cpu,
        features: args.features.clone(),
        page: args.page.clone(),
    };
    let layers: Vec<FeatureLayer> = match args.tap {
        Some(layer) => vec![FeatureLayer::from(layer)],
        None => vec![FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection],
    };
    let bars = |name: &str| args.page.bar(name);
    let mut skipped = Vec::new();
    let maps =
        for_each_checkpoint(&claim, Protocol::default(), &args.bag, &layers, &bars, |model, splits, options| {
            let layer = args.tap.map_or(model.spec.layer, FeatureLayer::from);
            if model.layers(&[layer]).is_empty() {
                skipped.push(format!("{}: {NO_PROJECTOR}.", model.name));
                return Ok(None);
            }
            Map { args, claim: &claim, model, splits, options, layer }.draw().map(Some)
        })?;
    let maps: Vec<MapReport> = maps.into_iter().flatten().collect();
    if maps.is_empty() {
        bail!("{}", skipped.join(" "));
    }
    let data = json!({"maps": maps, "left_out": skipped});
    let mut page = page(args, maps);
    page.lead.extend(skipped);
    args.page.show("map", page, &data)?;
    Ok(ExitCode::SUCCESS)
}

/// A map of one checkpoint to draw.
struct Map<'a> {
    args: &'a Args,
    claim: &'a ClaimArgs,
    model: &'a Model<'a>,
    splits: &'a Splits,
    options: &'a EvalOptions<'a>,
    /// The layer whose features are drawn.
    layer: FeatureLayer,
}

impl Map<'_> {
    fn draw(&self) -> Result<MapReport> {
        let (args, color) = (self.args, self.claim.color());
        let split = if args.split == SplitChoice::Train { Split::Train } else { Split::Validation };
        let whole = args.data.open(split)?;
        let bag = self.options.bag(&self.model.spec.patch, &self.splits.test).map_err(by_flag)?;
        let each = if args.patches { self.loader(&whole, bag)?.patches() } else { 1 };
        let images = images_of(args.limit, each)?.min(whole.len());
        let whole = Arc::into_inner(whole).context("a data set that was just opened")?;
        let mut draw = Address { seed: args.seed, ..Address::default() }.stream(Purpose::Evaluation);
        let mut order = draw.permutation(whole.len() as u32);
        order.truncate(images);
        let dataset = Arc::new(whole.select_images(&order));
        let features = self.features(&dataset, bag)?;
        let rows = unit(if args.patches { features.rows().to_rows() } else { features.mean()?.to_rows() });
        let source = |point: usize| -> (usize, Option<usize>) {
            let patches = features.patches();
            let (position, patch) = if args.patches { (point / patches, Some(point % patches)) } else { (point, None) };
            (features.images()[position] as usize, patch)
        };
        let (points, explained) = project(args, &rows)?;
        let labels: Vec<u32> = (0..rows.len()).map(|point| dataset.label(source(point).0)).collect();
        let kinds: Vec<(usize, u32)> =
            labels.iter().enumerate().map(|(point, &label)| (source(point).0, label)).collect();
        let cosine =
            |a: usize, b: usize| -> f64 { rows.row(a).iter().zip(rows.row(b)).map(|(a, b)| f64::from(a * b)).sum() };
        let apart = |a: usize, b: usize| -(points[a][0] - points[b][0]).hypot(points[a][1] - points[b][1]);
        let loader = self.loader(&dataset, bag)?;
        let mut map = Scatter {
            title: format!("{}, {}", self.model.name, self.layer.name()),
            caption: caption(args, explained),
            groups: dataset.classes().to_vec(),
            points: Vec::new(),
        };
        for (point, &position) in points.iter().enumerate() {
            let (image, patch) = source(point);
            let patch = patch.map_or_else(String::new, |patch| format!(", patch {patch}"));
            let name = format!("{}{patch}", dataset.name(image));
            map.points.push(Point { position, group: labels[point] as usize, name, thumbnail: None });
        }
        for point in Scatter::without_overlap(&points) {
            let (image, patch) = source(point);
            let picture = match patch {
                Some(patch) => loader.picture(image, patch)?,
                None => dataset.decode(image)?.into_image(),
            };
            let mut picture = picture.shrink_to(LARGEST);
            picture.set_color(color);
            let size = picture.size();
            map.points[point].thumbnail = Some(Thumbnail::new(size.height, size.width, picture.rgb().to_vec())?);
        }
        let placed = |point: usize| {
            let ((image, patch), [x, y]) = (source(point), points[point]);
            let class = dataset.classes()[labels[point] as usize].clone();
            Placed { image: dataset.name(image).into(), patch, class, x, y }
        };
        Ok(MapReport {
            name: self.model.name.clone(),
            origin: self.model.origin(&self.options.protocol, self.splits, self.options.seed),
            tap: self.layer.name(),
            explained,
            same_class: same_class(&kinds, cosine).zip(same_class(&kinds, apart)).map(<[f64; 2]>::from),
            points: (0..points.len()).map(placed).collect(),
            map,
        })
    }

    fn features(&self, dataset: &Arc<Dataset>, bag: Bag) -> Result<Features> {
        if self.options.feature_cache.is_some() {
            // Shows the progress of reading the images.
            fingerprint(dataset);
        }
        if let Some(on_event) = self.options.on_event {
            on_event(Event::Planned(dataset.len() as u64));
        }
        let layers = [self.layer];
        let features = extract_features(self.model, dataset, bag, self.claim.color(), &layers, self.options);
        Ok(features.map_err(by_flag)?.remove(0))
    }

    /// Returns a loader of patches that shows the network's input.
    fn loader(&self, dataset: &Arc<Dataset>, bag: Bag) -> Result<BagLoader> {
        let Spec { patch, normalization, filter, .. } = *self.model.spec;
        let EvalOptions { seed, threads, on_bad_image, .. } = *self.options;
        let (input, color, shared) = (patch.input(), self.claim.color(), BagConfig::default());
        let config = BagConfig { bag, input, color, normalization, filter, seed, threads, on_bad_image, ..shared };
        Ok(BagLoader::new(dataset.clone(), config)?)
    }
}

/// The longest side of a thumbnail, in pixels.
const LARGEST: u32 = 48;

/// Points, and the percentage of the variance along the two axes of a PCA.
type Plane = (Vec<[f64; 2]>, Option<[f64; 2]>);

/// Projects rows to the plane.
fn project(args: &Args, rows: &Rows) -> Result<Plane> {
    match args.method {
        Method::Pca => {
            let found = pca(rows, 2)?;
            let share = |direction: usize| found.explained.get(direction).copied().unwrap_or(0.0);
            Ok((found.points(), Some([share(0), share(1)])))
        }
        Method::Tsne => {
            let max_directions = (rows.len().saturating_sub(1)) as f64 / 3.0;
            let perplexity = args.perplexity.unwrap_or(30_f64.min(max_directions));
            let bar = Progress::new("t-SNE", u64::from(args.steps), "steps", args.page.json);
            let map = Tsne { perplexity, steps: args.steps as usize }.map(rows, |_| bar.inc(1));
            bar.finish();
            Ok((map?, None))
        }
    }
}

fn caption(args: &Args, explained: Option<[f64; 2]>) -> String {
    let how = match explained {
        Some([first, second]) => {
            format!("The two directions of most variance, which hold {first:.1} and {second:.1} % of it.")
        }
        None => format!(
            "t-SNE, {} steps: near points are near in the features; distances between clusters say little.",
            args.steps
        ),
    };
    format!("{how} Colors are classes, which the network was not told. Point at one to see its name.")
}

fn page(args: &Args, maps: Vec<MapReport>) -> Page {
    let what = if args.patches { "patches" } else { "images" };
    let lead = |map: &MapReport| {
        let Some([cosine, plane]) = map.same_class else {
            return format!("{}: {} {what} of one image ({}).", map.name, map.points.len(), map.tap);
        };
        format!(
            "{}: of {} {what}, {plane:.1} % are nearest to one of their own class on the map, {cosine:.1} % by the cosine of their features ({}); of other images.",
            map.name,
            map.points.len(),
            map.tap
        )
    };
    let origins = maps.iter().map(|map| format!("{}: {}", map.name, map.origin.line())).collect();
    Page {
        title: format!("A map of {what}"),
        lead: maps.iter().map(lead).collect(),
        blocks: maps
            .into_iter()
            .map(|map| Block { title: map.name, maps: vec![map.map], ..Block::default() })
            .collect(),
        origins,
    }
}
