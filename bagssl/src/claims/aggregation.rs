//! How does accuracy grow with the number of patches, and which aggregate is best?

use bagssl_core::bag::{Bag, Grid};
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_data::common_grid;
use bagssl_eval::report::{Block, LinePlot, Page, PlotLine, TextTable};
use bagssl_eval::stats::{Interval, grouped_bootstrap};
use bagssl_eval::{Features, Order, intersect_images};
use bagssl_eval::{Fit, Samples, Score};
use bagssl_eval::{Origin, Protocol};
use serde::{Deserialize, Serialize};

use super::claim::{ALL_LAYERS, Claim};
use super::subject::Subject;
use super::wording::{NO_PROJECTOR, with_interval};
use crate::error::{Error, Result};
use crate::eval_options::EvalOptions;
use crate::evaluation::{BOOTSTRAP_DRAWS, accuracy_counts};
use crate::model::Model;
use crate::splits::Splits;

/// Measures the accuracy of each layer, averaged over 1, 4, 16.. patches of a grid in random order, and over as many patches at
/// random positions. Also measures 2 x 2 pooling of the grid (if all images have the same grid), the center crop and the whole
/// image.
///
/// # Source
/// BagSSL, arXiv:2206.08954.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregation {
    /// Whether images are in color or converted to grayscale.
    pub color: Color,
    /// Whether to skip the linear probes, which take most of the time.
    pub only_knn: bool,
}

/// The accuracy of each aggregate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AggregationReport {
    /// The results of each model.
    pub checkpoints: Vec<ModelAggregation>,
}

/// The results of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelAggregation {
    /// The model's name.
    pub name: String,
    /// The preset that the model was trained with.
    pub preset: String,
    /// What the result depends on.
    pub origin: Origin,
    /// The accuracies of each layer and aggregate.
    pub rows: Vec<AggregateAccuracy>,
    /// Why there is no pooling: the images do not share one grid.
    #[serde(rename = "not_pooled")]
    pub pooling_error: Option<String>,
}

/// The accuracies of an aggregate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AggregateAccuracy {
    /// The layer whose features are aggregated.
    #[serde(rename = "feature")]
    pub layer: FeatureLayer,
    /// The aggregate, in words.
    pub view: String,
    /// The layout and number of the averaged patches, if the row is a point of a curve.
    pub curve: Option<(PatchLayout, usize)>,
    /// The accuracy of the nearest neighbors.
    pub knn: AccuracyWithInterval,
    /// The accuracy of the linear probe.
    pub linear: Option<AccuracyWithInterval>,
}

/// The layout of a curve's patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchLayout {
    /// On a grid, in random order.
    Grid,
    /// At random positions.
    Random,
}

/// An accuracy with its interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccuracyWithInterval {
    /// The accuracy in percent.
    pub percent: f64,
    /// How often the class is among the five most likely ones, in percent.
    pub top5: f64,
    /// The 95 % interval of a cluster bootstrap over groups of test images, in percent. `None` if there is only one group.
    pub interval: Option<Interval>,
    /// Whether the regression reached its optimum. `None` for classifiers without a fit.
    pub fit: Option<Fit>,
}

impl Default for Aggregation {
    /// Images in color, with linear probes.
    fn default() -> Self {
        Aggregation { color: Color::Rgb, only_knn: false }
    }
}

impl Claim for Aggregation {
    type Measurement = ModelAggregation;
    type Report = AggregationReport;

