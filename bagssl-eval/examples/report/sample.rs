//! A report on made-up numbers.

use std::collections::BTreeMap;

use bagssl_core::color::Color;
use bagssl_core::embed::{FeatureLayer, Rows};
use bagssl_core::random::{Address, Purpose};
use bagssl_eval::Features;
use bagssl_eval::analysis::ConvergencePoint;
use bagssl_eval::analysis::Health;
use bagssl_eval::report::{
    Accuracy, BagSheet, Block, ClaimSection, Convergence, Curve, CurvePoint, Data, LinePlot, Machine, Method, Note,
    Outcome, Page, PatchSheet, Provenance, Report, Sheet, SheetRow, Space, TextTable, Thumbnail, Tile, View,
};

const CLASSES: [&str; 4] = ["00-picture-0b", "06-picosdeeuropa", "<i>R&D</i> \"x\"", "sunset"];

/// The sample: three seeds, all models, 46 % against 28 % in grey kNN.
pub(crate) fn report() -> Report {
    let networks = [(Method::Bagssl, 46.0), (Method::MultiScale, 44.0), (Method::Random, 28.0)];
    Report {
        profile: "tiles".into(),
        seeds: vec![0, 1, 2],
        chance: 100.0 / 9.0,
        total_seconds: 431.7,
        results: networks.into_iter().flat_map(|(model, grey)| network(model, grey)).chain(inputs()).collect(),
        convergence: networks.into_iter().flat_map(|(model, level)| convergence(model, level / 50.0)).collect(),
        health: networks.map(|(model, level)| (model, health(level as usize - 27))).into(),
        curves: [Method::Bagssl, Method::MultiScale]
            .into_iter()
            .flat_map(|model| (0..3).map(move |seed| curve(model, seed)))
            .collect(),
        data: data(),
        protocol: protocol(),
        provenance: Provenance {
            version: "0.1.0".into(),
            date: "2026-01-02T03:04:05Z".into(),
            command: "cargo xtask reproduce --seed 0".into(),
            machine: Machine { cpu: "A processor of 16 words".into(), cores: 2 },
            backend: "ndarray".into(),
        },
        tiles: CLASSES
            .iter()
            .enumerate()
            .flat_map(|(class, _)| (0..8).map(move |image| tile(class, image, None)))
            .collect(),
        bags: vec![BagSheet {
            title: "training, with augmentation".into(),
            image: tile(1, 3, None),
            patches: (0..8).map(|patch| tile(1, 3, Some(patch))).collect(),
        }],
        sheets: [Space::Embedding, Space::Projection].map(sheet).to_vec(),
        claims: vec![claim()],
    }
}

/// Values around a mean, the same spread for each; the mean is exact.
fn accuracy(mean: f64, turn: usize) -> Accuracy {
    let spread = [[-1.5, 0.25, 1.25], [0.5, -1.25, 0.75], [1.0, 0.75, -1.75]][turn % 3];
    Accuracy::new(spread.map(|shift| mean + shift).to_vec())
}

fn network(model: Method, grey: f64) -> Vec<Outcome> {
    let mut outcomes = vec![];
    for space in [Space::Embedding, Space::Projection] {
        for (turn, color) in [Color::Rgb, Color::Grey].into_iter().enumerate() {
            let level = if color == Color::Rgb { 40.0 + 0.55 * grey } else { grey };
            for (view, patches, less) in [
                (View::Patches, 1, 12.0),
                (View::Patches, 4, 5.0),
                (View::Patches, 16, 1.0),
                (View::Patches, 25, 0.0),
                (View::Whole, 1, 3.0),
            ] {
                if model != Method::Random || space == Space::Embedding {
                    let level = level - less - if space == Space::Projection { 2.0 } else { 0.0 };
                    let knn = accuracy(level, turn + model as usize);
                    let linear = accuracy(level + 6.0, turn + patches);
                    outcomes.push(Outcome { model, space, color, view, patches, knn, linear });
                }
            }
        }
    }
    outcomes
}

