//! `--profile`: a Chrome trace and a table, on a CPU.

use std::fs;

use serde_json::Value;

use crate::support::{bagssl, refused};

/// The milliseconds of a step, and the sum of those of the operations within.
fn milliseconds(profile: &Value) -> [f64; 2] {
    let operations = profile["operations"].as_object().unwrap().values();
    [profile["step_ms"].as_f64().unwrap(), operations.map(|operation| operation["host_ms"].as_f64().unwrap()).sum()]
}

#[test]
fn a_benchs_profile_is_of_its_timed_steps() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let command = [
        "bench",
        "train",
        "--backend",
        "ndarray",
        "--images",
        "4",
        "--patches",
        "2",
        "--steps",
        "2",
        "--profile",
        "t.json",
    ];
    let output = bagssl(here, &[&command[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let profile = &told["profile"];
    assert_eq!(profile["steps"], 2);
    // ResNet-small has 9 convolutions and, with the projector's, 10 norms; the first needs no gradient of its input.
    for (name, calls) in [
        ("convolution", 9.0),
        ("convolution, gradient of its input", 8.0),
        ("convolution, gradient of its weight", 9.0),
        ("batch norm", 10.0),
        ("batch norm, its gradients", 10.0),
        ("forward", 1.0),
        ("loss", 1.0),
        ("backward", 1.0),
        ("optimizer", 1.0),
    ] {
        assert_eq!(profile["operations"][name]["calls"], calls, "{name}: {profile}");
    }
    let [whole, parts] = milliseconds(profile);
    assert!(parts > 0.0 && parts <= 1.001 * whole, "{parts} of {whole} ms");

    let trace: Value = serde_json::from_slice(&fs::read(here.join("t.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let spans = |name: &str| -> Vec<[f64; 2]> {
        let of = events.iter().filter(|event| event["ph"] == "X" && event["name"] == name);
        of.map(|event| ["ts", "dur"].map(|key| event[key].as_f64().unwrap())).collect()
    };
    let (backward, convolutions) = (spans("backward"), spans("convolution, gradient of its weight"));
    assert_eq!((backward.len(), convolutions.len()), (2, 18));
    let is_within =
        |[at, takes]: &[f64; 2]| backward.iter().any(|[begin, long]| at >= begin && at + takes <= begin + long + 1e-3);
    assert!(convolutions.iter().all(is_within), "{backward:?} {convolutions:?}");
    // What is there stays.
    refused(here, &command, &["--profile", "t.json", "already exists"]);
}

#[test]
fn a_training_tells_where_its_time_goes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let command = ["train", "--patches", "2", "--epochs", "1", "--images", "60", "--out", "run", "--profile", "t.json"];
    let output = bagssl(here, &command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("profile of ") && text.contains("wait for a batch") && text.contains("all else"), "{text}");
    assert!(fs::metadata(here.join("t.json")).unwrap().len() > 1000);
    refused(here, &["train", "--out", "no/run", "--profile", "no/t.json"], &["--profile", "expected a folder"]);
    refused(here, &["train", "--devices", "2", "--profile", "d.json"], &["--profile", "one device"]);
}
