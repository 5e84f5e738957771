//! `bagssl map`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl_core::embed::{FeatureLayer, Rows};
use bagssl_core::random::{Address, Purpose};
use bagssl_data::Split;
use bagssl_eval::analysis::projection_2d::{Tsne, principal};
use bagssl_eval::classify::protocol::{Origin, Protocol as How};
use bagssl_eval::report::{Block, Page, Point, Scatter, Thumbnail};
use serde::Serialize;
use serde_json::json;

use super::{ClaimArgs, NO_PROJECTOR, PageArgs, Subject, on_each};
use crate::backend::{CpuArgs, Name};
use crate::commands::embed::Feature;
use crate::extraction::{self, FeatureArgs};
use crate::input::bag::BagArgs;
use crate::input::groups::Groups;
use crate::input::source::{BadImageArgs, DataArgs};
use crate::terminal::progress::Progress;

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
        groups: Groups::default(),
        backend: args.backend,
        cpu: args.cpu,
        features: args.features.clone(),
        page: args.page.clone(),
    };
    let taps: Vec<FeatureLayer> = match args.tap {
        Some(tap) => vec![FeatureLayer::from(tap)],
        None => vec![FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection],
    };
    let (bars, how) = (|name: &str| args.page.bar(name), How::preset("bagssl")?);
    let mut left_out = Vec::new();
    let found = on_each(&claim, how, &args.bag, &taps, &bars, |subject| {
        if subject.taps(&[tap_of(args, subject)]).is_empty() {
            left_out.push(format!("{}: {NO_PROJECTOR}.", subject.name));
            return Ok(None);
        }
        look(args, subject).map(Some)
    })?;
    let found: Vec<MapReport> = found.into_iter().flatten().collect();
    if found.is_empty() {
        bail!("{}", left_out.join(" "));
    }
    let data = json!({"maps": found, "left_out": left_out});
    let mut page = page(args, found);
    page.lead.extend(left_out);
    args.page.show("map", page, data)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the layer whose features are drawn.
fn tap_of(args: &Args, subject: &Subject<'_>) -> FeatureLayer {
    args.tap.map_or(subject.spec().tap, FeatureLayer::from)
}

fn look(args: &Args, subject: &Subject<'_>) -> Result<MapReport> {
    let tap = tap_of(args, subject);
    let split = if args.split == SplitChoice::Train { Split::Train } else { Split::Validation };
    let (whole, bag) = (args.data.open(split)?, subject.protocol.bag);
    let each = match args.patches {
        true => extraction::bags(subject.input(), &whole, bag, subject.color(), subject.protocol)?.patches(),
        false => 1,
    };
    let images = images_of(args.limit, each)?.min(whole.len());
    let whole = Arc::into_inner(whole).context("a data set that was just opened")?;
    let mut draw = Address { seed: args.seed, ..Address::default() }.stream(Purpose::Evaluation);
    let mut order = draw.permutation(whole.len() as u32);
    order.truncate(images);
    let dataset = Arc::new(whole.of_images(&order));
    let features = subject.features(&dataset, bag, &[tap])?.remove(0);
    let rows = unit(if args.patches { features.rows().to_rows() } else { features.mean()?.to_rows() });
    let of = |point: usize| -> (usize, Option<usize>) {
        let patches = features.patches();
        let (position, patch) = if args.patches { (point / patches, Some(point % patches)) } else { (point, None) };
        (features.images()[position] as usize, patch)
    };
    let (points, explained) = place(args, &rows)?;
    let labels: Vec<u32> = (0..rows.len()).map(|point| dataset.label(of(point).0)).collect();
    let kinds: Vec<(usize, u32)> = labels.iter().enumerate().map(|(point, &label)| (of(point).0, label)).collect();
    let cosine =
        |a: usize, b: usize| -> f64 { rows.row(a).iter().zip(rows.row(b)).map(|(a, b)| f64::from(a * b)).sum() };
    let apart = |a: usize, b: usize| -(points[a][0] - points[b][0]).hypot(points[a][1] - points[b][1]);
    let color = subject.color();
    let loader = extraction::bags(subject.input(), &dataset, bag, color, subject.protocol)?;
    let mut map = Scatter {
        title: format!("{}, {}", subject.name, tap.name()),
        caption: caption(args, explained),
        groups: dataset.classes().to_vec(),
        points: Vec::new(),
    };
    for (point, &at) in points.iter().enumerate() {
        let (image, patch) = of(point);
        let patch = patch.map_or_else(String::new, |patch| format!(", patch {patch}"));
        let name = format!("{}{patch}", dataset.name(image));
        map.points.push(Point { at, group: labels[point] as usize, name, thumbnail: None });
    }
    for point in Scatter::with_room(&points) {
        let (image, patch) = of(point);
        let picture = match patch {
            Some(patch) => loader.picture(image, patch)?,
            None => dataset.decode(image)?.into_image(),
        };
        let mut picture = picture.shrunk(LARGEST);
        picture.set_color(color);
        let size = picture.size();
        map.points[point].thumbnail = Some(Thumbnail::new(size.height, size.width, picture.rgb().to_vec())?);
    }
    let placed = |point: usize| {
        let ((image, patch), [x, y]) = (of(point), points[point]);
        let class = dataset.classes()[labels[point] as usize].clone();
        Placed { image: dataset.name(image).into(), patch, class, x, y }
    };
    Ok(MapReport {
        name: subject.name.clone(),
        origin: subject.origin.clone(),
        tap: tap.name(),
        explained,
        same_class: same_class(&kinds, cosine).zip(same_class(&kinds, apart)).map(<[f64; 2]>::from),
        points: (0..points.len()).map(placed).collect(),
        map,
    })
}