fn inputs() -> Vec<Outcome> {
    let figures = [
        (Method::Pixels, Color::Rgb, 29.6, 26.7),
        (Method::Pixels, Color::Grey, 16.3, 14.4),
        (Method::Histogram, Color::Rgb, 63.3, 63.0),
        (Method::Histogram, Color::Grey, 33.7, 31.9),
    ];
    let outcome = |(model, color, knn, linear)| {
        let (knn, linear) = (Accuracy::new(vec![knn]), Accuracy::new(vec![linear]));
        Outcome { model, space: Space::Input, color, view: View::Whole, patches: 1, knn, linear }
    };
    figures.map(outcome).to_vec()
}

fn convergence(model: Method, level: f64) -> Vec<Convergence> {
    let seed = |seed: usize| {
        let at = |&patches: &usize| {
            let cosine = 1.0 - (1.05 - 0.9 * level) / (patches as f64).sqrt() - 0.01 * seed as f64;
            ConvergencePoint { patches, cosine, deviation: 0.1 / (patches as f64).sqrt(), distance: 1.0 - cosine }
        };
        [1, 2, 4, 8, 16, 25].iter().map(at).collect()
    };
    Convergence::from_seeds(model, &[seed(0), seed(1), seed(2)])
}

/// Features of a given rank, before and after the projector.
fn health(rank: usize) -> BTreeMap<Space, Health> {
    let of = |dim: usize| {
        let mut random = Address::default().stream(Purpose::Evaluation);
        let mut normal = move || random.normal_pair().0;
        let basis: Vec<f64> = (0..rank * dim).map(|_| normal()).collect();
        let mut row = || -> Vec<f32> {
            let shares: Vec<f64> = (0..rank).map(|_| normal()).collect();
            let value = |d: usize| shares.iter().enumerate().map(|(r, share)| share * basis[r * dim + d]).sum::<f64>();
            (0..dim).map(|d| value(d) as f32).collect()
        };
        let values = (0..120).flat_map(|_| row()).collect();
        let images: Vec<u32> = (0..30).collect();
        let features = Features::new(FeatureLayer::Embedding, Rows { values, dim }, 4, images.clone(), images);
        Health::new(&features.expect("made-up features are finite"))
    };
    [(Space::Embedding, 64), (Space::Projection, 128)].map(|(space, dim)| (space, of(dim))).into()
}

fn curve(model: Method, seed: u64) -> Curve {
    let offset = if model == Method::Bagssl { 0.0 } else { 0.07 };
    let point = |epoch: u64| {
        let left = (-(epoch as f64) / 8.0).exp() + 0.01 * ((epoch * (seed + 3)) as f64).sin();
        let (invariance, share) = (0.85 - 0.4 * left - offset, 0.9 - 0.6 * left);
        let figures = [
            ("invariance", invariance),
            ("tcr_share", share),
            ("loss", -60.0 * invariance - 110.0 * share),
            ("rate", 0.002 * 0.5 * (1.0 + (epoch as f64 / 24.0 * 3.1).cos())),
        ];
        let figures = figures.map(|(name, value)| (name.to_string(), value)).into();
        CurvePoint { step: epoch * 9, epoch: epoch as f64, figures }
    };
    Curve { model, seed, points: (1..=24).map(point).collect() }
}

fn data() -> Data {
    Data {
        name: "photo-tiles-mini".into(),
        fingerprint: "8f3a61c2".into(),
        train_images: 900,
        test_images: 270,
        classes: CLASSES.map(String::from).to_vec(),
        attribution: vec!["Photographs: A. Nobody, CC-BY-4.0.".into(), "Others: CC0.".into()],
    }
}

