//! Output that cannot be written: the reader has gone, or the disk is full.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{names, unread};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/checkpoint.safetensors");

fn bagssl(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bagssl"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[track_caller]
fn ends(output: &Output, stderr: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
}

#[test]
fn results_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let inspect = || bagssl(folder.path(), &["inspect", GOLDEN, "--tensors"]);
    let of_closed = "error: standard output: Broken pipe (os error 32)\n";
    fs::create_dir_all(folder.path().join("set/train/a")).unwrap();
    fs::create_dir_all(folder.path().join("set/val/a")).unwrap();
    for half in ["train", "val"] {
        image::RgbImage::new(9, 7).save(folder.path().join("set").join(half).join("a/a.png")).unwrap();
    }
    for print in [
        &["inspect", GOLDEN, "--tensors"][..],
        &["inspect", GOLDEN, "--json"],
        &["data", "check", "set"],
        &["data", "check", "set", "--json"],
        &["train", "--print-config"],
        &["doctor"],
        &["--help"],
        &["train", "--help"],
        &["--version"],
    ] {
        let output = bagssl(folder.path(), print).stdout(unread()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String =
            said.lines().filter(|line| !line.starts_with("data: ")).map(|line| format!("{line}\n")).collect();
        assert_eq!((output.status.code(), said.as_str()), (Some(2), of_closed), "{print:?}");
        ends(&bagssl(folder.path(), print).stdout(unread()).stderr(unread()).output().unwrap(), "");
    }
    let of_full = "error: standard output: No space left on device (os error 28)\n";
    ends(&inspect().stdout(full()).output().unwrap(), of_full);
    for text in ["--help", "--version"] {
        ends(&bagssl(folder.path(), &[text]).stdout(full()).output().unwrap(), of_full);
    }
    ends(&bagssl(folder.path(), &["inspect", GOLDEN]).stdout(full()).stderr(full()).output().unwrap(), "");
}

#[test]
fn messages_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for wrong in [&["train", "--nonsense"][..], &["embed"], &["inspect", "missing.safetensors"]] {
        for stderr in [unread(), full()] {
            ends(&bagssl(here, wrong).stderr(stderr).output().unwrap(), "");
        }
    }
    // What was left out is told when the rest has been kept.
    fs::create_dir(here.join("images")).unwrap();
    image::RgbImage::from_fn(40, 36, |x, y| image::Rgb([x as u8, y as u8, 9])).save(here.join("images/a.png")).unwrap();
    fs::write(here.join("images/b.png"), "no image").unwrap();
    for (stderr, output) in [(unread(), "closed.npy"), (full(), "full.npy")] {
        let embed = ["embed", GOLDEN, "images", "-o", output, "--on-bad-image", "skip", "--json"];
        ends(&bagssl(here, &embed).stderr(stderr).output().unwrap(), "");
        assert!(names(here).contains(&output.to_string()), "{:?}", names(here));
    }
    for stderr in [unread(), full()] {
        let nearest = ["nearest", GOLDEN, "images/a.png", "images", "--on-bad-image", "skip"];
        let output = bagssl(here, &nearest).stderr(stderr).output().unwrap();
        ends(&output, "");
        assert!(String::from_utf8_lossy(&output.stdout).contains("a.png"), "{output:?}");
    }
    let train = [
        "train",
        "--data",
        "data",
        "--out",
        "run",
        "--epochs",
        "1",
        "--images",
        "2",
        "--patches",
        "2",
        "--on-bad-image",
        "skip",
    ];
    for class in ["data/train/a", "data/train/b"] {
        fs::create_dir_all(here.join(class)).unwrap();
        for name in ["a.png", "b.png"] {
            fs::copy(here.join("images").join(name), here.join(class).join(name)).unwrap();
        }
    }
    ends(&bagssl(here, &train).stderr(unread()).output().unwrap(), "");
    assert!(here.join("run/checkpoint.safetensors").is_file(), "{:?}", names(&here.join("run")));
}
