//! A run that is killed goes on as if it had not been.
#![cfg(unix)]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, place: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_killed")).arg(folder).arg(place).output().unwrap()
}

fn finished(folder: &Path) -> (String, Vec<u8>) {
    let output = run(folder, "none");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checkpoint = std::fs::read(folder.join("checkpoint.safetensors")).unwrap();
    (String::from_utf8(output.stdout).unwrap(), checkpoint)
}

/// Whether something is there that a save has begun.
fn is_begun(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder.join("states")).unwrap();
    entries.any(|entry| entry.unwrap().path().extension().is_some_and(|extension| extension == "partial"))
}

#[test]
fn killed_anywhere_it_resumes_to_the_same_bits() {
    let whole = tempfile::tempdir().unwrap();
    let (started, expected) = finished(whole.path());
    assert_eq!(started, "from step 0\n");
    // What came after the last state is done again.
    for (place, from) in [("step", 6), ("save", 3), ("rename", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let killed = run(folder.path(), place);
        assert_eq!(killed.status.signal(), Some(9), "{place}: {}", String::from_utf8_lossy(&killed.stderr));
        assert!(!folder.path().join("checkpoint.safetensors").exists());
        assert_eq!(is_begun(folder.path()), place != "step", "{place}");
        let (resumed, checkpoint) = finished(folder.path());
        assert_eq!(resumed, format!("from step {from}\n"), "{place}");
        assert!(checkpoint == expected, "{place}: other weights");
        assert!(!is_begun(folder.path()), "{place}: what was begun is removed");
    }
}
