//! Assembles the report from the stages' results.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use bagssl::{Evaluation, Space, Splits, Thumbnails, ViewAccuracy, image_thumbnail};
use bagssl_core::color::Color;
use bagssl_eval::analysis::ConvergencePoint;
use bagssl_eval::report::{
    Accuracy, BagSheet, Convergence, Curve, CurvePoint, Data, Machine, Method, Note, Outcome, Provenance, Report,
    Sheet, Tile, View,
};
use bagssl_train::run_state::METRICS;
use serde::Serialize;

use super::Reproduction;
use super::stage::Stage;
use crate::input::bag::describe;
use crate::input::files;
use crate::input::source::fingerprint;
use crate::provenance;

/// Number of test images whose bags are shown, and number of training images shown per class.
const BAGS: usize = 3;
const TILES: usize = 8;

pub(super) fn report(reproduction: &Reproduction<'_>, total_seconds: f64) -> Result<Report> {
    let Splits { train, test, .. } = reproduction.shared.splits;
    let mut results = Vec::new();
    let mut curves = Vec::new();
    let mut close = Vec::new();
    let mut health = BTreeMap::new();
    for model in Method::TRAINED.into_iter().chain([Method::Random]) {
        let stages: Vec<&Stage> = reproduction.stages.iter().filter(|stage| stage.model == model).collect();
        let measured = stages.iter().map(|stage| stage.measured()).collect::<Result<Vec<_>>>()?;
        results.extend(join(model, &measured));
        let closeness: Vec<Vec<ConvergencePoint>> = measured.iter().map(|seed| seed.convergence.clone()).collect();
        close.extend(Convergence::from_seeds(model, &closeness));
        if let Some(first) = measured.first() {
            health.insert(model, first.health.clone());
        }
        for stage in stages.into_iter().filter(|stage| stage.is_trained()) {
            curves.push(curve(stage)?);
        }
    }
    for stage in reproduction.stages.iter().filter(|stage| stage.model == Method::Pixels) {
        let [pixels, histogram] = stage.measured_baselines()?;
        results.extend(join(Method::Pixels, &[pixels]));
        results.extend(join(Method::Histogram, &[histogram]));
    }
    let pictures = Pictures::new(reproduction)?;
    Ok(Report {
        profile: reproduction.args.profile.name().into(),
        seeds: (reproduction.args.seed..reproduction.args.seed + reproduction.args.seeds).collect(),
        chance: reproduction.shared.splits.chance(),
        total_seconds,
        results,
        convergence: close,
        health,
        curves,
        data: Data {
            name: reproduction.data.name(),
            fingerprint: fingerprint(train),
            train_images: train.len(),
            test_images: test.len(),
            classes: train.classes().to_vec(),
            attribution: attribution(reproduction),
        },
        protocol: protocol(reproduction)?,
        provenance: Provenance {
            version: env!("CARGO_PKG_VERSION").into(),
            date: provenance::date(),
            command: provenance::command(),
            machine: Machine::here(),
            backend: reproduction.args.backend.text().into(),
        },
        tiles: pictures.tiles()?,
        bags: pictures.bags()?,
        sheets: pictures.sheets()?,
        claims: reproduction.claims.iter().map(|claim| claim.section()).collect::<Result<_>>()?,
    })
}

/// Combines the accuracies of the seeds.
fn join(model: Method, seeds: &[Evaluation]) -> Vec<Outcome> {
    let Some(first) = seeds.first() else { return vec![] };
    let same = |a: &ViewAccuracy, b: &ViewAccuracy| {
        (a.space, a.color, a.view, a.patches) == (b.space, b.color, b.view, b.patches)
    };
    let outcome = |scored: &ViewAccuracy| {
        let over = |value: fn(&ViewAccuracy) -> f64| {
            Accuracy::new(
                seeds
                    .iter()
                    .filter_map(|seed| seed.accuracies.iter().find(|other| same(scored, other)).map(value))
                    .collect(),
            )
        };
        let ViewAccuracy { space, color, view, patches, .. } = *scored;
        Outcome {
            model,
            space,
            color,
            view,
            patches,
            knn: over(|scored| scored.knn),
            linear: over(|scored| scored.linear),
        }
    };
    first.accuracies.iter().map(outcome).collect()
}

