//! The claims of the paper on a checkpoint, at a tiny size.

use bagssl::claims::Aggregation;
use bagssl::claims::Compare;
use bagssl::claims::Convergence;
use bagssl::claims::Cooccurrence;
use bagssl::claims::Locality;
use bagssl::claims::{Claim, NO_PROJECTOR};
use bagssl::{Color, Encoder, Error, EvalOptions, FeatureLayer, Model, Patches};

use crate::support::{GOLDEN, four_patches, photographs};

const LAYERS: [FeatureLayer; 3] = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];

/// Results that are stored as JSON are read back as the same JSON. Values are compared, as text rounds them.
#[track_caller]
fn stored<R: serde::Serialize + serde::de::DeserializeOwned>(report: &R) {
    let json = serde_json::to_value(report).unwrap();
    let read: R = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), json);
}

/// Aggregation and compare measure what an evaluation measures, too.
#[test]
fn accuracies_are_those_of_an_evaluation() {
    let (encoder, splits, options) = (Encoder::load_layers(GOLDEN, &LAYERS).unwrap(), photographs(), four_patches());
    let evaluation = encoder.evaluate(&splits, &options).unwrap();
    let expected = evaluation.mean_of_patches(FeatureLayer::Projection, Color::Rgb).unwrap();
    let models = [encoder.model("golden")];
    let report = Aggregation { only_knn: false, color: Color::Rgb }.check(&models, &splits, &options).unwrap();
    let rows = &report.checkpoints[0].rows;
    assert_eq!(rows.len(), 3 * 7, "three layers; center, whole, 1 and 4 of a grid and at random, pooled");
    let row = rows.iter().find(|row| (row.layer, row.view.as_str()) == (FeatureLayer::Projection, "4 of the grid"));
    let row = row.unwrap();
    assert_eq!((row.knn.percent, row.linear.as_ref().unwrap().percent), (expected.knn, expected.linear));
    assert_eq!(row.knn.interval, expected.details.as_ref().unwrap()[0].interval);
    let page = report.page(&options.protocol);
    assert!(page.lead[0].starts_with("golden: kNN of the embedding"), "{}", page.lead[0]);
    stored(&report);

    let expected = evaluation.mean_of_patches(FeatureLayer::Embedding, Color::Rgb).unwrap();
    let other = Model { name: "other".into(), ..models[0].clone() };
    let report = Compare::default().check(&[models[0].clone(), other], &splits, &options).unwrap();
    let measured = report.methods[0].measures.iter().find(|it| (&*it.classifier, &*it.view) == ("kNN", "patches"));
    assert!((measured.unwrap().mean - expected.knn).abs() < 1e-9);
    assert_eq!(report.origins.len(), 2);
    assert!(report.page(&options.protocol).lead[0].contains("averaged over 4 patches"));
    stored(&report);
}

/// Photographs are square, so that the center crop is the whole image. In grayscale, the curve is another one.
#[test]
fn convergence_is_that_of_an_evaluation() {
    let (encoder, splits, options) = (Encoder::load(GOLDEN).unwrap(), photographs(), four_patches());
    let expected = encoder.evaluate(&splits, &options).unwrap().convergence;
    let report = Convergence::default().check(&[encoder.model("golden")], &splits, &options).unwrap();
    let model = &report.checkpoints[0];
    assert_eq!((&model.whole, &model.center), (&expected, &expected));
    assert!(model.cosine_between_images.unwrap() < model.whole[2].cosine, "{model:?}");
    assert!(report.page().lead[0].starts_with("golden: the mean of 4 patches"));
    stored(&report);
    let grey = Convergence { color: Color::Grey }.check(&[encoder.model("golden")], &splits, &options).unwrap();
    assert_ne!(grey.checkpoints[0].whole, expected);
}

/// In a grid of 2 x 2 patches, all are adjacent.
#[test]
fn locality_needs_a_grid() {
    let (encoder, splits, options) = (Encoder::load_layers(GOLDEN, &LAYERS).unwrap(), photographs(), four_patches());
    let model = encoder.model("golden");
    let report = Locality::default().check(std::slice::from_ref(&model), &splits, &options).unwrap();
    let found = &report.checkpoints[0];
    assert_eq!((found.grid, found.layers.len(), found.neighbors.len()), ([2, 2], 3, 3));
    assert!(found.layers.values().all(|layer| (layer.adjacent, layer.adjacent_by_chance) == (100.0, 100.0)));
    let page = report.page(&splits, Color::Rgb, options.seed).unwrap();
    let rows: Vec<usize> = page.blocks[1].sheets.iter().map(|sheet| sheet.rows.len()).collect();
    assert_eq!(rows, [6; 3], "a sheet per layer");
    stored(&report);

    let without = Model { has_projector: false, ..model.clone() };
    let report = Locality::default().check(&[without], &splits, &options).unwrap();
    assert!(report.page(&splits, Color::Rgb, options.seed).unwrap().lead[0].contains(NO_PROJECTOR));
    let random = EvalOptions { patches: Some(Patches::Random(2)), ..options };
    assert!(matches!(Locality::default().measure(&model, &splits, &random), Err(Error::NoGrid)));
    assert!(matches!(Aggregation::default().measure(&model, &splits, &random), Err(Error::NoGrid)));
}

/// The optimum keeps the greatest eigenvalues: minus the sum of their squares over 4 lambda, for lambda = 1 / 2.
#[test]
fn cooccurrence_without_a_model() {
    let world = Cooccurrence { patches: 12, kinds: 4, dim: 3, starts: 2, ..Cooccurrence::default() };
    let report = world.check().unwrap();
    assert!(report.holds && report.worst_excess <= 0.01 && report.worlds.len() == 2);
    let squares: f64 = report.worlds[0].eigenvalues[..3].iter().map(|value| value * value).sum();
    assert!((report.worlds[0].optimum + squares / 2.0).abs() < 1e-9);
    assert_eq!(report.worlds[0].trained.len(), 2);
    assert!(report.page(&world).lead[1].starts_with("12 patches, 4 kinds of images"));
    stored(&report);
    for bad in [Cooccurrence { starts: 0, ..world }, Cooccurrence { weight: f64::NAN, ..world }] {
        assert!(matches!(bad.check(), Err(Error::Setting { .. })));
    }
}
