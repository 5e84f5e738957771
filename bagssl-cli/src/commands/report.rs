//! `bagssl report`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bagssl_core::color::Color;
use bagssl_eval::report::{Accuracy, Block, LinePlot, Outcome, Page, PlotLine, Report, Space, TextTable, View};
use serde_json::json;

use crate::claims::PageArgs;
use crate::input::files;

/// Compare the reports of several runs side by side
///
/// Reads reports of `bagssl reproduce`: report.json files, or folders that contain one. Each row
/// has the values of all runs for the same network, feature, color and number of patches. A dash
/// marks a value that a run did not measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs: folders that contain a report.json, or report.json files
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    page: PageArgs,
}

/// The name of a run's report file.
const REPORT: &str = "report.json";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    args.page.check_files("side-by-side")?;
    let runs = args.runs.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let data: Vec<_> = runs
        .iter()
        .map(|(name, report)| {
            json!({"run": name, "profile": report.profile, "seeds": report.seeds, "chance": report.chance,
                "data": report.data, "results": report.results, "convergence": report.convergence})
        })
        .collect();
    args.page.show("side-by-side", page(&runs), &json!({"runs": data}))?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<(String, Report)> {
    let file = if path.is_dir() { path.join(REPORT) } else { path.to_path_buf() };
    let report = serde_json::from_slice(&files::read_text(&file)?)
        .with_context(|| format!("{}: expected a report of bagssl", file.display()))?;
    let folder = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    Ok((folder.unwrap_or_else(|| file.display().to_string()), report))
}

fn page(runs: &[(String, Report)]) -> Page {
    let mut kinds: Vec<&Outcome> = Vec::new();
    for outcome in runs.iter().flat_map(|(_, report)| &report.results) {
        if !kinds.iter().any(|known| is_same(known, outcome)) {
            kinds.push(outcome);
        }
    }
    let of = |kind: &Outcome, value: fn(&Outcome) -> &Accuracy| -> Vec<String> {
        let found = |(_, report): &(String, Report)| {
            let found = report.results.iter().find(|outcome| is_same(kind, outcome)).map(value);
            found.map_or("-".into(), |it| match it.values.len() {
                0 | 1 => format!("{:.1}", it.mean),
                _ => format!("{:.1} ± {:.1}", it.mean, it.std),
            })
        };
        runs.iter().map(found).collect()
    };
    let table = |title: &str, value: fn(&Outcome) -> &Accuracy| {
        let rows = kinds.iter().map(|kind| {
            let view = match kind.view {
                View::Whole => "whole".into(),
                View::Patches if kind.patches == 1 => "1 patch".into(),
                View::Patches => format!("{} patches", kind.patches),
            };
            let words = [kind.model.title(), kind.space.name(), kind.color.name()].map(String::from);
            [words.to_vec(), vec![view], of(kind, value)].concat()
        });
        let names = ["model", "features", "colour", "view"].map(String::from).to_vec();
        Block {
            title: title.into(),
            text: vec![],
            tables: vec![TextTable {
                caption: "Accuracy in percent: mean and standard deviation over the seeds of the run.".into(),
                head: [names, runs.iter().map(|(name, _)| name.clone()).collect()].concat(),
                rows: rows.collect(),
                text_columns: 4,
            }],
            plots: plots(runs, value),
            ..Block::default()
        }
    };
    let same_data = runs.iter().all(|(_, report)| report.data.fingerprint == runs[0].1.data.fingerprint);
    let mut lead: Vec<String> = runs
        .iter()
        .map(|(name, report)| format!("{name}: {}, chance {:.1} %.", report.data.name, report.chance))
        .collect();
    if !same_data {
        lead.push("These runs use different data, so their numbers are not comparable.".into());
    }
    let origin = |(name, report): &(String, Report)| {
        let (data, how) = (&report.data, &report.provenance);
        let seeds: Vec<String> = report.seeds.iter().map(u64::to_string).collect();
        format!(
            "{name}: data {} ({}), seeds {}, {}, {}",
            data.name,
            data.fingerprint,
            seeds.join(" "),
            how.date,
            how.command
        )
    };
    Page {
        title: "Runs side by side".into(),
        lead,
        blocks: vec![
            table("Nearest neighbors", |outcome| &outcome.knn),
            table("Linear probe", |outcome| &outcome.linear),
        ],
        origins: runs.iter().map(origin).collect(),
    }
}

