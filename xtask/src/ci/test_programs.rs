//! Runs the workspace's tests and measures their durations.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

/// A test that has run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timed {
    pub(crate) name: String,
    pub(crate) seconds: f64,
}

/// A test program.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    /// Its crate and target: `bagssl-core lib`, `bagssl-cli all`.
    name: String,
    path: PathBuf,
    /// The folder of its crate, which is its working directory under cargo.
    folder: PathBuf,
}

/// Builds and runs all tests and doc tests. A failed test does not stop other programs. Property
/// tests draw their cases from `seed`. Appends the duration of each passed test to `times`.
pub(crate) fn run(features: &str, seed: u64, times: &mut Vec<Timed>) -> Result<()> {
    let begun = Instant::now();
    let selected = ["--workspace", "--locked", "--features", features];
    let programs = build(&selected)?;
    println!("  built {} programs in {:.0} s", programs.len(), begun.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for program in &programs {
        let begun = Instant::now();
        let (tests, passed) = run_one(program, seed)?;
        println!("  {}: {} tests in {:.1} s", program.name, tests.len(), begun.elapsed().as_secs_f64());
        times.extend(tests);
        if !passed {
            failed.push(program.name.clone());
        }
    }
    if let Err(error) = run::run_checked(run::cargo(&["test", "--doc"]).args(selected)) {
        failed.push(error.to_string());
    }
    if !failed.is_empty() {
        bail!("tests failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Compiles all tests.
fn build(selected: &[&str]) -> Result<Vec<Program>> {
    let mut command = run::cargo(&["test", "--no-run", "--message-format=json-render-diagnostics"]);
    command.args(selected).stdout(Stdio::piped());
    eprintln!("  $ {}", run::show(&command));
    let output = command.spawn().and_then(std::process::Child::wait_with_output).context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build: {}", output.status);
    }
    let programs: Vec<Program> = String::from_utf8(output.stdout)?.lines().filter_map(program).collect();
    if programs.is_empty() {
        bail!("expected test programs, got none");
    }
    Ok(programs)
}

/// Parses a test program from a line of cargo's messages.
fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let kind = message["target"]["kind"][0].as_str()?;
    let what = if kind == "test" { message["target"]["name"].as_str()? } else { kind };
    let name = format!("{} {what}", folder.file_name()?.to_string_lossy());
    Some(Program { name, path: path.into(), folder })
}

/// Runs a program and returns whether all its tests passed.
fn run_one(program: &Program, seed: u64) -> Result<(Vec<Timed>, bool)> {
    let mut command = Command::new(&program.path);
    // Test times require nightly Rust, unless this variable is set. It is read at run time, so it
    // causes no recompilation.
    command.args(["-Zunstable-options", "--report-time"]).env("RUSTC_BOOTSTRAP", "1");
    command.env("PROPTEST_RNG_SEED", seed.to_string());
    command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.path.display().to_string())?;
    let mut times = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line?;
        match timed(&line) {
            Some((name, seconds)) => times.push(Timed { name: format!("{} {name}", program.name), seconds }),
            // Failures and the final line.
            None if !line.is_empty() && !line.starts_with("running ") => println!("  {line}"),
            None => {}
        }
    }
    Ok((times, child.wait()?.success()))
}

/// Parses the name and duration of a passed test.
fn timed(line: &str) -> Option<(&str, f64)> {
    let (name, time) = line.strip_prefix("test ")?.split_once(" ... ok <")?;
    // "should panic" follows the name.
    let name = name.split_once(" - ").map_or(name, |(name, _)| name);
    Some((name, time.strip_suffix("s>")?.parse().ok()?))
}

/// Lists the slowest tests, with the total number of tests.
pub(crate) fn slowest(times: &[Timed], count: usize) -> String {
    let mut sorted: Vec<&Timed> = times.iter().collect();
    sorted.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let mut lines = vec![format!("the slowest of {} tests, seconds", times.len())];
    lines.extend(sorted.iter().take(count).map(|test| format!("{:>8.1}  {}", test.seconds, test.name)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_time() {
        assert_eq!(timed("test a::b ... ok <1.250s>"), Some(("a::b", 1.25)));
        assert_eq!(timed("test a::b - should panic ... ok <0.001s>"), Some(("a::b", 0.001)));
        for other in ["test a::b ... FAILED <0.1s>", "running 3 tests", "test result: ok. 3 passed", ""] {
            assert_eq!(timed(other), None, "{other}");
        }
    }

    #[test]
    fn programs_are_those_that_test() {
        let line = |test: bool, kind: &str| {
            format!(
                r#"{{"reason": "compiler-artifact", "manifest_path": "/w/bagssl-core/Cargo.toml", "executable": "/t/all-1",
                   "target": {{"kind": ["{kind}"], "name": "all"}}, "profile": {{"test": {test}}}}}"#
            )
        };
        let named =
            |name: &str| Program { name: name.into(), path: "/t/all-1".into(), folder: "/w/bagssl-core".into() };
        assert_eq!(program(&line(true, "test")), Some(named("bagssl-core all")));
        assert_eq!(program(&line(true, "lib")), Some(named("bagssl-core lib")));
        assert_eq!(program(&line(false, "bin")), None);
        assert_eq!(program("warning: something"), None);
    }

    #[test]
    fn slowest_first() {
        let test = |name: &str, seconds| Timed { name: name.into(), seconds };
        let times = [test("a", 0.5), test("b", 12.0), test("c", 3.25)];
        assert_eq!(slowest(&times, 2), "the slowest of 3 tests, seconds\n    12.0  b\n     3.2  c");
    }

    #[test]
    fn failed_program_is_reported() {
        // A program unrelated to tests fails because of their arguments.
        let program = Program { name: "x".into(), path: "/bin/false".into(), folder: "/".into() };
        if program.path.exists() {
            assert!(!run_one(&program, 0).unwrap().1);
        }
    }
}
