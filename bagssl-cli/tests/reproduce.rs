//! The whole job on a tiny data set: each claim is a section of its report, and what is done is not done again.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{names, prints, refused, unread};
use image::{Rgb, RgbImage};
use serde_json::Value;

/// Three classes of stripes, 20 training and 4 test images each. They are wider than high: of 64 by 80 pixels the grid of the claims
/// has 3 rows and 4 columns.
fn stripes(folder: &Path) {
    for (half, count) in [("train", 20_u32), ("val", 4)] {
        for (class, name) in ["level", "steep", "slant"].into_iter().enumerate() {
            let place = folder.join("stripes").join(half).join(name);
            fs::create_dir_all(&place).unwrap();
            for number in 0..count {
                let image = RgbImage::from_fn(80, 64, |x, y| {
                    let along = [y, x, x + y][class] + 3 * number;
                    Rgb([(along * 23 % 256) as u8, (along * 11 % 256) as u8, (x * y % 97) as u8])
                });
                image.save(place.join(format!("{number}.png"))).unwrap();
            }
        }
    }
}

const CLAIMS: [(&str, &str); 5] = [
    ("compare", "Claims 0 and 5"),
    ("aggregation", "Claim 1"),
    ("convergence", "Claim 2"),
    ("locality", "Claim 3"),
    ("cooccurrence", "Claim 4"),
];

