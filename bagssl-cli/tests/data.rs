//! What the program does with data sets: parts of them, sheets, halves.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bagssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bagssl")).args(arguments).current_dir(folder).output().unwrap()
}

#[track_caller]
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = bagssl(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(folder, &[arguments, &["--json"]].concat())).unwrap()
}

/// One line on standard error, exit code 2, nothing on standard output.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = bagssl(folder, arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(text.trim_end().lines().count(), 1, "{arguments:?}: {text}");
    assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: expected {words:?} in {text}");
}

#[test]
fn a_list_of_classes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("two.txt"), "02-wine a glass\n00-picture-0b\n").unwrap();
    let check = json(here, &["data", "check", "--classes", "two.txt"]);
    for (half, images) in [("train", 200), ("validation", 60)] {
        assert_eq!(check[half]["images"], images, "{half}");
        let classes: Vec<_> = check[half]["classes"].as_object().unwrap().keys().collect();
        assert_eq!(classes, ["00-picture-0b", "02-wine"]);
    }
    let tiny = ["--images", "100", "--patches", "2", "--epochs", "1", "--out", "run"];
    assert_eq!(json(here, &[&["train", "--classes", "two.txt"], &tiny[..]].concat())["steps"], 2);
    let eval = ["eval", "run/checkpoint.safetensors", "--classes", "two.txt", "--random", "1"];
    assert!(succeeds(here, &eval).contains("200 training and 60 test images of 2 classes (chance 50.0 %)"));

    // It belongs to what a run depends on.
    let other = [&["train"], &tiny[..]].concat();
    refused(here, &other, &["run/state.safetensors", "--force"]);
    for (text, words) in [
        ("02-whine\n", &["other.txt", "expected classes of the data set", "02-whine"][..]),
        ("02-wine\n02-wine\n", &["other.txt", "twice"]),
        ("\n", &["other.txt", "at least one class"]),
    ] {
        fs::write(here.join("other.txt"), text).unwrap();
        refused(here, &["train", "--classes", "other.txt"], words);
    }
    fs::write(here.join("other.txt"), b"\xff\n").unwrap();
    refused(here, &["data", "check", "--classes", "other.txt"], &["other.txt", "UTF-8"]);
    refused(here, &["data", "check", "--classes", "none.txt"], &["none.txt"]);
}