/// Returns the number of images whose points fit the limit, at `each` points per image. It is at
/// least two, because the nearest neighbors are searched in other images.
fn images_of(limit: u32, each: usize) -> Result<usize> {
    match limit as usize / each {
        0 | 1 => bail!("--limit: expected at least {}, for two images of {each} patches, got {limit}", 2 * each),
        images => Ok(images),
    }
}

/// The longest side of a thumbnail, in pixels.
const LARGEST: u32 = 48;

/// Normalizes rows to unit length. Rows of zeros stay unchanged.
fn unit(mut rows: Rows) -> Rows {
    for row in rows.values.chunks_mut(rows.dim) {
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value /= length);
        }
    }
    rows
}

/// Points, and the percentage of the variance along the two axes of a PCA.
type Plane = (Vec<[f64; 2]>, Option<[f64; 2]>);

/// Projects rows to the plane.
fn place(args: &Args, rows: &Rows) -> Result<Plane> {
    match args.method {
        Method::Pca => {
            let found = principal(rows, 2)?;
            let share = |direction: usize| found.explained.get(direction).copied().unwrap_or(0.0);
            Ok((found.points(), Some([share(0), share(1)])))
        }
        Method::Tsne => {
            let most = (rows.len().saturating_sub(1)) as f64 / 3.0;
            let perplexity = args.perplexity.unwrap_or(30_f64.min(most));
            let bar = Progress::new("t-SNE", u64::from(args.steps), "steps", args.page.json);
            let map = Tsne { perplexity, steps: args.steps as usize }.map(rows, |_| bar.inc(1));
            bar.finish();
            Ok((map?, None))
        }
    }
}

/// Returns how often a point's most similar point of another image has the same class, in percent,
/// or `None` if there is only one image. `kinds` has the image and class of each point.
fn same_class(kinds: &[(usize, u32)], like: impl Fn(usize, usize) -> f64) -> Option<f64> {
    if kinds.iter().all(|kind| kind.0 == kinds[0].0) {
        return None;
    }
    let nearest = |point: usize| {
        let others = (0..kinds.len()).filter(|&other| kinds[other].0 != kinds[point].0);
        others.max_by(|&a, &b| like(point, a).total_cmp(&like(point, b)))
    };
    let same = (0..kinds.len()).filter(|&point| nearest(point).is_some_and(|other| kinds[other].1 == kinds[point].1));
    Some(100.0 * same.count() as f64 / kinds.len() as f64)
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

fn page(args: &Args, found: Vec<MapReport>) -> Page {
    let what = if args.patches { "patches" } else { "images" };
    let lead = |found: &MapReport| {
        let Some([cosine, plane]) = found.same_class else {
            return format!("{}: {} {what} of one image ({}).", found.name, found.points.len(), found.tap);
        };
        format!(
            "{}: of {} {what}, {plane:.1} % are nearest to one of their own class on the map, {cosine:.1} % by the cosine of their features ({}); of other images.",
            found.name,
            found.points.len(),
            found.tap
        )
    };
    let origins = found.iter().map(|found| format!("{}: {}", found.name, found.origin.line())).collect();
    Page {
        title: format!("A map of {what}"),
        lead: found.iter().map(lead).collect(),
        blocks: found
            .into_iter()
            .map(|found| Block { title: found.name, maps: vec![found.map], ..Block::default() })
            .collect(),
        origins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbors_of_a_class_by_hand() {
        let places: [f64; 4] = [0.0, 1.0, 1.5, 9.0];
        let like = |a: usize, b: usize| -(places[a] - places[b]).abs();
        // Points 0 and 2 are nearest to 1; points 1 and 3 are nearest to 2.
        let of = |labels: &[u32]| labels.iter().copied().enumerate().collect::<Vec<_>>();
        assert_eq!(same_class(&of(&[0, 0, 1, 1]), like), Some(50.0));
        assert_eq!(same_class(&of(&[0, 1, 0, 1]), like), Some(0.0));
        // Two patches of one image: their neighbors are searched in other images only.
        assert_eq!(same_class(&[(7, 0), (7, 0), (8, 1), (9, 1)], like), Some(25.0));
        assert_eq!(same_class(&[(7, 0), (7, 0)], like), None);
    }

    #[test]
    fn a_limit_holds_at_least_two_images() {
        assert_eq!((images_of(60, 4).unwrap(), images_of(59, 25).unwrap(), images_of(2, 1).unwrap()), (15, 2, 2));
        for limit in [10, 49] {
            let error = images_of(limit, 25).unwrap_err().to_string();
            let expected = "--limit: expected at least 50, for two images of 25 patches, got ";
            assert_eq!(error, format!("{expected}{limit}"));
        }
    }

    #[test]
    fn rows_have_unit_length() {
        assert_eq!(unit(Rows { values: vec![3.0, 4.0, 0.0, 0.0], dim: 2 }).values, [0.6, 0.8, 0.0, 0.0]);
    }
}