    fn layers(&self) -> &'static [FeatureLayer] {
        &ALL_LAYERS
    }

    fn measure(&self, model: &Model<'_>, splits: &Splits, options: &EvalOptions<'_>) -> Result<ModelAggregation> {
        let subject = Subject::new(model, splits, options, self.color)?;
        let (spec, layers, pooling_grid) = (model.spec.patch, model.layers(self.layers()), pooling_grid(&subject)?);
        let mut grid = subject.train_and_test(subject.bag, &layers)?;
        let patches = grid[0][0].patches().min(grid[1][0].patches());
        let mut random = subject.train_and_test(Bag::Random { spec, patches: patches as u32 }, &layers)?;
        let mut whole = subject.train_and_test(Bag::Whole, &layers)?;
        let mut center = subject.train_and_test(Bag::Center, &layers)?;
        for split in 0..2 {
            // An image that is smaller than a patch has no patches, but it does have a whole-image
            // view.
            intersect_images([&mut grid, &mut random, &mut whole, &mut center].map(|view| &mut view[split]))?;
        }
        let groups = subject.groups(&grid[1][0])?;
        let order = Order::Random { seed: options.seed };
        let mut rows = Vec::new();
        let mut add = |layer: FeatureLayer, view: String, curve, samples: [Samples; 2]| -> Result<()> {
            let (knn, linear) = self.accuracies(samples, &groups, options)?;
            rows.push(AggregateAccuracy { layer, view, curve, knn, linear });
            Ok(())
        };
        for (index, &layer) in layers.iter().enumerate() {
            let mean = |view: &[Vec<Features>; 2], count: usize| -> Result<[Samples; 2]> {
                Ok([view[0][index].samples(count, order)?, view[1][index].samples(count, order)?])
            };
            add(layer, "center crop".into(), None, mean(&center, 1)?)?;
            add(layer, "whole image".into(), None, mean(&whole, 1)?)?;
            for count in accuracy_counts(patches) {
                add(layer, format!("{count} of the grid"), Some((PatchLayout::Grid, count)), mean(&grid, count)?)?;
            }
            for count in accuracy_counts(patches) {
                add(layer, format!("{count} at random"), Some((PatchLayout::Random, count)), mean(&random, count)?)?;
            }
            // A single row or column has no quadrants.
            if let Some(pooling_grid) =
                pooling_grid.as_ref().ok().filter(|pooling_grid| pooling_grid.rows().min(pooling_grid.columns()) >= 2)
            {
                let [train, test] = grid.each_ref().map(|split| split[index].pooled(*pooling_grid, 2));
                add(layer, "2 x 2 pooled".into(), None, [train?, test?])?;
            }
        }
        Ok(ModelAggregation {
            name: model.name.clone(),
            preset: model.spec.provenance.preset.clone(),
            origin: subject.origin,
            rows,
            pooling_error: pooling_grid.err().map(|error| error.to_string()),
        })
    }

    fn report(&self, checkpoints: Vec<ModelAggregation>, _: &EvalOptions<'_>) -> Result<AggregationReport> {
        Ok(AggregationReport { checkpoints })
    }
}

impl Aggregation {
    /// Returns the accuracies of the nearest neighbors and, if asked for, of the linear probe.
    fn accuracies(
        &self,
        [train, test]: [Samples; 2],
        groups: &[u32],
        options: &EvalOptions<'_>,
    ) -> Result<(AccuracyWithInterval, Option<AccuracyWithInterval>)> {
        let accuracy = |score: Score| -> Result<AccuracyWithInterval> {
            let hits = score.hits(test.labels());
            let interval = grouped_bootstrap(&hits, groups, BOOTSTRAP_DRAWS, options.seed)?;
            Ok(AccuracyWithInterval { percent: score.accuracy, top5: score.top5, interval, fit: score.fit })
        };
        let protocol = &options.protocol;
        let knn = accuracy(protocol.knn.evaluate(&train, &test)?)?;
        let linear = match self.only_knn {
            true => None,
            false => Some(accuracy(protocol.probe(&train, options.seed)?.evaluate(&train, &test)?)?),
        };
        Ok((knn, linear))
    }
}

impl AggregationReport {
    /// Renders the report, which was made with this protocol.
    pub fn page(&self, protocol: &Protocol) -> Page {
        page(&self.checkpoints, protocol)
    }
}

/// Returns the grid that all images share, or why there is none. Only pooling needs it.
fn pooling_grid(subject: &Subject<'_>) -> Result<bagssl_data::Result<Grid>> {
    let Bag::Grid { spec, stride } = subject.bag else { return Err(Error::NoGrid) };
    let datasets = [&*subject.splits.test, &*subject.splits.train];
    Ok(common_grid(&datasets, spec, stride, subject.options.on_bad_image))
}

