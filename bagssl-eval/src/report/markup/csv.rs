//! The data of the plots as CSV, with a header line.

use super::cells::{head, join};
use crate::report::Report;

/// Returns the accuracies, one line per representation.
pub(crate) fn results(report: &Report) -> String {
    let names = ["model", "space", "colour", "view", "patches", "knn_mean", "knn_std", "linear_mean", "linear_std"];
    join(head(names).chain(report.results.iter().map(|outcome| {
        let view = if outcome.view == crate::report::View::Whole { "whole" } else { "patches" };
        let names = [outcome.model.name(), outcome.space.name(), outcome.color.name(), view].map(String::from);
        let figures = [outcome.knn.mean, outcome.knn.std, outcome.linear.mean, outcome.linear.std];
        [names.to_vec(), vec![outcome.patches.to_string()], figures.map(|it| it.to_string()).to_vec()].concat()
    })))
}

/// Returns the closeness to the whole image, one line per number of patches.
pub(crate) fn convergence(report: &Report) -> String {
    let names = ["model", "patches", "cosine", "seed_std", "image_std"];
    join(head(names).chain(report.convergence.iter().map(|point| {
        let figures = [point.cosine, point.seed_std, point.image_std].map(|value| value.to_string());
        [vec![point.model.name().to_string(), point.patches.to_string()], figures.to_vec()].concat()
    })))
}

/// Returns the training curves, one line per metric at each point.
pub(crate) fn curves(report: &Report) -> String {
    let lines = report.curves.iter().flat_map(|curve| {
        curve.points.iter().flat_map(move |point| {
            point.figures.iter().map(move |(name, value)| {
                let place = [curve.seed.to_string(), point.step.to_string(), point.epoch.to_string()];
                [vec![curve.model.name().to_string()], place.to_vec(), vec![name.clone(), value.to_string()]].concat()
            })
        })
    });
    join(head(["model", "seed", "step", "epoch", "figure", "value"]).chain(lines))
}

/// Returns the plots of the claims' pages, one line per point, each starting with the claim's name.
pub(crate) fn claims(report: &Report) -> String {
    let lines = report
        .claims
        .iter()
        .flat_map(|claim| claim.page.points().map(move |cells| [vec![claim.name.clone()], cells.to_vec()].concat()));
    join(head(["claim", "plot", "line", "x", "y", "band", "name"]).chain(lines))
}