/// Reads the learning curve from a run's metrics, with a point per epoch.
fn curve(stage: &Stage) -> Result<Curve> {
    let path = stage.folder.join(METRICS);
    let text = String::from_utf8(files::read(&path)?).with_context(|| path.display().to_string())?;
    let mut points = Vec::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).with_context(|| path.display().to_string())?;
        if line["event"] == "epoch" {
            let number = |name: &str| line[name].as_u64().unwrap_or(0);
            let figures = line.as_object().into_iter().flatten();
            let figures = figures.filter(|(name, _)| !["event", "step", "epoch"].contains(&name.as_str()));
            points.push(CurvePoint {
                step: number("step"),
                epoch: number("epoch") as f64 + 1.0,
                figures: figures.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect(),
            });
        }
    }
    Ok(Curve { model: stage.model, seed: stage.seed, points })
}

fn attribution(reproduction: &Reproduction<'_>) -> Vec<String> {
    match reproduction.data.data {
        Some(_) => vec![],
        None => bagssl_data::EMBEDDED_ATTRIBUTION
            .lines()
            .map(|line| line.trim_start_matches("- ").trim())
            .filter(|line| !line.is_empty())
            .map(Into::into)
            .collect(),
    }
}

fn protocol(reproduction: &Reproduction<'_>) -> Result<Vec<Note>> {
    let config = &reproduction.stages[0].config;
    let train = &config.train;
    let shared = reproduction.shared;
    let note = |name: &str, text: String| Note { name: name.into(), text };
    let of_model = |model: Method| -> Option<Result<Note>> {
        let train = &reproduction.stages.iter().find(|stage| stage.model == model)?.config.train;
        let said = || Ok(format!("patches: {}; loss: {}", settings(&train.views)?, settings(&train.loss)?));
        Some(said().map(|text| note(model.title(), text)))
    };
    let mut notes = vec![
        note(
            "network",
            format!(
                "{}, projector {:?}, {} pixels",
                train.model.arch.name(),
                train.model.projector,
                train.patch.input()
            ),
        ),
        note(
            "training",
            format!(
                "{} epochs of batches of {} images x {} patches; {}; all methods share seeds, network and batches",
                train.schedule.epochs,
                train.batch.images,
                train.batch.patches,
                settings(&train.optimizer)?
            ),
        ),
        note("augmentation", settings(&config.augment)?),
    ];
    for of_model in Method::TRAINED.into_iter().filter_map(of_model) {
        notes.push(of_model?);
    }
    notes.extend([
        note("patches of an image", describe(shared.bag)),
        note("whole image", "the image resampled to the network's input size, encoded once".into()),
        note("fewer patches", "the first patches in a random order, for training and test images".into()),
        note("kNN", shared.options.protocol.knn.describe()),
        note("linear", shared.options.protocol.linear.describe()),
        note("grey", "the same networks and weights on grey training and test images, without retraining".into()),
        note(
            "baselines",
            format!(
                "raw pixels in [0, 1] (grey: minus their mean) and the joint color histogram with {0} x {0} x {0} \
                 bins; finer histograms are stronger if images come from few scenes",
                bagssl_eval::baselines::Histogram::BINS
            ),
        ),
        note("health", "first seed, on the patches of the test images".into()),
    ]);
    Ok(notes)
}

/// Formats settings as one line, with their names in the config file.
fn settings(value: &impl Serialize) -> Result<String> {
    let mut lines = Vec::new();
    collect(String::new(), &toml::Value::try_from(value)?, &mut lines);
    Ok(lines.join(", "))
}

fn collect(name: String, value: &toml::Value, lines: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            let inner = |key: &String| if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            table.iter().for_each(|(key, value)| collect(inner(key), value, lines));
        }
        value => lines.push(format!("{name} {}", plain(value))),
    }
}

/// Formats floats as f32, with the digits given in the config file.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(value) => (*value as f32).to_string(),
        toml::Value::Array(values) => format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

/// Pictures of the data set.
struct Pictures<'a> {
    reproduction: &'a Reproduction<'a>,
    /// The bags of the test images.
    test: Thumbnails,
}

