//! The sections on training: curves and health.

use super::document::{Figure, Part, Section, Table};
use super::outcome::{Curve, Method, Space};
use super::{Report, results};
use crate::analysis::{Deviation, Health};
use crate::report::markup::svg::{LineChart, Series};
use crate::stats::{mean, std_dev};

/// The maximum number of points of a line, apart from the last one.
const POINTS: usize = 200;

/// The loss of a training run. Every loss has a metric `invariance`, with different meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objective {
    CodingRate,
    Vicreg,
    Simclr,
}

/// The metrics that every loss has on a scale of its own. They are plotted separately for each
/// loss.
const OWN_SCALE: [&str; 3] = ["gradient", "invariance", "loss"];

impl Objective {
    const ALL: [Self; 3] = [Objective::CodingRate, Objective::Vicreg, Objective::Simclr];

    /// Returns the loss of a method, or `None` if it is not trained.
    fn from_method(model: Method) -> Option<Self> {
        match model {
            Method::Bagssl | Method::MultiScale => Some(Objective::CodingRate),
            Method::BagsslVicreg | Method::Vicreg => Some(Objective::Vicreg),
            Method::Simclr => Some(Objective::Simclr),
            Method::Random | Method::Pixels | Method::Histogram => None,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Objective::CodingRate => "coding rate",
            Objective::Vicreg => "VICReg",
            Objective::Simclr => "SimCLR",
        }
    }

    /// Describes the `invariance` of this loss.
    fn invariance(self) -> &'static str {
        match self {
            Objective::CodingRate => {
                "How much the patches of an image agree in the projection: mean cosine similarity to their mean (best: \
                 1)"
            }
            Objective::Vicreg => {
                "How much the patches of an image differ in the projection: mean squared difference of two patches \
                 (best: 0)"
            }
            Objective::Simclr => {
                "How much the patches of an image agree in the projection: mean cosine similarity of two patches \
                 (best: 1)"
            }
        }
    }
}

pub(super) fn curves(report: &Report) -> Section {
    let mut names: Vec<&String> = vec![];
    for point in report.curves.iter().flat_map(|curve| &curve.points) {
        names.extend(point.figures.keys());
        names.sort_unstable();
        names.dedup();
    }
    let figures: Vec<Figure> = names.into_iter().flat_map(|name| figures(report, name)).collect();
    let parts = if figures.is_empty() { vec![] } else { vec![Part::Figures(figures)] };
    Section { title: "Training".into(), text: vec![], parts }
}

/// Plots the metric of one name: one plot per loss if each loss has its own scale.
fn figures(report: &Report, name: &str) -> Vec<Figure> {
    if OWN_SCALE.contains(&name) {
        return Objective::ALL.into_iter().filter_map(|objective| figure(report, name, Some(objective))).collect();
    }
    figure(report, name, None).into_iter().collect()
}

/// Plots the models with this loss, or all models.
fn figure(report: &Report, name: &str, objective: Option<Objective>) -> Option<Figure> {
    let models = results::MODELS.into_iter().enumerate();
    let models = models.filter(|&(_, model)| objective.is_none() || objective == Objective::from_method(model));
    let series = models.filter_map(|(color, model)| {
        let curves: Vec<&Curve> = report.curves.iter().filter(|curve| curve.model == model).collect();
        let points = over_seeds(&curves, name);
        let name = model.title().into();
        (!points.is_empty()).then_some(Series { name, color, dashed: false, points })
    });
    let (x_label, y_label) = ("epoch".into(), name.to_string());
    let chart = LineChart { x_label, y_label, logarithmic: false, series: series.collect() };
    let title = objective.map_or(name.to_string(), |objective| format!("{name}, {}", objective.title()));
    let caption = format!("{}. Mean over the seeds; band: one standard deviation.", meaning(name, objective));
    Some(Figure { plot: chart.render(&title)?, title, caption })
}

/// Describes the metrics that training records.
fn meaning(name: &str, objective: Option<Objective>) -> &'static str {
    match name {
        "loss" => "Training loss",
        "invariance" => objective.map_or("Invariance", Objective::invariance),
        "gradient" => "L2 norm of the gradient of the loss",
        "tcr" => "Total coding rate: the lower it is, the more of the space the projections fill",
        "tcr_share" => {
            "Total coding rate as a fraction of its bound: near 0 means collapse, 1 means that the space is filled \
             evenly"
        }
        "variance" => "Mean shortfall of the standard deviations of the projections below 1 (best: 0)",
        "covariance" => "Sum of the squared covariances between dimensions of the projections (best: 0)",
        "similarity" => "Mean cosine similarity between projections of different images: near 1 means collapse",
        "rate" | "learning_rate" => "Learning rate",
        _ => "As recorded in training",
    }
}

/// Returns the mean and the standard deviation over the runs, up to the end of the shortest run.
fn over_seeds(curves: &[&Curve], name: &str) -> Vec<(f64, f64, f64)> {
    let values = |curve: &&Curve| -> Vec<(f64, f64)> {
        curve.points.iter().filter_map(|point| Some((point.epoch, *point.figures.get(name)?))).collect()
    };
    let runs: Vec<Vec<(f64, f64)>> = curves.iter().map(values).collect();
    let length = runs.iter().map(Vec::len).min().unwrap_or(0);
    let at = |number: usize| {
        let here: Vec<f64> = runs.iter().map(|run| run[number].1).collect();
        (runs[0][number].0, mean(&here), std_dev(&here))
    };
    let step = length.div_ceil(POINTS).max(1);
    let mut numbers: Vec<usize> = (0..length).step_by(step).collect();
    if numbers.last().is_some_and(|&last| last + 1 < length) {
        numbers.push(length - 1);
    }
    numbers.into_iter().map(at).collect()
}

