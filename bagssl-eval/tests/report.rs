//! The report of the sample: its JSON, its sentences, and pages that hold nothing foreign.

#[path = "../examples/report/sample.rs"]
mod sample;

use bagssl_eval::report::{Model, Report, View};
use bagssl_eval::stats::accuracy_error;
use serde_json::Value;

#[test]
fn the_json_has_the_agreed_fields() {
    let json: Value = serde_json::from_str(&sample::report().json()).unwrap();
    assert_eq!(json["profile"], "tiles");
    assert_eq!(json["seeds"], serde_json::json!([0, 1, 2]));
    assert!(
        json["chance"].is_f64()
            && json["total_seconds"].is_f64()
            && json["health"]["multi-scale"]["projection"]["effective_rank"].is_f64()
    );
    for result in json["results"].as_array().unwrap() {
        let one_of = |field: &str, names: &[&str]| assert!(names.contains(&result[field].as_str().unwrap()), "{field}");
        one_of("model", &["bagssl", "multi-scale", "random", "pixels", "histogram"]);
        one_of("space", &["embedding", "projection", "input"]);
        one_of("colour", &["rgb", "grey"]);
        one_of("view", &["patches", "whole"]);
        assert!(result["patches"].is_u64());
        for protocol in ["knn", "linear"] {
            assert!(result[protocol]["mean"].is_f64() && result[protocol]["std"].is_f64());
        }
    }
    let first = &json["convergence"][0];
    assert!(first["model"].is_string() && first["patches"].is_u64() && first["cosine"].is_f64());
    assert_eq!(json["results"][0]["model"], "bagssl");
}

#[test]
fn the_json_is_read_again() {
    let report = sample::report();
    let mut read: Report = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(read.seeds, report.seeds);
    assert_eq!(read.results.len(), report.results.len());
    assert_eq!(read.sheets[1].rows[2].neighbours.len(), 7);
    assert!(read.html().is_err(), "pixels are not in it");
    (read.tiles, read.bags, read.sheets) = Default::default();
    assert!(read.html().unwrap().contains("a gain of 18.0 points"));
}

#[test]
fn the_headline_is_computed() {
    let report = sample::report();
    let headline = report.headline();
    let gain = headline.random.clone().unwrap().difference.unwrap();
    assert!((gain.mean - 18.0).abs() < 1e-9 && gain.low < 18.0 && gain.high > 18.0, "{gain:?}");
    assert!((headline.standard_error.unwrap() - accuracy_error(46.0, 270)).abs() < 1e-9);
    let text = headline.sentences(&report).join(" ");
    for part in [
        "46.0 %",
        "28.0 %",
        "a gain of 18.0 points",
        "270 test images",
        "near 3.0 points",
        "above the 63.0 %",
        "is healthy",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn one_seed_has_no_interval_and_a_missing_side_no_sentence() {
    let mut report = sample::report();
    report.results.retain(|outcome| outcome.model != Model::Random);
    report.results.iter_mut().for_each(|outcome| outcome.knn.values.truncate(1));
    let headline = report.headline();
    assert!(headline.random.is_none());
    assert!(headline.multi_scale.as_ref().unwrap().difference.is_none());
    assert!(headline.sentences(&report).iter().any(|sentence| sentence.contains("no interval: one seed")));
}

#[test]
fn the_page_needs_nothing_else_and_runs_nothing() {
    let html = sample::report().html().unwrap();
    for foreign in ["http:", "https:", "<script", "<link", "@import", "url(", "NaN", "inf\""] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert!(html.contains("src=\"data:image/png;base64,") && html.contains("<svg"));
}

#[test]
fn names_are_escaped() {
    let report = sample::report();
    let html = report.html().unwrap();
    assert!(html.contains("&lt;i&gt;R&amp;D&lt;/i&gt; &quot;x&quot;") && !html.contains("<i>R"));
    let mut hostile = report;
    hostile.data.name = "<script>alert(1)</script>|".into();
    assert!(!hostile.html().unwrap().contains("<script") && !hostile.markdown().unwrap().contains(" <script"));
}

/// Every element that is opened is closed, in the right order.
#[test]
fn elements_are_balanced() {
    let html = sample::report().html().unwrap();
    let mut open: Vec<&str> = vec![];
    let body = &html[html.find("<body>").unwrap()..];
    for tag in body.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), (closed != "html").then_some(closed));
        } else if !tag.ends_with('/') && name != "img" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn an_empty_report_is_a_page_too() {
    let report = Report::default();
    assert!(report.html().unwrap().contains("<h1>") && report.markdown().unwrap().starts_with("# "));
    assert!(report.headline().sentences(&report).is_empty());
}

#[test]
fn files_are_written_and_old_ones_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let report = sample::report();
    std::fs::write(folder.path().join("report.md"), "old").unwrap();
    let written = report.write(folder.path()).unwrap();
    assert_eq!(written.len(), 6);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6, "nothing is left beside them");
    let markdown = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert!(
        markdown.contains("| BagSSL | embedding | 25\u{a0}patches |")
            && markdown.contains("| raw pixels | input | whole |")
    );
    let csv = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    assert_eq!(csv.lines().count(), report.results.len() + 1);
    assert!(csv.lines().any(|line| line.starts_with("bagssl,embedding,grey,patches,25,46,")), "{csv}");
    assert!(report.results.iter().any(|outcome| outcome.view == View::Whole));
    let gone = folder.path().join("not there");
    let error = report.write(&gone).unwrap_err().to_string();
    assert!(error.contains("not there") && !error.contains('\n'), "{error}");
}
