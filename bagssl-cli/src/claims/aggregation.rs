//! `bagssl eval aggregation`.

use anyhow::Result;
use bagssl_core::bag::{Bag, Grid};
use bagssl_core::embed::FeatureLayer;
use bagssl_data::grid_of_all;
use bagssl_eval::classify::protocol::{Origin, Protocol as How};
use bagssl_eval::features::samples::{Fit, Samples, Score};
use bagssl_eval::features::{Features, Order, keep_common};
use bagssl_eval::report::{Block, Cells, Line, Lines, Page};
use bagssl_eval::stats::{Interval, grouped_bootstrap};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Analysis, Bars, ClaimArgs, NO_PROJECTOR, PageArgs, Subject, analysis, on_each, with_interval};
use crate::evaluate::{DRAWS, counts};
use crate::input::bag::BagArgs;

/// Measure how accuracy grows with the number of patches, and which aggregate is best
///
/// Measures the embedding, the projector's first layer and the projection. Each is averaged over 1,
/// 4, 16.. patches of a grid in random order, and over as many patches at random positions. Also
/// measures 2 x 2 pooling of the grid (if all images have the same grid), the center crop and the
/// whole image.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    /// Take all patches of a grid, PIXELS from one to the next [default: a quarter of the patch's
    /// side]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) stride: Option<u32>,
    /// Evaluation protocol: bagssl, solo, lightly, emp-ssl or vicreg
    #[arg(long, value_name = "NAME", default_value = "bagssl")]
    pub(crate) protocol: String,
    /// Skip the linear probes, which take most of the time
    #[arg(long)]
    pub(crate) only_knn: bool,
}

#[derive(Serialize, Deserialize)]
struct All {
    checkpoints: Vec<AggregationReport>,
}

#[derive(Serialize, Deserialize)]
struct AggregationReport {
    name: String,
    preset: String,
    origin: Origin,
    rows: Vec<Row>,
    /// Why there is no pooling: the images do not share one grid.
    not_pooled: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    feature: FeatureLayer,
    view: String,
    /// The layout and number of the averaged patches, if the row is a point of a curve.
    curve: Option<(Kind, usize)>,
    knn: Accuracy,
    linear: Option<Accuracy>,
}

/// The layout of a curve's patches.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Grid,
    Random,
}

#[derive(Serialize, Deserialize)]
struct Accuracy {
    percent: f64,
    top5: f64,
    interval: Option<Interval>,
    fit: Option<Fit>,
}

const TAPS: [FeatureLayer; 3] = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];

impl Analysis for Args {
    fn name(&self) -> &'static str {
        "aggregation"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn find(&self, bars: Bars<'_>) -> Result<Value> {
        let (how, bag) = (How::preset(&self.protocol)?, BagArgs::with_stride(self.stride));
        let checkpoints = on_each(&self.claim, how, &bag, &TAPS, bars, |subject| look(subject, self.only_knn))?;
        Ok(json!(All { checkpoints }))
    }

    fn page(&self, found: &Value) -> Result<Page> {
        let All { checkpoints } = analysis::read(found)?;
        Ok(page(&checkpoints, How::preset(&self.protocol)?))
    }
}

fn look(subject: &Subject<'_>, only_knn: bool) -> Result<AggregationReport> {
    let (spec, taps, places) = (subject.spec().patch, subject.taps(&TAPS), places(subject));
    let mut grid = subject.both(subject.protocol.bag, &taps)?;
    let patches = grid[0][0].patches().min(grid[1][0].patches());
    let mut random = subject.both(Bag::Random { spec, patches: patches as u32 }, &taps)?;
    let mut whole = subject.both(Bag::Whole, &taps)?;
    let mut center = subject.both(Bag::Center, &taps)?;
    for half in 0..2 {
        // An image that is smaller than a patch has no patches, but it does have a whole-image
        // view.
        keep_common([&mut grid, &mut random, &mut whole, &mut center].map(|view| &mut view[half]))?;
    }
    let groups = subject.groups(&grid[1][0])?;
    let order = Order::Random { seed: subject.claim.seed };
    let mut rows = Vec::new();
    let mut add = |tap: usize, view: String, curve, samples: [Samples; 2]| -> Result<()> {
        let [train, test] = samples;
        let of = |score: Score| -> Result<Accuracy> {
            let interval = grouped_bootstrap(&score.hits(test.labels()), &groups, DRAWS, subject.claim.seed)?;
            Ok(Accuracy { percent: score.accuracy, top5: score.top5, interval, fit: score.fit })
        };
        let how = subject.protocol.how;
        let knn = of(how.knn.evaluate(&train, &test)?)?;
        let linear = match only_knn {
            true => None,
            false => Some(of(how.probe(&train, subject.claim.seed)?.evaluate(&train, &test)?)?),
        };
        rows.push(Row { feature: taps[tap], view, curve, knn, linear });
        Ok(())
    };
    for tap in 0..taps.len() {
        let mean = |of: &[Vec<Features>; 2], count: usize| -> Result<[Samples; 2]> {
            Ok([of[0][tap].samples(count, order)?, of[1][tap].samples(count, order)?])
        };
        add(tap, "center crop".into(), None, mean(&center, 1)?)?;
        add(tap, "whole image".into(), None, mean(&whole, 1)?)?;
        for count in counts(patches) {
            add(tap, format!("{count} of the grid"), Some((Kind::Grid, count)), mean(&grid, count)?)?;
        }
        for count in counts(patches) {
            add(tap, format!("{count} at random"), Some((Kind::Random, count)), mean(&random, count)?)?;
        }
        // A single row or column has no quadrants.
        if let Some(places) = places.as_ref().ok().filter(|places| places.rows().min(places.columns()) >= 2) {
            let [train, test] = grid.each_ref().map(|half| half[tap].pooled(*places, 2));
            add(tap, "2 x 2 pooled".into(), None, [train?, test?])?;
        }
    }
    Ok(AggregationReport {
        name: subject.name.clone(),
        preset: subject.spec().provenance.preset.clone(),
        origin: subject.origin.clone(),
        rows,
        not_pooled: places.err().map(|error| error.to_string()),
    })
}

