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

#[test]
fn killed_anywhere_it_resumes_to_the_same_bits() {
    let whole = tempfile::tempdir().unwrap();
    let (started, expected) = finished(whole.path());
    assert_eq!(started, "from step 0\n");
    // The state of the first epoch is there in each case; what came after it is done again.
    for place in ["step", "save", "rename"] {
        let folder = tempfile::tempdir().unwrap();
        let killed = run(folder.path(), place);
        assert_eq!(killed.status.signal(), Some(9), "{place}: {}", String::from_utf8_lossy(&killed.stderr));
        assert!(!folder.path().join("checkpoint.safetensors").exists());
        let left_over = folder.path().join(".state.safetensors.partial");
        assert_eq!(left_over.exists(), place != "step", "{place}");
        let (resumed, checkpoint) = finished(folder.path());
        assert_eq!(resumed, "from step 5\n", "{place}");
        assert!(checkpoint == expected, "{place}: other weights");
        assert!(!left_over.exists(), "{place}: the next save takes the place of what was left");
    }
}