#[test]
fn claims_are_sections_and_are_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    stripes(here);
    let call = |more: &[&str]| {
        let run = ["reproduce", "--data", "stripes", "--epochs", "1", "--seeds", "2", "--methods", "simclr,bagssl"];
        // Claims that run at the same time look at the same features, which are kept.
        prints(here, &[&run[..], &["--jobs", "2", "--features", "kept", "--out", "out"], more].concat())
    };

    let [plan, _] = call(&["--dry-run"]);
    for (name, _) in CLAIMS {
        assert!(plan.contains(&format!("claim {name}: to be done")), "{name} in {plan}");
    }
    assert!(plan.contains("train and evaluate simclr seed 1: to be done") && plan.contains("time: about"), "{plan}");
    assert!(!plan.contains("multi-scale") && !here.join("out").exists(), "{plan}");
    assert!(plan.contains("features: at most about ") && !here.join("kept").exists(), "{plan}");

    let [_, progress] = call(&[]);
    assert!(progress.contains("[5/5] claim "), "{progress}");
    let html = fs::read_to_string(here.join("out/report.html")).unwrap();
    let markdown = fs::read_to_string(here.join("out/report.md")).unwrap();
    let report: Value = serde_json::from_slice(&fs::read(here.join("out/report.json")).unwrap()).unwrap();
    for (number, (name, title)) in CLAIMS.into_iter().enumerate() {
        assert!(html.contains(&format!("<h2>{title}: ")) && markdown.contains(&format!("## {title}: ")), "{name}");
        assert_eq!(report["claims"][number]["name"], name);
    }
    let data = |claim: usize| &report["claims"][claim]["data"];

    // The seeds of a method are joined, and the first method is bagssl, whichever order they are named in.
    let methods = data(0)["methods"].as_array().unwrap();
    let names: Vec<_> =
        methods.iter().map(|it| (it["name"].as_str().unwrap(), it["seeds"].as_u64().unwrap())).collect();
    assert_eq!(names, [("bagssl", 2), ("simclr", 2)]);
    assert_eq!(methods[0]["patches"], serde_json::json!([12]));
    assert_eq!(methods[0]["measures"].as_array().unwrap().len(), 2);

    // The first seed of each, in a grid of three rows and four columns; chance is 58 of 132 pairs.
    let checkpoints = data(3)["checkpoints"].as_array().unwrap();
    let names: Vec<_> = checkpoints.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bagssl-seed0", "simclr-seed0"]);
    assert_eq!(checkpoints[0]["grid"], serde_json::json!([3, 4]));
    let chance = checkpoints[0]["spaces"]["projection"]["adjacent_by_chance"].as_f64().unwrap();
    assert!((chance - 100.0 * 58.0 / 132.0).abs() < 1e-9, "{chance}");

    // Two checkpoints, three features, a row for each of three classes: the patch and nine others, never of its own image.
    let section = html.split("<section").find(|section| section.contains("<h2>Claim 3")).unwrap();
    let sheets: Vec<&str> = section.split("<h3>").skip(1).collect();
    let titles: Vec<&str> = sheets.iter().map(|sheet| sheet.split("</h3>").next().unwrap()).collect();
    assert_eq!(titles[0], "bagssl-seed0, embedding");
    assert_eq!(titles[4], "simclr-seed0, first layer of the projector");
    assert_eq!(sheets.len(), 6);
    for sheet in sheets {
        let rows: Vec<&str> = sheet.split("<div class=\"row\">").skip(1).collect();
        assert_eq!(rows.len(), 3);
        for row in rows {
            let hints: Vec<&str> = row.split(" alt=\"").skip(1).map(|hint| hint.split('"').next().unwrap()).collect();
            assert_eq!((hints.len(), hints[0].ends_with("patch 6")), (10, true), "{hints:?}");
            let image = |hint: &str| hint.split(", patch").next().unwrap().to_string();
            assert!(hints[1..].iter().all(|hint| image(hint) != image(hints[0])), "{hints:?}");
        }
        assert_eq!(sheet.matches("data:image/png;base64,").count(), 30);
    }
    let points = fs::read_to_string(here.join("out/claims.csv")).unwrap();
    assert!(points.starts_with("claim,plot,line,x,y,band,name\naggregation,"), "{points}");
    assert!(points.lines().any(|line| line.starts_with("convergence,") && line.contains(",bagssl-seed0,12,")));

    // Again: nothing but the report. A claim whose answer is damaged is looked at anew, and no other.
    let [again, progress] = call(&[]);
    assert!(again.contains("claim locality: done before") && !progress.contains("claim "), "{again} {progress}");
    fs::write(here.join("out/claims/locality/found.json"), "{").unwrap();
    let [again, progress] = call(&[]);
    assert!(again.contains("claim locality: to be redone: files have changed or are missing"), "{again}");
    assert!(progress.contains("[1/1] claim locality: "), "{progress}");
    assert_eq!(progress.matches("claim ").count(), 1, "{progress}");

    // Another method: what is new is trained, and the claims about checkpoints are looked at again; the world is as it was.
    let run = ["reproduce", "--data", "stripes", "--epochs", "1", "--seeds", "2", "--out", "out", "--methods", "all"];
    let [plan, _] = prints(here, &[&run[..], &["--dry-run"]].concat());
    assert!(plan.contains("simclr seed 1: done before") && plan.contains("vicreg seed 1: to be done"), "{plan}");
    assert!(
        plan.contains("claim compare: to be redone: waiting for trainings")
            && plan.contains("claim cooccurrence: done before"),
        "{plan}"
    );

    // Measured with another seed: nothing is trained again.
    let weights = || fs::metadata(here.join("out/bagssl-seed1/checkpoint.safetensors")).unwrap().modified().unwrap();
    let metrics = || fs::metadata(here.join("out/bagssl-seed1/metrics.jsonl")).unwrap().modified().unwrap();
    let before = (weights(), metrics());
    let run = ["reproduce", "--data", "stripes", "--epochs", "1", "--methods", "simclr,bagssl", "--out", "out"];
    let [plan, _] = prints(here, &[&run[..], &["--seed", "1", "--seeds", "1"]].concat());
    assert!(plan.contains("train and evaluate bagssl seed 1: to be redone: protocol seed is 1, was 0"), "{plan}");
    assert_eq!((weights(), metrics()), before);
    let [plan, _] = call(&["--dry-run"]);
    assert!(plan.contains("seed 0: done before") && plan.contains("disk: about 10 MB"), "{plan}");
}