pub(super) fn health(report: &Report) -> Section {
    let mut rows = vec![];
    let mut reasons = vec![];
    for (model, spaces) in &report.health {
        for (space, health) in spaces {
            rows.push(row(*model, *space, health));
            if !health.reasons.is_empty() {
                reasons.push(format!("{}, {}: {}.", model.title(), space.name(), health.reasons.join("; ")));
            }
        }
    }
    let head = [
        "model",
        "features",
        "verdict",
        "dim",
        "effective rank",
        "coding rate",
        "cosine within",
        "cosine between",
        "dead",
        "minimum deviation",
    ];
    let caption = "Effective rank: number of directions in use (Roy and Vetterli 2007), of those possible. Coding \
                   rate: as a fraction of its bound, which evenly spread features reach. Cosine within: between \
                   patches of one image. Cosine between: between patches of different images; a useful representation \
                   keeps it well below the cosine within. Dead: dimensions that do not vary. Minimum deviation: \
                   smallest standard deviation of a dimension of the features at unit length, times the square root of \
                   the number of dimensions.";
    let table = Table { caption: caption.into(), head: head.map(String::from).to_vec(), rows, text_columns: 3 };
    let parts = if table.rows.is_empty() { vec![] } else { vec![Part::Table(table), Part::LinePlot(reasons)] };
    Section { title: "Health of the representations".into(), text: vec![], parts }
}

fn row(model: Method, space: Space, health: &Health) -> Vec<String> {
    let cosine =
        |value: Option<f64>| value.map_or("-".into(), |value| format!("{:.2}", (value * 100.0).round() / 100.0 + 0.0));
    let Deviation { min, .. } = health.unit;
    vec![
        model.title().into(),
        space.name().into(),
        health.verdict.name().into(),
        health.dim.to_string(),
        format!("{:.1} of {}", health.effective_rank, health.rank_limit),
        format!("{:.2}", health.coding_rate_share),
        cosine(health.cosine_within),
        cosine(health.cosine_between),
        format!("{:.0} %", 100.0 * health.raw.dead),
        format!("{:.3}", min * (health.dim as f64).sqrt()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::outcome::CurvePoint;
    use super::*;
    use std::collections::BTreeMap;

    fn curve(values: &[f64]) -> Curve {
        curve_of(Method::Bagssl, "loss", values)
    }

    fn curve_of(model: Method, name: &str, values: &[f64]) -> Curve {
        let point = |(step, &value): (usize, &f64)| CurvePoint {
            step: step as u64,
            epoch: step as f64,
            figures: BTreeMap::from([(name.to_string(), value)]),
        };
        Curve { model, seed: 0, points: values.iter().enumerate().map(point).collect() }
    }

    /// A report with all trainable methods: the meaning of `invariance` is given beside the curves
    /// of the matching loss.
    #[test]
    fn losses_share_a_plot_only_where_they_mean_the_same() {
        let of = |name: &str| {
            let curves = Method::TRAINED.map(|model| curve_of(model, name, &[0.5, 0.75])).to_vec();
            figures(&Report { curves, ..Report::default() }, name)
        };
        let expected = [
            (
                "invariance, coding rate",
                "mean cosine similarity to their mean (best: 1)",
                ["BagSSL", "multi-scale"].as_slice(),
            ),
            ("invariance, VICReg", "mean squared difference of two patches (best: 0)", &["BagSSL-VICReg", "VICReg"]),
            ("invariance, SimCLR", "mean cosine similarity of two patches (best: 1)", &["SimCLR"]),
        ];
        let found = of("invariance");
        assert_eq!(found.len(), expected.len());
        for (figure, (title, meaning, models)) in found.iter().zip(expected) {
            assert_eq!(figure.title, title);
            assert!(figure.caption.contains(meaning), "{}", figure.caption);
            for model in Method::TRAINED.map(Method::title) {
                assert_eq!(
                    figure.plot.contains(&format!("</i>{model}</li>")),
                    models.contains(&model),
                    "{title}: {model}"
                );
            }
        }
        assert_eq!(OWN_SCALE.map(|name| of(name).len()), [3; 3]);
        assert_eq!(["rate", "similarity", "tcr_share"].map(|name| of(name).len()), [1; 3]);
    }

    #[test]
    fn runs_are_joined_as_far_as_all_go() {
        let (one, two) = (curve(&[1.0, 2.0, 3.0]), curve(&[3.0, 2.0]));
        assert_eq!(over_seeds(&[&one, &two], "loss"), [(0.0, 2.0, 2f64.sqrt()), (1.0, 2.0, 0.0)]);
        assert!(over_seeds(&[&one], "other").is_empty() && over_seeds(&[], "loss").is_empty());
    }

    #[test]
    fn long_runs_are_thinned_and_keep_their_end() {
        let long = curve(&(0..1001).map(f64::from).collect::<Vec<_>>());
        let points = over_seeds(&[&long], "loss");
        assert!(points.len() <= POINTS + 1);
        assert_eq!(points.last().unwrap().1, 1000.0);
    }
}
