//! Agreement with scikit-learn; `reference/classifiers.py` made the expected values.

use bagssl_core::embed::Rows;
use bagssl_eval::Confusion;
use bagssl_eval::Knn;
use bagssl_eval::Samples;
use bagssl_eval::{Linear, Logistic};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    dim: usize,
    train: Vec<f32>,
    train_labels: Vec<u32>,
    test: Vec<f32>,
    test_labels: Vec<u32>,
    strength: f64,
    probabilities: Vec<f64>,
    logistic_accuracy: f64,
    #[serde(rename = "neighbours")]
    neighbors: usize,
    temperature: f64,
    knn_predictions: Vec<u32>,
    knn_accuracy: f64,
    knn_top5: f64,
    knn_confusion: Vec<Vec<u64>>,
    logistic_top5: f64,
}

impl Case {
    fn samples(&self) -> (Samples, Samples) {
        let samples = |values: &[f32], labels: &[u32]| {
            Samples::new(Rows { values: values.to_vec(), dim: self.dim }, labels.to_vec()).unwrap()
        };
        (samples(&self.train, &self.train_labels), samples(&self.test, &self.test_labels))
    }
}

fn cases() -> Vec<Case> {
    let reference: Reference = serde_json::from_str(include_str!("reference/classifiers.json")).unwrap();
    assert_eq!(reference.cases.len(), 4);
    reference.cases
}

#[test]
fn logistic_regression_agrees() {
    for case in cases() {
        let (train, test) = case.samples();
        let logistic = Logistic { strength: case.strength, tolerance: 1e-9, ..Logistic::default() };
        let model = logistic.fit(&train).unwrap();
        let probabilities = model.probabilities(test.rows()).unwrap();
        assert_eq!(probabilities.len(), case.probabilities.len());
        let largest = probabilities.iter().zip(&case.probabilities).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest < 2e-6, "{} dimensions: {largest}", case.dim);
        let score = Linear::Logistic(logistic).evaluate(&train, &test).unwrap();
        assert!((score.accuracy - case.logistic_accuracy).abs() < 1e-9);
        assert!((score.top5 - case.logistic_top5).abs() < 1e-9, "{}", score.top5);
    }
}

#[test]
fn nearest_neighbors_agree() {
    for case in cases() {
        let (train, test) = case.samples();
        let score = Knn { neighbors: case.neighbors, temperature: case.temperature }.evaluate(&train, &test).unwrap();
        assert_eq!(score.predictions, case.knn_predictions, "{} dimensions", case.dim);
        assert!((score.accuracy - case.knn_accuracy).abs() < 1e-9);
        assert!((score.top5 - case.knn_top5).abs() < 1e-9, "{}", score.top5);
        let confusion = Confusion::new(&score.predictions, test.labels()).unwrap();
        assert_eq!(confusion.counts, case.knn_confusion);
    }
}