fn protocol() -> Vec<Note> {
    let note = |name: &str, text: &str| Note { name: name.into(), text: text.into() };
    vec![
        note("training", "patches of 32 of the 64 pixels at 16x16, 8 of each image, 24 epochs"),
        note("patches", "a grid of 5 x 5 patches of 32 pixels, stride 8; fewer: the first of a random order"),
        note("kNN", "cosine, k = 20, T = 0.07"),
        note("linear", "multinomial logistic regression on standardized features, C = 1, L-BFGS to the optimum"),
    ]
}

/// A made-up picture: stripes whose direction and color tell the class.
fn tile(class: usize, image: u32, patch: Option<u32>) -> Tile {
    let (height, width) = if patch.is_some() { (16, 16) } else { (48, 64) };
    let shift = f64::from(image * 5 + patch.unwrap_or(0) * 3);
    let color = |row: u32, column: u32| {
        let (row, column) = (f64::from(row), f64::from(column));
        let wave =
            |k: f64| (((row * class as f64 + column * (3.0 - class as f64)) / 6.0 + shift + k).sin() + 1.0) / 2.0;
        [0.0, 0.7, 1.4 + class as f64].map(|k| (wave(k) * 255.0) as u8)
    };
    let pixels = (0..height).flat_map(|row| (0..width).flat_map(move |column| color(row, column))).collect();
    let thumbnail = Thumbnail::new(height, width, pixels).expect("as many pixels as the size says");
    Tile { image, patch, class: CLASSES[class].into(), thumbnail }
}

fn sheet(space: Space) -> Sheet {
    let near = |class: usize, number: u32| {
        let class = if number % 3 == 2 { (class + 1) % CLASSES.len() } else { class };
        (tile(class, 40 + number, Some(number)), 0.99 - 0.03 * number as f32)
    };
    let row = |class: usize| SheetRow {
        query: tile(class, class as u32, Some(7)),
        neighbors: (0..7).map(|number| near(class, number)).collect(),
    };
    Sheet { model: Method::Bagssl, space, rows: (0..CLASSES.len()).map(row).collect() }
}

/// A claim with a table, a plot and a sheet of two rows, the second of which has one neighbor more.
fn claim() -> ClaimSection {
    let cells = |cells: [&str; 3]| cells.map(String::from).to_vec();
    let row = |class: usize, neighbors: u32| SheetRow {
        query: tile(class, 10 + class as u32, Some(4)),
        neighbors: (0..neighbors)
            .map(|near| (tile(1 - class, 20 + near, Some(near)), 0.9 - 0.1 * near as f32))
            .collect(),
    };
    let block = Block {
        title: "Where <i>a patch</i> lies".into(),
        text: vec!["Nothing but made-up numbers.".into()],
        tables: vec![TextTable {
            caption: "Adjacent, in percent.".into(),
            head: cells(["checkpoint", "feature", "adjacent %"]),
            rows: vec![cells(["bagssl", "embedding", "61.5"]), cells(["bagssl", "projection", "48.0"])],
            text_columns: 2,
        }],
        plots: vec![LinePlot {
            title: "Adjacent, against patches".into(),
            lines: vec![("embedding, \"x\"".into(), vec![(1.0, 50.0, 0.0), (4.0, 61.5, 0.5)])],
            ..LinePlot::default()
        }],
        sheets: vec![PatchSheet { title: "bagssl, embedding".into(), rows: vec![row(0, 2), row(1, 3)] }],
        ..Block::default()
    };
    ClaimSection {
        name: "locality".into(),
        title: "Claim 3: where a patch lies".into(),
        setup: vec!["Grey images, a grid of 3 x 3 patches.".into()],
        page: Page {
            title: "Locality".into(),
            lead: vec!["The embedding tells more: 61.5 %.".into()],
            blocks: vec![block],
            origins: vec!["protocol bagssl".into()],
        },
        data: serde_json::json!({"adjacent": {"embedding": 61.5, "projection": 48.0}}),
    }
}