/// Returns one plot of accuracy against the number of patches per feature and color of the first
/// model, with one line per run.
fn plots(runs: &[(String, Report)], value: fn(&Outcome) -> &Accuracy) -> Vec<LinePlot> {
    let Some(first) = runs.iter().flat_map(|(_, report)| &report.results).next() else { return Vec::new() };
    let bags = |report: &'_ Report| -> Vec<Outcome> {
        let of = |outcome: &&Outcome| outcome.model == first.model && outcome.view == View::Patches;
        report.results.iter().filter(of).cloned().collect()
    };
    let mut kinds = Vec::new();
    for Outcome { space, color, .. } in runs.iter().flat_map(|(_, report)| bags(report)) {
        if !kinds.contains(&(space, color)) {
            kinds.push((space, color));
        }
    }
    let plot = |(space, color): (Space, Color)| {
        let line = |(name, report): &(String, Report)| {
            let of = bags(report).into_iter().filter(|outcome| (outcome.space, outcome.color) == (space, color));
            let point = |outcome: &Outcome| (outcome.patches as f64, value(outcome).mean, value(outcome).std);
            (name.clone(), of.map(|outcome| point(&outcome)).collect::<Vec<_>>())
        };
        let lines: Vec<PlotLine> = runs.iter().map(line).collect();
        // A single number of patches makes no curve.
        lines.iter().any(|(_, points)| points.len() > 1).then(|| LinePlot {
            title: format!("{}, {}, {}", first.model.title(), space.name(), color.name()),
            caption: "Mean and standard deviation over the seeds of the run.".into(),
            x_label: "patches".into(),
            y_label: "accuracy (%)".into(),
            logarithmic: true,
            lines,
        })
    };
    kinds.into_iter().filter_map(plot).collect()
}

fn is_same(a: &Outcome, b: &Outcome) -> bool {
    (a.model, a.space, a.color, a.view, a.patches) == (b.model, b.space, b.color, b.view, b.patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(values: Vec<f64>, patches: usize) -> Report {
        let accuracy = Accuracy::new(values);
        let outcome = Outcome {
            model: bagssl_eval::report::Method::Bagssl,
            space: bagssl_eval::report::Space::Embedding,
            color: bagssl_core::color::Color::Grey,
            view: View::Patches,
            patches,
            knn: accuracy.clone(),
            linear: accuracy,
        };
        Report { results: vec![outcome], ..Report::default() }
    }

    #[test]
    fn missing_results_are_dashes() {
        let runs = [("a".into(), report(vec![40.0, 44.0], 4)), ("b".into(), report(vec![50.0], 9))];
        let page = page(&runs);
        let rows = &page.blocks[0].tables[0].rows;
        assert_eq!(rows[0][3..], ["4 patches", "42.0 ± 2.8", "-"]);
        assert_eq!(rows[1][3..], ["9 patches", "-", "50.0"]);
        assert_eq!(page.lead.len(), 2, "the same (empty) data");
    }

    #[test]
    fn accuracies_against_patches_are_a_line_for_each_run() {
        let mut two = report(vec![40.0, 44.0], 4);
        assert!(page(&[("a".into(), two.clone())]).blocks[0].plots.is_empty(), "a point is no curve");
        two.results.extend(report(vec![50.0], 9).results);
        let page = page(&[("a".into(), two), ("b".into(), report(vec![30.0], 9))]);
        let plot = &page.blocks[0].plots[0];
        assert_eq!((plot.lines.len(), plot.lines[0].0.as_str()), (2, "a"));
        assert_eq!(plot.lines[1].1, [(9.0, 30.0, 0.0)]);
        assert_eq!((plot.lines[0].1[0].0, plot.lines[0].1[0].1, plot.lines[0].1[1]), (4.0, 42.0, (9.0, 50.0, 0.0)));
    }

    #[test]
    fn different_data_is_reported() {
        let mut other = report(vec![1.0], 4);
        other.data.fingerprint = "x".into();
        assert!(page(&[("a".into(), report(vec![1.0], 4)), ("b".into(), other)]).lead[2].contains("different data"));
    }
}