fn page(models: &[ModelAggregation], protocol: &Protocol) -> Page {
    let lead = models.iter().filter_map(|model| {
        let embedding = || model.rows.iter().filter(|row| row.layer == FeatureLayer::Embedding);
        let of = |view: &str| embedding().find(|row| row.view == view);
        let most = embedding().rfind(|row| matches!(row.curve, Some((PatchLayout::Grid, _))))?;
        let (whole, one) = (of("whole image")?, of("1 of the grid")?);
        Some(format!(
            "{}: kNN of the embedding {:.1} % with one patch, {:.1} % with {}, {:.1} % for the whole image at once.",
            model.name, one.knn.percent, most.knn.percent, most.view, whole.knn.percent
        ))
    });
    let alone = models.iter().filter(|model| model.rows.iter().all(|row| row.layer == FeatureLayer::Embedding));
    let alone = alone.map(|model| format!("{}: {NO_PROJECTOR}.", model.name));
    let pooling_error = models.iter().filter_map(|model| {
        let why = model.pooling_error.as_ref()?;
        Some(format!("{}: no 2 x 2 pooling, for which all images must have the same grid: {why}.", model.name))
    });
    // Either all rows have probes, or none.
    let is_probed = models.iter().flat_map(|model| &model.rows).any(|row| row.linear.is_some());
    let show = |accuracy: &AccuracyWithInterval| with_interval(accuracy.percent, accuracy.interval);
    let head = ["feature", "of", "kNN", "kNN top 5", "linear", "linear top 5"];
    let head = if is_probed { &head[..] } else { &head[..4] };
    let block = |model: &ModelAggregation| {
        let rows = model.rows.iter().map(|row| {
            let mark = match row.linear.as_ref().and_then(|linear| linear.fit) {
                Some(fit) if !fit.converged => " (not at its optimum)",
                _ => "",
            };
            let top5 = |accuracy: &AccuracyWithInterval| format!("{:.1}", accuracy.top5);
            let linear = row.linear.as_ref().map(|linear| [show(linear) + mark, top5(linear)]);
            let words = [row.layer.name().to_string(), row.view.clone(), show(&row.knn), top5(&row.knn)];
            words.into_iter().chain(linear.into_iter().flatten()).collect()
        });
        let lines = ALL_LAYERS.into_iter().flat_map(|layer| {
            [(PatchLayout::Grid, "grid"), (PatchLayout::Random, "random")].map(|(layout, layout_name)| {
                let points = model.rows.iter().filter(|row| row.layer == layer).filter_map(|row| {
                    let (_, count) = row.curve.filter(|(other, _)| *other == layout)?;
                    Some((count as f64, row.knn.percent, 0.0))
                });
                (format!("{}, {layout_name}", layer.name()), points.collect::<Vec<_>>())
            })
        });
        // Grids come first, to get the most distinct colors.
        let mut lines: Vec<PlotLine> = lines.filter(|(_, points)| !points.is_empty()).collect();
        lines.sort_by_key(|(name, _)| name.ends_with("random"));
        Block {
            title: model.name.clone(),
            text: vec![],
            tables: vec![TextTable {
                caption: "Accuracy in percent, with a 95 % interval from draws of whole groups of test images.".into(),
                head: head.iter().map(|name| name.to_string()).collect(),
                rows: rows.collect(),
                text_columns: 2,
            }],
            plots: vec![LinePlot {
                title: format!("kNN against patches, {}", model.name),
                caption: "Mean of the first k patches; the table has the intervals. Does averaging more patches help, and which feature?".into(),
                x_label: "patches averaged".into(),
                y_label: "accuracy, %".into(),
                logarithmic: true,
                lines,
            }],
            ..Block::default()
        }
    };
    let [knn, linear] = protocol.describe();
    let mut origins = vec![format!("kNN: {knn}")];
    origins.extend(is_probed.then(|| format!("linear: {linear}")));
    origins.extend(models.iter().map(|model| format!("{}: {}", model.name, model.origin.line())));
    Page {
        title: "Accuracy and aggregation".into(),
        lead: lead.chain(alone).chain(pooling_error).collect(),
        blocks: models.iter().map(block).collect(),
        origins,
    }
}
