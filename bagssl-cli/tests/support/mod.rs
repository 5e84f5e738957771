//! The program, called as a user calls it.
#![allow(dead_code, reason = "each test uses some of these")]

#[cfg(feature = "cuda")]
pub(crate) mod stub;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the program in a folder.
pub(crate) fn bagssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bagssl")).args(arguments).current_dir(folder).output().unwrap()
}

/// What it prints, on standard output and on standard error, where it has to succeed.
#[track_caller]
pub(crate) fn prints(folder: &Path, arguments: &[&str]) -> [String; 2] {
    let output = bagssl(folder, arguments);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    [stdout, stderr]
}

/// What it prints on standard output, where it has to succeed.
#[track_caller]
pub(crate) fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let [stdout, _] = prints(folder, arguments);
    stdout
}

/// What it prints with `--json`, which is added where it is not among the arguments.
#[track_caller]
pub(crate) fn json(folder: &Path, arguments: &[&str]) -> Value {
    let more: &[&str] = if arguments.contains(&"--json") { &[] } else { &["--json"] };
    serde_json::from_str(&succeeds(folder, &[arguments, more].concat())).unwrap()
}

/// One line on standard error with these words, besides what is said of the data; exit code 2, nothing on standard output.
#[track_caller]
pub(crate) fn refused(folder: &Path, arguments: &[&str], words: &[&str]) {
    let output = bagssl(folder, arguments);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert_eq!(stdout, "", "{arguments:?}");
    let stderr: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("data: ")).collect();
    let &[stderr] = &stderr[..] else { panic!("{arguments:?}: {stderr:?}") };
    assert!(words.iter().all(|word| stderr.contains(word)), "{arguments:?}: expected {words:?} in {stderr}");
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A pipe that nobody reads.
pub(crate) fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}
