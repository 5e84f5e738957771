//! The CUDA path on a CPU: the program with a stub of CUDA's libraries (`bagssl-cuda/tests/stub`), which computes what a
//! GPU would and records each call. Skipped where there is no compiler for it.

use std::fs;
use std::path::Path;

use crate::support::bagssl;
use crate::support::stub::{Run, stub};

/// Images, patches and epochs of a small training: a few steps.
const TRAIN: [&str; 9] = ["train", "--patches", "2", "--epochs", "1", "--images", "60", "--json", "--out"];

/// The losses of a training's steps.
fn losses(folder: &Path, out: &str) -> Vec<f64> {
    let lines = fs::read_to_string(folder.join(out).join("metrics.jsonl")).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

/// A failed run says one line, with these words.
#[track_caller]
fn says(run: &Run, words: &[&str]) {
    let text = run.stderr();
    assert!(!run.output.status.success(), "{}", run.stdout());
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "expected {words:?} in {text}");
}

#[test]
fn the_doctor_finds_what_is_there() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = stub.bagssl(folder.path(), &["doctor"], &[]).succeeded();
    let text = run.stdout();
    assert!(text.contains("cuda     complete") && text.contains("compute capability 9.0"), "{text}");
    for (library, name) in [("libcudnn", "cuDNN"), ("libcublas", "cuBLAS"), ("libnvrtc", "NVRTC")] {
        let run = stub.bagssl_without(library, folder.path(), &["bench", "train", "--backend", "cuda", "--steps", "1"]);
        says(&run, &["cuda: ", name, "LD_LIBRARY_PATH"]);
        fs::remove_dir_all(folder.path().join("libraries")).unwrap();
    }
}

#[test]
fn every_check_of_the_doctor_passes() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = stub.bagssl(folder.path(), &["doctor", "--check"], &[]);
    assert!(run.output.status.success(), "{}{}", run.stdout(), run.stderr());
}

/// A GPU that computes in f32 takes the steps of the CPU, also where work waits until somebody waits for it: then whatever is
/// not ordered by events reads values that are not there yet.
#[test]
fn training_takes_the_steps_of_the_cpu() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let output = bagssl(here, &[&TRAIN[..], &["cpu"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = losses(here, "cpu");
    assert!(expected.len() >= 3, "{expected:?}");
    for (out, backend, bound, mode) in [
        ("exact", "cuda-f32", 1e-3, "eager"),
        ("deferred", "cuda-f32", 1e-3, "deferred"),
        ("bf16", "cuda", 5e-2, "eager"),
    ] {
        let arguments = [&TRAIN[..], &[out, "--backend", backend]].concat();
        stub.bagssl(here, &arguments, &[("CUDA_STUB_MODE", mode)]).succeeded();
        let got = losses(here, out);
        let apart = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs() / expected.abs());
        let apart = apart.fold(0.0, f64::max);
        assert!(got.len() == expected.len() && apart < bound, "{out}: {apart:.1e}: {got:?} {expected:?}");
    }
    // The order in which work is done is no part of what is computed.
    assert_eq!(losses(here, "exact"), losses(here, "deferred"));
}