/// Returns the grid that all images share. Only pooling needs it.
fn places(subject: &Subject<'_>) -> bagssl_data::Result<Grid> {
    let Bag::Grid { spec, stride } = subject.protocol.bag else { unreachable!("this claim asks for a grid") };
    grid_of_all(&[&subject.halves.test, &subject.halves.train], spec, stride, subject.protocol.on_bad_image)
}

fn page(found: &[AggregationReport], how: How) -> Page {
    let lead = found.iter().filter_map(|found| {
        let embedding = || found.rows.iter().filter(|row| row.feature == FeatureLayer::Embedding);
        let of = |view: &str| embedding().find(|row| row.view == view);
        let most = embedding().rfind(|row| matches!(row.curve, Some((Kind::Grid, _))))?;
        let (whole, one) = (of("whole image")?, of("1 of the grid")?);
        Some(format!(
            "{}: kNN of the embedding {:.1} % with one patch, {:.1} % with {}, {:.1} % for the whole image at once.",
            found.name, one.knn.percent, most.knn.percent, most.view, whole.knn.percent
        ))
    });
    let alone = found.iter().filter(|found| found.rows.iter().all(|row| row.feature == FeatureLayer::Embedding));
    let alone = alone.map(|found| format!("{}: {NO_PROJECTOR}.", found.name));
    let not_pooled = found.iter().filter_map(|found| {
        let why = found.not_pooled.as_ref()?;
        Some(format!("{}: no 2 x 2 pooling, for which all images must have the same grid: {why}.", found.name))
    });
    // Either all rows have probes, or none.
    let is_probed = found.iter().flat_map(|found| &found.rows).any(|row| row.linear.is_some());
    let show = |accuracy: &Accuracy| with_interval(accuracy.percent, accuracy.interval);
    let head = ["feature", "of", "kNN", "kNN top 5", "linear", "linear top 5"];
    let head = if is_probed { &head[..] } else { &head[..4] };
    let block = |found: &AggregationReport| {
        let rows = found.rows.iter().map(|row| {
            let mark = match row.linear.as_ref().and_then(|linear| linear.fit) {
                Some(fit) if !fit.converged => " (not at its optimum)",
                _ => "",
            };
            let top5 = |accuracy: &Accuracy| format!("{:.1}", accuracy.top5);
            let linear = row.linear.as_ref().map(|linear| [show(linear) + mark, top5(linear)]);
            let words = [row.feature.name().to_string(), row.view.clone(), show(&row.knn), top5(&row.knn)];
            words.into_iter().chain(linear.into_iter().flatten()).collect()
        });
        let lines = TAPS.into_iter().flat_map(|tap| {
            [(Kind::Grid, "grid"), (Kind::Random, "random")].map(|(kind, kind_name)| {
                let points = found.rows.iter().filter(|row| row.feature == tap).filter_map(|row| {
                    let (_, count) = row.curve.filter(|(of, _)| *of == kind)?;
                    Some((count as f64, row.knn.percent, 0.0))
                });
                (format!("{}, {kind_name}", tap.name()), points.collect::<Vec<_>>())
            })
        });
        // Grids come first, to get the most distinct colors.
        let mut lines: Vec<Line> = lines.filter(|(_, points)| !points.is_empty()).collect();
        lines.sort_by_key(|(name, _)| name.ends_with("random"));
        Block {
            title: found.name.clone(),
            text: vec![],
            grids: vec![Cells {
                caption: "Accuracy in percent, with a 95 % interval from draws of whole groups of test images.".into(),
                head: head.iter().map(|name| name.to_string()).collect(),
                rows: rows.collect(),
                words: 2,
            }],
            plots: vec![Lines {
                title: format!("kNN against patches, {}", found.name),
                caption: "Mean of the first k patches; the table has the intervals. Does averaging more patches help, and which feature?".into(),
                x_label: "patches averaged".into(),
                y_label: "accuracy, %".into(),
                logarithmic: true,
                lines,
            }],
            ..Block::default()
        }
    };
    let [knn, linear] = how.describe();
    let mut origins = vec![format!("kNN: {knn}")];
    origins.extend(is_probed.then(|| format!("linear: {linear}")));
    origins.extend(found.iter().map(|found| format!("{}: {}", found.name, found.origin.line())));
    Page {
        title: "Accuracy and aggregation".into(),
        lead: lead.chain(alone).chain(not_pooled).collect(),
        blocks: found.iter().map(block).collect(),
        origins,
    }
}
