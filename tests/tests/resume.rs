//! A run that is killed goes on as if it had not been.
#![cfg(unix)]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, interruption: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_killed")).arg(folder).arg(interruption).output().unwrap()
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
fn run_killed_anywhere_resumes_bit_identically() {
    let uninterrupted = tempfile::tempdir().unwrap();
    let (started, expected) = finished(uninterrupted.path());
    assert_eq!(started, "from step 0\n");
    // What came after the last state is done again.
    for (interruption, from) in [("step", 6), ("save", 3), ("rename", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let killed = run(folder.path(), interruption);
        assert_eq!(killed.status.signal(), Some(9), "{interruption}: {}", String::from_utf8_lossy(&killed.stderr));
        assert!(!folder.path().join("checkpoint.safetensors").exists());
        assert_eq!(is_begun(folder.path()), interruption != "step", "{interruption}");
        let (resumed, checkpoint) = finished(folder.path());
        assert_eq!(resumed, format!("from step {from}\n"), "{interruption}");
        assert!(checkpoint == expected, "{interruption}: other weights");
        assert!(!is_begun(folder.path()), "{interruption}: what was begun is removed");
    }
}