#[test]
fn methods_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let with = |methods: &'static str| ["reproduce", "--dry-run", "--methods", methods];
    refused(here, &with("bagssl,simsiam"), &["--methods", "simsiam", "multi-scale", "vicreg", "simclr"]);
    refused(here, &with("simclr,vicreg"), &["--methods", "expected bagssl", "got vicreg,simclr"]);
    refused(here, &with(""), &["--methods"]);
}

/// What others have put under the names of a reproduction stays, and is named before anything is done.
#[test]
fn files_of_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    stripes(here);
    let run =
        ["reproduce", "--data", "stripes", "--epochs", "1", "--seeds", "1", "--methods", "bagssl", "--out", "out"];
    for name in [
        "report.html",
        "config.toml",
        "begun",
        "bagssl-seed0/checkpoint.safetensors",
        "bagssl-seed0/config.toml",
        "random-seed0/measured.json",
        "baselines/stage.json",
        "claims/compare/found.json",
    ] {
        let path = here.join("out").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "a friend's").unwrap();
        refused(here, &run, &[&format!("out/{name}: expected a file of a reproduction or none, got another")]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a friend's");
        fs::remove_file(&path).unwrap();
    }
    fs::remove_dir(here.join("out/baselines")).unwrap();
    fs::write(here.join("out/baselines"), "a friend's").unwrap();
    refused(here, &run, &["out/baselines: expected a folder to write to, got a file"]);
    fs::remove_file(here.join("out/baselines")).unwrap();
    // What is under no name of its own may be there.
    fs::write(here.join("out/notes.txt"), "mine").unwrap();
    prints(here, &[&run[..], &["--dry-run"]].concat());
}

/// Where nobody hears of a stage that is done, the reproduction ends, and keeps it.
#[test]
fn closed_standard_error_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    stripes(here);
    let run = ["reproduce", "--data", "stripes", "--epochs", "1", "--seeds", "1", "--methods", "bagssl", "--jobs", "1"];
    let mut program = Command::new(env!("CARGO_BIN_EXE_bagssl"));
    let status = program.args(run).args(["--out", "out"]).current_dir(here).stderr(unread()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let stages = names(&here.join("out"));
    let done = stages.iter().filter(|stage| here.join("out").join(stage).join("stage.json").exists());
    assert_eq!(done.count(), 1, "{stages:?}");
    let [plan, _] = prints(here, &[&run[..], &["--out", "out", "--dry-run"]].concat());
    assert!(plan.contains(": done before ("), "{plan}");
    // A stage that has lost its stamp is the reproduction's all the same, also if it is to be done with other settings.
    stages.iter().for_each(|stage| _ = fs::remove_file(here.join("out").join(stage).join("stage.json")));
    let mut other = run;
    other[4] = "2";
    prints(here, &[&other[..], &["--out", "out", "--dry-run"]].concat());
}

/// TOML has no larger integers, so that a run with such a seed could not be read back.
#[test]
fn all_seeds_are_checked_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let limit = "seed: expected 0 to 9223372036854775807 (the largest TOML integer), got ";
    for (first, seeds, last) in [
        ("9223372036854775808", "1", "9223372036854775808"),
        ("9223372036854775807", "3", "9223372036854775809"),
        ("9223372036854775805", "4", "9223372036854775808"),
        ("18446744073709551615", "3", "18446744073709551615"),
    ] {
        let reproduce = ["reproduce", "--seed", first, "--seeds", seeds, "--dry-run", "--out", "r"];
        refused(here, &reproduce, &[&format!("{limit}{last}")]);
    }
    refused(here, &["train", "--seed", "9223372036854775808", "--out", "r"], &[&format!("{limit}9223372036854775808")]);
    assert!(!here.join("r").exists());
}
