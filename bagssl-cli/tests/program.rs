//! The program as a user calls it: a whole small job, and what bad input gets.

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

/// One line on standard error, exit code 2, nothing on standard output.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = bagssl(folder, arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{arguments:?}: {text}");
    assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: expected {words:?} in {text}");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn train_evaluate_embed() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = ["train", "--out", "run", "--epochs", "1", "--images", "300", "--patches", "2", "--json"];
    let done: Value = serde_json::from_str(&succeeds(here, &train)).unwrap();
    assert_eq!((done["steps"].as_u64(), done["resumed_at_step"].as_u64()), (Some(3), Some(0)));
    assert_eq!(
        names(&here.join("run")),
        ["checkpoint.safetensors", "config.toml", "metrics.jsonl", "state.safetensors"]
    );
    let metrics = fs::read_to_string(here.join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 4, "three steps and an epoch");

    // Again: nothing is left to be done. The config that it wrote is the same run; other settings are another.
    let done: Value = serde_json::from_str(&succeeds(here, &train)).unwrap();
    assert_eq!(done["resumed_at_step"].as_u64(), Some(3));
    let same = ["train", "--config", "run/config.toml", "--out", "run", "--json"];
    let checkpoint = fs::read(here.join("run/checkpoint.safetensors")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&succeeds(here, &same)).unwrap()["steps"].as_u64(), Some(3));
    let other = ["train", "--out", "run", "--epochs", "2", "--images", "300", "--patches", "2"];
    refused(here, &other, &["run/state.safetensors", "--force"]);
    assert_eq!(fs::read(here.join("run/checkpoint.safetensors")).unwrap().len(), checkpoint.len());

    let model = "run/checkpoint.safetensors";
    let eval = ["eval", model, "--random", "2", "--json"];
    let result: Value = serde_json::from_str(&succeeds(here, &eval)).unwrap();
    let scores = result["results"].as_array().unwrap();
    assert_eq!(scores.len(), 2 * 2 * 3, "two spaces, two colours; 1 patch, 2 patches, whole");
    assert!(scores.iter().all(|score| (0.0..=100.0).contains(&score["knn"].as_f64().unwrap())));

    let spec: Value = serde_json::from_str(&succeeds(here, &["inspect", model, "--json"])).unwrap();
    assert_eq!(spec["patch"]["input"], 16);
    assert!(succeeds(here, &["inspect", model, "--tensors"]).contains("encoder.layer3.0.downsample.0.weight"));

    // Two images that are not square: a row for each, and one for each patch.
    for (name, width) in [("a.png", 48), ("b.png", 40)] {
        let image = image::RgbImage::from_fn(width, 36, |x, y| image::Rgb([x as u8 * 5, y as u8 * 7, 90]));
        image.save(here.join(name)).unwrap();
    }
    succeeds(here, &["embed", model, "a.png", "b.png", "--whole", "-o", "two.npy"]);
    let array = fs::read(here.join("two.npy")).unwrap();
    assert_eq!(array.len(), 128 + 2 * 64 * 4);
    assert!(String::from_utf8_lossy(&array[..128]).contains("(2, 64)"));
    assert_eq!(fs::read_to_string(here.join("two.names.txt")).unwrap(), "a.png\nb.png\n");
    succeeds(
        here,
        &["embed", model, "a.png", "--per-patch", "--stride", "4", "-o", "patches.safetensors", "--tap", "projection"],
    );
    let bytes = fs::read(here.join("patches.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // 36x48 with patches of 32 at stride 4: 2 rows and 5 columns.
    assert_eq!(tensors.tensor("embeddings").unwrap().shape(), [10, 128]);
    refused(here, &["embed", model, "a.png", "-o", "two.npy", "--whole"], &["two.npy", "--force"]);
    refused(here, &["embed", model, "a.png", "-o", "two.txt"], &["two.txt", ".npy"]);
    refused(here, &["embed", model, "nothing.png", "-o", "x.npy"], &["nothing.png"]);
    // Images of different sizes have bags of different sizes.
    refused(here, &["embed", model, "a.png", "b.png", "--stride", "4", "-o", "x.npy"], &["b.png", "10 patches"]);
    assert!(!here.join("x.npy").exists() && !here.join("x.names.txt").exists());

    // A checkpoint that has been cut short, and one of another program.
    fs::write(here.join("short.safetensors"), &checkpoint[..checkpoint.len() / 2]).unwrap();
    refused(here, &["eval", "short.safetensors"], &["short.safetensors", "expected a safetensors file"]);
    refused(here, &["inspect", "patches.safetensors"], &["patches.safetensors", "metadata \"bagssl\""]);
}

#[test]
fn bad_input_gets_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir_all(here.join("photos/train/cat")).unwrap();
    fs::create_dir_all(here.join("photos/val/cat")).unwrap();
    let tiny = image::RgbImage::from_pixel(20, 9, image::Rgb([1, 2, 3]));
    for name in ["photos/train/cat/1.png", "photos/train/cat/2.png", "photos/val/cat/3.png"] {
        tiny.save(here.join(name)).unwrap();
    }
    refused(here, &["train", "--preset", "bagsll"], &["--preset", "bagsll", "emp-ssl-cifar"]);
    refused(here, &["train", "--data", "nowhere"], &["nowhere"]);
    refused(here, &["train", "--data", "photos", "--images", "2"], &["32x32", "9x20"]);
    refused(here, &["train", "--data", "photos"], &["batch.images", "1 to 2", "20"]);
    refused(here, &["train", "--epochs", "0"], &["schedule.epochs", "at least 1"]);
    refused(here, &["train", "--arch", "resnet19"], &["arch", "resnet19"]);
    refused(here, &["train", "--patches", "1"], &["batch.patches", "at least 2"]);
    refused(here, &["train", "--backend", "cuda"], &["cuda"]);
    fs::write(here.join("bad.toml"), "sede = 1\n").unwrap();
    refused(here, &["train", "--config", "bad.toml"], &["bad.toml"]);
    refused(here, &["eval", "nothing.safetensors"], &["nothing.safetensors"]);
    refused(here, &["eval", "photos"], &["photos", "expected a file"]);
    refused(here, &["inspect", "photos/val/cat/3.png"], &["3.png", "expected a safetensors file"]);
    refused(here, &["reproduce", "--profile", "cifar10"], &["data/cifar-10-batches-bin", "https://", "--data"]);
    refused(here, &["data", "check", "photos/train"], &["photos/train", "train/ and val/"]);
    assert_eq!(names(here), ["bad.toml", "photos"], "nothing half-done is left");

    assert!(succeeds(here, &["data", "check", "photos"]).contains("2 images of 1 classes, 0 broken"));
    fs::write(here.join("photos/val/cat/4.jpg"), "no image").unwrap();
    let broken = bagssl(here, &["data", "check", "photos"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stdout).contains("val/cat/4.jpg"));
}

#[test]
fn every_command_has_help() {
    let here = Path::new(".");
    for command in [&["train"][..], &["eval"], &["embed"], &["inspect"], &["data", "check"], &["reproduce"]] {
        let help = succeeds(here, &[command, &["--help"]].concat());
        assert!(help.contains("Usage: bagssl") && help.lines().count() > 8, "{help}");
    }
}
