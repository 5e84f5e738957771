//! Training on several devices, here workers on one CPU.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use crate::support::bagssl;
use safetensors::SafeTensors;

fn train(folder: &Path, out: &str, more: &[&str]) -> Output {
    let tiny = ["train", "--patches", "2", "--epochs", "1", "--json", "--out", out];
    bagssl(folder, &[&tiny[..], more].concat())
}

/// The loss of each step.
fn losses(folder: &Path, out: &str) -> Vec<f64> {
    let lines = fs::read_to_string(folder.join(out).join("metrics.jsonl")).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

#[test]
fn several_devices_take_the_steps_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (out, devices) in [("one", "1"), ("three", "3")] {
        let output = train(here, out, &["--images", "60", "--devices", devices]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let [one, three] = ["one", "three"].map(|out| losses(here, out));
    assert!(one.len() > 3 && one.len() == three.len(), "{one:?} {three:?}");
    // Rounding grows from step to step.
    let apart = one.iter().zip(&three).map(|(one, three)| (one - three).abs() / one.abs());
    assert!(
        apart.clone().take(1).all(|apart| apart < 1e-5) && apart.clone().all(|apart| apart < 1e-2),
        "{one:?} {three:?}"
    );
    let [one, three] = ["one", "three"].map(|out| fs::read(here.join(out).join("checkpoint.safetensors")).unwrap());
    let names = |bytes: &[u8]| {
        let tensors = SafeTensors::deserialize(bytes).unwrap();
        tensors.names().into_iter().map(String::from).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&one), names(&three));
    // Where it was stopped it goes on, with any number of devices.
    let output = train(here, "three", &["--images", "60", "--devices", "2"]);
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["resumed_at_step"], done["steps"]);
}

#[test]
fn device_failure_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (devices, words) in
        [("0", "expected at least 1"), ("7", "expected a divisor of the 60 images"), ("120", "divisor")]
    {
        let output = train(here, "run", &["--images", "60", "--devices", devices]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words) && text.trim_end().lines().count() == 1, "{text}");
    }
    // Each image stands in some worker's part: whoever meets the broken one, its name is what is said.
    fs::create_dir_all(here.join("p/train/a")).unwrap();
    for number in 0..4 {
        image::RgbImage::new(40, 36).save(here.join(format!("p/train/a/{number}.png"))).unwrap();
    }
    fs::write(here.join("p/train/a/4.png"), "no image").unwrap();
    fs::write(here.join("p/train/a/5.png"), "no image").unwrap();
    let output = train(here, "bad", &["--data", "p", "--images", "6", "--devices", "3"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| !line.starts_with("data: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(".png"), "{text}");
}
