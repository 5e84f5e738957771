//! The sections on accuracy: tables, bars, and lines over the number of patches.

use super::Report;
use super::document::{Figure, Part, Section, Table};
use super::outcome::{Accuracy, Method, Outcome, Space, View};
use crate::color::Color;
use crate::report::markup::svg::{BarChart, Group, LineChart, Series};
use crate::stats::{Interval, paired_difference};

/// The networks. The index is the number of the color.
pub(super) const MODELS: [Method; 6] =
    [Method::Bagssl, Method::MultiScale, Method::Random, Method::BagsslVicreg, Method::Vicreg, Method::Simclr];
const COLORS: [(Color, &str); 2] = [(Color::Rgb, "RGB"), (Color::Grey, "grey")];

/// A classifier: its name, and a function that returns its accuracy.
type Protocol = (&'static str, fn(&Outcome) -> &Accuracy);

const PROTOCOLS: [Protocol; 2] = [("kNN", |outcome| &outcome.knn), ("linear", |outcome| &outcome.linear)];

/// The key of a representation, without its color.
type Row = (Method, Space, View, usize);

pub(super) fn accuracy(report: &Report) -> Section {
    let mut figures = vec![];
    for (name, of) in PROTOCOLS {
        figures.extend(bars(report, name, of));
    }
    let rows: Vec<Row> = rows(report).into_iter().filter(|&row| is_main(report, row)).collect();
    let caption = "Top-1 accuracy in percent: mean ± standard deviation over the seeds. Whole: the network reads the \
                   whole image once. Patches: the mean of the features of that many patches. Grey: the same network on \
                   grey images, where color is no shortcut.";
    let mut parts = vec![Part::Figures(figures)];
    parts.extend(table(report, &rows, caption));
    parts.extend(differences(report));
    Section { title: "Accuracy".into(), text: vec![], parts }
}

pub(super) fn patches(report: &Report) -> Section {
    let mut figures = vec![];
    for (color, color_name) in COLORS.into_iter().rev() {
        for (name, of) in PROTOCOLS {
            figures.extend(lines(report, (color, color_name), name, of));
        }
    }
    let row = |&(_, space, view, _): &Row| space != Space::Input && view == View::Patches;
    let rows: Vec<Row> = rows(report).into_iter().filter(row).collect();
    let mut parts = if figures.is_empty() { vec![] } else { vec![Part::Figures(figures)] };
    parts.extend(table(
        report,
        &rows,
        "Accuracy in percent for each number of patches: mean ± standard deviation over the seeds.",
    ));
    Section { title: "Accuracy by number of patches".into(), text: vec![], parts }
}

pub(super) fn convergence(report: &Report) -> Section {
    let series = MODELS.into_iter().enumerate().map(|(color, model)| {
        let points = report.convergence.iter().filter(|point| point.model == model);
        let points = points.map(|point| (point.patches as f64, point.cosine, point.seed_std)).collect();
        Series { name: model.title().into(), color, dashed: false, points }
    });
    let chart = LineChart {
        x_label: "patches averaged".into(),
        y_label: "cosine".into(),
        logarithmic: true,
        series: series.filter(|series| !series.points.is_empty()).collect(),
    };
    let title = "Mean of k patches against the whole image";
    let caption = "Cosine similarity between the mean of the first k patch embeddings and the embedding of the whole \
                   image, averaged over the test images. Band: one standard deviation over the seeds. A curve that \
                   rises and levels off near 1 means that the image embedding is close to the mean of its patch \
                   embeddings.";
    let figure = |plot| Figure { title: title.into(), plot, caption: caption.into() };
    let figures: Vec<Figure> = chart.render(title).map(figure).into_iter().collect();
    let mut parts = if figures.is_empty() { vec![] } else { vec![Part::Figures(figures)] };
    parts.extend(convergence_table(report));
    Section { title: "Convergence to the whole image".into(), text: vec![], parts }
}

fn bars(report: &Report, name: &str, of: fn(&Outcome) -> &Accuracy) -> Option<Figure> {
    let mut groups = vec![];
    let whole = |row: Row| row.2 == View::Patches || [Space::Embedding, Space::Input].contains(&row.1);
    let barred = |&row: &Row| is_main(report, row) && whole(row);
    for row @ (model, space, view, _) in rows(report).into_iter().filter(barred) {
        let whole = if view == View::Whole && space != Space::Input { ", whole" } else { "" };
        let space = match space {
            Space::FirstLayer => ", 1st layer",
            Space::Projection => ", proj.",
            Space::Embedding | Space::Input => "",
        };
        let value = |(color, _)| find(report, row, color).map(|outcome| (of(outcome).mean, of(outcome).std));
        let name = format!("{}{space}{whole}", short(model));
        groups.push(Group { name, bars: COLORS.map(value).to_vec() });
    }
    let chart = BarChart {
        label: format!("{name} accuracy, %"),
        bars: COLORS.map(|(_, name)| name.into()).to_vec(),
        groups,
        reference: Some(("chance".into(), report.chance)),
        end: 100.0,
    };
    let title = format!("{} accuracy", if name == "kNN" { "Nearest-neighbor" } else { "Linear" });
    let plot = chart.render(&title)?;
    let caption = "Mean of all patches, or the whole image. Whiskers: one standard deviation over the seeds. Compare \
                   the grey bars first: how much better is the trained network than random weights and than pixels?";
    Some(Figure { title, plot, caption: caption.into() })
}

fn lines(
    report: &Report,
    (color, color_name): (Color, &str),
    name: &str,
    of: fn(&Outcome) -> &Accuracy,
) -> Option<Figure> {
    let mut series = vec![];
    for (number, model) in MODELS.into_iter().enumerate() {
        let outcomes = report.outcomes(model, Space::Embedding, color, View::Patches);
        let mut points: Vec<(f64, f64, f64)> =
            outcomes.map(|outcome| (outcome.patches as f64, of(outcome).mean, of(outcome).std)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (Some(&(first, ..)), Some(&(last, ..))) = (points.first(), points.last()) else { continue };
        series.push(Series { name: model.title().into(), color: number, dashed: false, points });
        if let Some(whole) = report.whole(model, Space::Embedding, color) {
            let points = [first, last].map(|place| (place, of(whole).mean, 0.0)).to_vec();
            series.push(Series {
                name: format!("{}, whole image", model.title()),
                color: number,
                dashed: true,
                points,
            });
        }
    }
    let title = format!("{color_name} images, {name}");
    let (x_label, y_label) = ("patches averaged".into(), "accuracy, %".into());
    let plot = LineChart { x_label, y_label, logarithmic: true, series }.render(&title)?;
    let caption = "Embedding: the mean of the first k patches. Bands: one standard deviation over the seeds. Dashed: \
                   the whole image. Does averaging more patches help, and does it exceed the dashed line?";
    Some(Figure { title, plot, caption: caption.into() })
}

/// Returns the keys of all results, sorted by model, space, view and number of patches.
fn rows(report: &Report) -> Vec<Row> {
    let mut rows: Vec<Row> = report.results.iter().map(|it| (it.model, it.space, it.view, it.patches)).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Returns whether a row is a baseline without a network, a whole image, or has the most patches.
fn is_main(report: &Report, (model, space, view, patches): Row) -> bool {
    let most = |&(color, _): &(Color, &str)| report.all_patches(model, space, color).map(|outcome| outcome.patches);
    space == Space::Input || view == View::Whole || COLORS.iter().filter_map(most).max() == Some(patches)
}

fn find(report: &Report, (model, space, view, patches): Row, color: Color) -> Option<&Outcome> {
    report.outcomes(model, space, color, view).find(|outcome| outcome.patches == patches)
}

fn table(report: &Report, rows: &[Row], caption: &str) -> Option<Part> {
    let mut head = ["model", "features", "view"].map(String::from).to_vec();
    for (_, color) in COLORS {
        head.extend(PROTOCOLS.map(|(name, _)| format!("{color} {name}")));
    }
    let line = |&row: &Row| {
        let (model, space, view, patches) = row;
        let view = if view == View::Whole { "whole".into() } else { count(patches) };
        let mut cells = vec![model.title().to_string(), space.name().to_string(), view];
        for (color, _) in COLORS {
            let outcome = find(report, row, color);
            cells.extend(PROTOCOLS.map(|(_, of)| outcome.map_or("-".into(), |outcome| show(of(outcome)))));
        }
        cells
    };
    let rows: Vec<Vec<String>> = rows.iter().map(line).collect();
    (!rows.is_empty()).then(|| Part::Table(Table { caption: caption.into(), head, rows, text_columns: 3 }))
}

/// Compares BagSSL with each other trained method, paired by seed.
fn differences(report: &Report) -> Option<Part> {
    let mut rows = vec![];
    for model in Method::TRAINED.into_iter().skip(1) {
        for color in COLORS.into_iter().rev() {
            rows.extend(differences_from(report, model, color));
        }
    }
    let head = ["BagSSL minus", "images", "view", "protocol", "points", "95 % interval"].map(String::from).to_vec();
    let caption = "Embedding: difference in accuracy (points), with the interval of the paired difference over the \
                   seeds (Student's t). If the interval contains 0, the difference is not significant.";
    (!rows.is_empty()).then(|| Part::Table(Table { caption: caption.into(), head, rows, text_columns: 4 }))
}

fn differences_from(report: &Report, model: Method, (color, color_name): (Color, &str)) -> Vec<Vec<String>> {
    let mut rows = vec![];
    for (view, view_name) in [(View::Patches, "all patches"), (View::Whole, "whole")] {
        let of_model = |model| match view {
            View::Patches => report.all_patches(model, Space::Embedding, color),
            View::Whole => report.whole(model, Space::Embedding, color),
        };
        let (Some(this), Some(other)) = (of_model(Method::Bagssl), of_model(model)) else { continue };
        for (name, of) in PROTOCOLS {
            let (this, other) = (of(this), of(other));
            let interval = paired_difference(&this.values, &other.values).ok().flatten();
            let interval = interval.map_or("-".into(), |Interval { low, high, .. }| format!("{low:+.1} to {high:+.1}"));
            let names = [model.title(), color_name, view_name, name].map(String::from);
            rows.push([names.to_vec(), vec![format!("{:+.1}", this.mean - other.mean), interval]].concat());
        }
    }
    rows
}

fn convergence_table(report: &Report) -> Option<Part> {
    let mut counts: Vec<usize> = report.convergence.iter().map(|point| point.patches).collect();
    counts.sort_unstable();
    counts.dedup();
    let cell = |model, patches| {
        let point = report.convergence.iter().find(|point| (point.model, point.patches) == (model, patches));
        point.map_or("-".into(), |point| format!("{:.3} ± {:.3}", point.cosine, point.seed_std))
    };
    let models = MODELS.into_iter().filter(|&model| report.convergence.iter().any(|point| point.model == model));
    let models: Vec<Method> = models.collect();
    let row = |&patches: &usize| {
        let cells = models.iter().map(|&model| cell(model, patches));
        std::iter::once(count(patches)).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = counts.iter().map(row).collect();
    let head = std::iter::once("averaged").chain(models.iter().map(|model| model.title())).map(String::from).collect();
    let caption =
        "Cosine similarity to the embedding of the whole image: mean ± standard deviation over the seeds.".into();
    (!rows.is_empty()).then_some(Part::Table(Table { caption, head, rows, text_columns: 1 }))
}

fn count(patches: usize) -> String {
    if patches == 1 { "1\u{a0}patch".into() } else { format!("{patches}\u{a0}patches") }
}

fn show(accuracy: &Accuracy) -> String {
    if accuracy.values.len() > 1 {
        format!("{:.1} ± {:.1}", accuracy.mean, accuracy.std)
    } else {
        format!("{:.1}", accuracy.mean)
    }
}

fn short(model: Method) -> &'static str {
    match model {
        Method::Random => "random",
        Method::Histogram => "histogram",
        Method::Pixels => "pixels",
        other => other.title(),
    }
}
