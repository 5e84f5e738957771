//! The report of the sample: its JSON, its sentences, and pages that hold nothing foreign.

use bagssl_eval::report::{Method, Report, View};
use bagssl_eval::stats::accuracy_standard_error;
use serde_json::Value;

use crate::sample;

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
    assert_eq!(read.sheets[1].rows[2].neighbors.len(), 7);
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
    assert!((headline.standard_error.unwrap() - accuracy_standard_error(46.0, 270)).abs() < 1e-9);
    let text = headline.sentences(&report).join(" ");
    for part in [
        "46.0 %",
        "28.0 %",
        "a gain of 18.0 points",
        "270 test images",
        "about 3.0 points",
        "above the 63.0 %",
        "is healthy",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn one_seed_has_no_interval_and_a_missing_side_no_sentence() {
    let mut report = sample::report();
    report.results.retain(|outcome| outcome.model != Method::Random);
    report.results.iter_mut().for_each(|outcome| outcome.knn.values.truncate(1));
    let headline = report.headline();
    assert!(headline.random.is_none());
    assert!(headline.multi_scale.as_ref().unwrap().difference.is_none());
    assert!(headline.sentences(&report).iter().any(|sentence| sentence.contains("no interval: one seed")));
}

/// What a page that stands alone never holds: addresses, programs, other files, and numbers that are none.
fn forbidden(html: &str) -> Option<&'static str> {
    let forbidden = ["http:", "https:", "<script", "<link", "@import", "url(", "NaN", "inf\""];
    forbidden.into_iter().find(|part| html.contains(part))
}

/// A report, and a page of its own.
#[test]
fn pages_need_nothing_else_and_run_nothing() {
    let report = sample::report();
    for html in [report.html().unwrap(), report.claims[0].page.html().unwrap()] {
        assert_eq!(forbidden(&html), None);
        assert!(html.contains("src=\"data:image/png;base64,") && html.contains("<svg"));
    }
    assert_eq!(forbidden("<img src=\"https://x.org/a.png\">"), Some("https:"));
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

/// The section of a claim: what leads it, how it was looked at, its table, and its pictures row by row: the query, then its
/// neighbors, the nearest first.
#[test]
fn a_claim_is_a_section() {
    let report = sample::report();
    let html = report.html().unwrap();
    let section = html.split("<section").find(|section| section.contains("<h2>Claim 3")).unwrap();
    let parts = [
        "<h2>Claim 3: where a patch lies</h2>",
        "The embedding tells more",
        "Grey images",
        "Where &lt;i&gt;a patch&lt;/i&gt; lies",
        "<svg",
        "<td>projection</td>",
        "<h3>bagssl, embedding</h3>",
        "protocol bagssl",
    ];
    let places: Vec<usize> = parts.iter().map(|part| section.find(part).unwrap_or_else(|| panic!("{part}"))).collect();
    assert!(places.is_sorted(), "{places:?}");
    let hint = |picture: &str| picture.split(" alt=\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    let rows: Vec<Vec<String>> = section
        .split("<div class=\"row\">")
        .skip(1)
        .map(|row| row.split("<img ").skip(1).map(hint).collect())
        .collect();
    let [first, second] = ["00-picture-0b", "06-picosdeeuropa"];
    let near = |class: &str, number: u32| format!("{class}, image {}, patch {number}", 20 + number);
    assert_eq!(rows[0], [format!("{first}, image 10, patch 4"), near(second, 0), near(second, 1)]);
    assert_eq!(rows[1], [format!("{second}, image 11, patch 4"), near(first, 0), near(first, 1), near(first, 2)]);
    assert_eq!(rows.len(), 2);

    let markdown = report.markdown().unwrap();
    assert!(markdown.contains("## Claim 3: where a patch lies\n\nThe embedding tells more: 61.5 %.\n\nGrey images"));
    assert!(markdown.contains("### Where \\<i\\>a patch\\</i\\> lies\n\n") && markdown.contains("| 61.5 |"));
    let json: Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["claims"][0]["data"]["adjacent"]["projection"], 48.0);
    assert!(json["claims"][0].get("page").is_none());
}

/// A report of before there were claims.
#[test]
fn claims_may_be_missing() {
    let mut json: Value = serde_json::from_str(&sample::report().json()).unwrap();
    json.as_object_mut().unwrap().remove("claims");
    assert!(serde_json::from_value::<Report>(json).unwrap().claims.is_empty());
}

/// Every training has a row against BagSSL, in its own line.
#[test]
fn every_training_is_compared() {
    let mut report = sample::report();
    let baselines: Vec<_> = report.results.iter().filter(|it| it.model == Method::MultiScale).cloned().collect();
    for (model, less) in [(Method::Simclr, 7.0), (Method::BagsslVicreg, 3.0)] {
        report.results.extend(baselines.iter().cloned().map(|mut outcome| {
            outcome.model = model;
            outcome.knn.mean -= less;
            outcome
        }));
    }
    let markdown = report.markdown().unwrap();
    // BagSSL has 46, the multi-scale baseline 44, on grey images over all patches.
    let row = |model: &str, points: &str| format!("| {model} | grey | all patches | kNN | {points} |");
    for row in [row("multi-scale", "+2.0"), row("BagSSL-VICReg", "+5.0"), row("SimCLR", "+9.0")] {
        assert!(markdown.contains(&row), "{row} in {markdown}");
    }
    assert!(!markdown.contains("| VICReg |"));
    assert!(report.html().unwrap().contains("key c5") && report.headline() == sample::report().headline());
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
    assert_eq!(written.len(), 7);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 7, "nothing is left beside them");
    let markdown = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert!(
        markdown.contains("| BagSSL | embedding | 25\u{a0}patches |")
            && markdown.contains("| raw pixels | input | whole |")
    );
    let csv = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    assert_eq!(csv.lines().count(), report.results.len() + 1);
    assert!(csv.lines().any(|line| line.starts_with("bagssl,embedding,grey,patches,25,46,")), "{csv}");
    assert!(report.results.iter().any(|outcome| outcome.view == View::Whole));
    let points = "claim,plot,line,x,y,band,name\n\
                  locality,\"Adjacent, against patches\",\"embedding, \"\"x\"\"\",1,50,0,\n\
                  locality,\"Adjacent, against patches\",\"embedding, \"\"x\"\"\",4,61.5,0.5,\n";
    assert_eq!(std::fs::read_to_string(folder.path().join("claims.csv")).unwrap(), points);
    let gone = folder.path().join("not there");
    let error = report.write(&gone).unwrap_err().to_string();
    assert!(error.contains("not there") && !error.contains('\n'), "{error}");
}