impl<'a> Pictures<'a> {
    fn new(reproduction: &'a Reproduction<'a>) -> Result<Self> {
        let (bag, seed) = (reproduction.shared.bag, reproduction.shared.options.seed);
        Ok(Pictures {
            reproduction,
            test: Thumbnails::new(reproduction.shared.splits.test.clone(), bag, seed, Color::Rgb)?,
        })
    }

    fn tiles(&self) -> Result<Vec<Tile>> {
        let train = &self.reproduction.shared.splits.train;
        let mut shown: BTreeMap<u32, usize> = BTreeMap::new();
        let mut tiles = Vec::new();
        for image in 0..train.len() {
            let label = train.label(image);
            let count = shown.entry(label).or_default();
            if *count < TILES && (label as usize) < 20 {
                *count += 1;
                tiles.push(image_thumbnail(train, image)?);
            }
        }
        Ok(tiles)
    }

    fn bags(&self) -> Result<Vec<BagSheet>> {
        let test = &self.reproduction.shared.splits.test;
        let step = (test.len() / BAGS).max(1);
        let sheet = |image| {
            let patches = (0..self.test.patches()).map(|patch| Ok(self.test.patch([image, patch])?));
            let (title, patches) = (test.name(image).to_string(), patches.collect::<Result<_>>()?);
            Ok(BagSheet { title, image: image_thumbnail(test, image)?, patches })
        };
        (0..test.len()).step_by(step).take(BAGS).map(sheet).collect()
    }

    /// Returns the neighbors found by the first seed's stages of the main comparison.
    fn sheets(&self) -> Result<Vec<Sheet>> {
        let mut sheets = Vec::new();
        for model in [Method::Bagssl, Method::MultiScale] {
            let Some(stage) = self.reproduction.stages.iter().find(|stage| stage.model == model) else { continue };
            let measured = stage.measured()?;
            for space in stage.layers().into_iter().map(Space::from) {
                let rows = measured.neighbors.get(&space).into_iter().flatten().map(|near| Ok(self.test.row(near)?));
                sheets.push(Sheet { model, space, rows: rows.collect::<Result<_>>()? });
            }
        }
        Ok(sheets)
    }
}

/// Formats the main accuracies as a text table.
pub(super) fn table(report: &Report) -> String {
    let most = report.results.iter().map(|outcome| outcome.patches).max().unwrap_or(1);
    let mut text = format!(
        "\n{:<18} {:<12} {:<12} {:>14} {:>14} {:>14} {:>14}\n",
        "", "", "", "RGB kNN %", "RGB linear %", "grey kNN %", "grey linear %"
    );
    for outcome in report.results.iter().filter(|outcome| outcome.color == Color::Rgb) {
        let main = outcome.view == View::Whole || outcome.patches == most;
        let grey = report.results.iter().find(|other| {
            other.color == Color::Grey
                && (other.model, other.space, other.view, other.patches)
                    == (outcome.model, outcome.space, outcome.view, outcome.patches)
        });
        let (true, Some(grey)) = (main, grey) else { continue };
        let view = if outcome.view == View::Whole { "whole".into() } else { format!("{} patches", outcome.patches) };
        let cell = |accuracy: &Accuracy| format!("{:.1} +- {:.1}", accuracy.mean, accuracy.std);
        let _ = writeln!(
            text,
            "{:<18} {:<12} {view:<12} {:>14} {:>14} {:>14} {:>14}",
            outcome.model.title(),
            outcome.space.name(),
            cell(&outcome.knn),
            cell(&outcome.linear),
            cell(&grey.knn),
            cell(&grey.linear)
        );
    }
    for sentence in report.headline().sentences(report) {
        let _ = writeln!(text, "\n{sentence}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_called_as_in_a_config_file() {
        let of = |model| crate::reproduce::profile::Profile::Tiles.run(model, Some(1)).unwrap().train;
        let [bagssl, multi_scale] = [Method::Bagssl, Method::MultiScale].map(of);
        assert_eq!(settings(&bagssl.views).unwrap(), "fixed_scale.input 16, fixed_scale.side.area_share 0.25");
        assert_eq!(
            settings(&multi_scale.views).unwrap(),
            "multi_scale.input 16, multi_scale.ratio [0.75, 1.3333334], multi_scale.scale [0.08, 1]"
        );
        assert_eq!(settings(&bagssl.loss).unwrap(), "tcr.epsilon 0.2, tcr.invariance 60");
    }
}
