//! The gates that a change must pass.

mod tidy;
mod licenses;
mod package;
mod semver;
mod examples;
mod no_std;
pub(crate) mod fuzz;
mod edge;
mod kills;
mod stub;
mod test_programs;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::ci::test_programs::Timed;
use crate::metadata;
use crate::run::{cargo, cargo_outside, run_checked};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also run the slow gates, including a complete reproduction
    #[arg(long)]
    full: bool,
    /// Run only these gates
    #[arg(long, value_name = "GATE", value_delimiter = ',')]
    only: Vec<String>,
    /// Continue after a gate has failed
    #[arg(long)]
    keep_going: bool,
    /// List the gates
    #[arg(long)]
    list: bool,
}

#[derive(Debug)]
struct Gate {
    name: &'static str,
    about: &'static str,
    full: bool,
    run: fn(&mut Times) -> Result<()>,
}

/// The durations of the tests that have run.
type Times = Vec<Timed>;

/// A gate that has run, its duration, and the reason if it failed.
type Outcome = (&'static Gate, Duration, Option<String>);

/// The features that the tests are built with.
const FEATURES: &str = "bagssl-core/import,bagssl-core/ndarray,bagssl-core/onnx,bagssl-core/rayon,bagssl-core/std,\
                        bagssl-cli/candle,bagssl-cli/cuda,bagssl-tests/candle";

/// The total time of the gates without `--full` above which a warning is printed.
const LONGEST: Duration = Duration::from_secs(1800);

/// The number of slowest tests to list.
const SLOWEST: usize = 10;

/// In the order in which they run: what fails soonest first, and the builds so that later ones find what they need.
const GATES: [Gate; 23] = [
    gate("format", "rustfmt changes nothing", |_| format()),
    gate("tidy", "file sizes, dependency directions, versions, lints", |_| tidy::check()),
    gate("licenses", "all dependencies have allowed licenses", |_| licenses::check()),
    gate("no-std", "core links and runs without the standard library", |_| no_std::check()),
    gate("external-user", "an external crate uses core without features", |_| external_user()),
    gate("clippy", "no warnings in any target, including the GPU code, without CUDA", |_| clippy()),
    gate("docs", "documentation without warnings", |_| docs()),
    gate("package", "the packed crates are complete, and build alone and without CUDA", |_| package::check()),
    gate("features", "the default build, and core's features alone", |_| features()),
    gate("test", "unit, property and doc tests, and those across crates", test),
    gate("examples", "the examples of the crates run", |_| examples::check(FEATURES)),
    gate("fuzz", "each fuzz target for some seconds", |_| fuzz::run(&fuzz::Args::smoke()).map(drop)),
    full("properties", "the tests again, with new cases in the property tests", properties),
    full("features-alone", "each feature of each crate alone", |_| features_alone()),
    full("semver", "API changes match the version (cargo-semver-checks)", |_| semver::check()),
    full("fuzz-address", "each fuzz target for some seconds under the address sanitizer (nightly)", |_| fuzz_address()),
    full("address", "the CPU kernels under the address sanitizer (nightly)", |_| address()),
    full("aarch64", "the tests of the CPU kernels build for NEON", |_| edge::aarch64()),
    full("cortex-m", "the golden bag on a Cortex-M4, emulated", |_| edge::cortex_m()),
    full("kills", "a training run that is killed 100 times ends with the same bits", |_| kills::kills()),
    full("bounds", "the program stays within its limits of memory, with inputs as large as attacks", |_| bounds()),
    full("stub", "the checks of the GPU operations, on the CUDA stub", |_| stub::check(FEATURES)),
    full("reproduce", "a whole reproduction, as a user runs it", |_| reproduce()),
];

const fn gate(name: &'static str, about: &'static str, run: fn(&mut Times) -> Result<()>) -> Gate {
    Gate { name, about, full: false, run }
}

/// Creates a slow gate.
const fn full(name: &'static str, about: &'static str, run: fn(&mut Times) -> Result<()>) -> Gate {
    Gate { name, about, full: true, run }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let gates = choose(&args.only, args.full)?;
    if args.list {
        gates.iter().for_each(|gate| println!("{:<14} {}", gate.name, gate.about));
        return Ok(ExitCode::SUCCESS);
    }
    let (mut results, mut times): (Vec<Outcome>, Times) = Default::default();
    for &gate in &gates {
        println!("== {}: {}", gate.name, gate.about);
        let started = Instant::now();
        let error = (gate.run)(&mut times).err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("  failed: {error}");
        }
        results.push((gate, started.elapsed(), error));
        if results.last().is_some_and(|(_, _, error)| error.is_some()) && !args.keep_going {
            break;
        }
    }
    if !times.is_empty() {
        println!("\n{}", test_programs::slowest(&times, SLOWEST));
    }
    println!("\n{}", table(&results, &gates[results.len()..]));
    if let Some(warning) = too_long(&results) {
        eprintln!("{warning}");
    }
    let failed = results.iter().any(|(_, _, error)| error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the gates selected by name, or all except the slow ones unless `full` is set.
fn choose(only: &[String], full: bool) -> Result<Vec<&'static Gate>> {
    if let Some(unknown) = only.iter().find(|name| GATES.iter().all(|gate| gate.name != name.as_str())) {
        let known: Vec<_> = GATES.iter().map(|gate| gate.name).collect();
        bail!("--only: expected some of {}, got {unknown:?}", known.join(", "));
    }
    let chosen = |gate: &&Gate| match only {
        [] => full || !gate.full,
        names => names.iter().any(|name| name == gate.name),
    };
    Ok(GATES.iter().filter(chosen).collect())
}

/// Returns a table with a line per gate, and the total.
fn table(results: &[Outcome], not_run: &[&Gate]) -> String {
    let mut lines = vec![format!("{:<14} {:>8}", "gate", "seconds")];
    for (gate, time, error) in results {
        let state = if error.is_some() { "FAILED" } else { "ok" };
        lines.push(format!("{:<14} {:>8.1}  {state}", gate.name, time.as_secs_f64()));
    }
    lines.extend(not_run.iter().map(|gate| format!("{:<14} {:>8}  not run", gate.name, "-")));
    let failed = results.iter().filter(|(_, _, error)| error.is_some()).count();
    let all: Duration = results.iter().map(|(_, time, _)| *time).sum();
    let passed = results.len() - failed;
    lines.push(format!("{:<14} {:>8.1}  {passed} passed, {failed} failed", "all", all.as_secs_f64()));
    lines.join("\n")
}

/// Returns a warning if the gates that every change must pass take too long in total.
fn too_long(results: &[Outcome]) -> Option<String> {
    let sum: Duration = results.iter().filter(|(gate, ..)| !gate.full).map(|(_, time, _)| *time).sum();
    let (expected, got) = (LONGEST.as_secs(), sum.as_secs());
    (sum > LONGEST).then(|| format!("warning: expected a total time of at most {expected} s, got {got} s"))
}

/// Tests the only module with `unsafe`, in a separate target folder, since everything is
/// recompiled.
fn address() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("  skipped: runs on Linux on x86-64");
        return Ok(());
    }
    let folder = metadata::target_folder()?.join("address");
    let mut command = std::process::Command::new("cargo");
    command.args(["+nightly", "test", "-p", "bagssl-core", "--features", "cpu,std", "--lib", "--locked"]);
    command.args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"]).arg(folder).arg("cpu::");
    run_checked(command.env("RUSTFLAGS", "-Zsanitizer=address"))
}

fn format() -> Result<()> {
    run_checked(&mut cargo(&["fmt", "--all", "--check"]))?;
    for name in ["fuzz", "tests/no-std-proof", "tests/external-user", "tests/external-cuda"] {
        run_checked(&mut cargo(&["fmt", "--check", "--manifest-path", &format!("{name}/Cargo.toml")]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    // Warnings are denied after the `--`, not through RUSTFLAGS, which would rebuild every
    // dependency.
    let all = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    run_checked(&mut cargo(&all))
}

/// Checks the builds of users: the crates without options, and core with each feature that does not
/// pull in Burn.
fn features() -> Result<()> {
    // Clippy's gate does not cover code that is compiled only without a feature.
    run_checked(&mut cargo(&["clippy", "--locked", "--", "-D", "warnings"]))?;
    let packages = metadata::packages()?;
    let core =
        packages.iter().find(|package| package.name == "bagssl-core").context("expected bagssl-core, got none")?;
    let alone =
        core.features.iter().map(String::as_str).filter(|feature| !["burn", "default", "ndarray"].contains(feature));
    std::iter::once("").chain(alone).try_for_each(|feature| check_alone(&core.name, feature))
}

/// Checks each feature of each crate. The dependencies are checked again for nearly every one of
/// them.
fn features_alone() -> Result<()> {
    for package in metadata::packages()?.into_iter().filter(|package| package.is_member) {
        let alone = package.features.iter().map(String::as_str).filter(|feature| *feature != "default");
        std::iter::once("").chain(alone).try_for_each(|feature| check_alone(&package.name, feature))?;
    }
    Ok(())
}

fn check_alone(package: &str, feature: &str) -> Result<()> {
    run_checked(&mut cargo(&["check", "--locked", "-p", package, "--no-default-features", "--features", feature]))
}

fn docs() -> Result<()> {
    let all = ["doc", "--workspace", "--no-deps", "--locked", "--all-features"];
    run_checked(cargo(&all).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Runs the property tests with the same cases each time, so that a change only fails because of
/// its contents.
fn test(times: &mut Times) -> Result<()> {
    test_programs::run(FEATURES, 0, times)
}

fn properties(times: &mut Times) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    println!("  the same cases again: PROPTEST_RNG_SEED={seed} cargo test");
    test_programs::run(FEATURES, seed, times)
}

fn external_user() -> Result<()> {
    let (manifest, target) = ("tests/external-user/Cargo.toml", metadata::target_folder()?.join("external-user"));
    run_checked(&mut cargo_outside(manifest, &target, &["clippy", "--all-targets"], &["-D", "warnings"]))?;
    run_checked(&mut cargo_outside(manifest, &target, &["test"], &[]))
}

fn fuzz_address() -> Result<()> {
    if !fuzz::has_nightly() {
        println!("  skipped: expected nightly Rust, got none: rustup toolchain install nightly");
        return Ok(());
    }
    fuzz::run(&fuzz::Args::address()).map(drop)
}

/// Measures the memory of the program, as the tests do with small inputs.
fn bounds() -> Result<()> {
    let tests = ["test", "--release", "-p", "bagssl-cli", "--locked", "--test", "all", "--", "bounds::", "--nocapture"];
    run_checked(cargo(&tests).env("BAGSSL_BOUNDS", "whole"))
}

fn reproduce() -> Result<()> {
    // An existing run would be taken for a completed one.
    let out = metadata::target_folder()?.join("reproduce");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    let out = out.to_string_lossy();
    run_checked(&mut cargo(&["run", "--release", "-p", "bagssl-cli", "--locked", "--", "reproduce", "--out", &out]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(gates: &[&Gate]) -> Vec<&'static str> {
        gates.iter().map(|gate| gate.name).collect()
    }

    #[test]
    fn gates_are_chosen_by_name() {
        let only = |names: &[&str]| choose(&names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>(), false);
        assert_eq!(names(&only(&["fuzz", "tidy"]).unwrap()), ["tidy", "fuzz"]);
        assert!(only(&["tidi"]).unwrap_err().to_string().ends_with("got \"tidi\""));
        let (short, long) = (choose(&[], false).unwrap(), choose(&[], true).unwrap());
        assert_eq!(long.len(), GATES.len());
        assert!(short.len() < long.len() && short.iter().all(|gate| !gate.full));
    }

    #[test]
    fn the_table_says_what_failed_and_what_did_not_run() {
        let gates = choose(&["format".into(), "tidy".into(), "docs".into()], false).unwrap();
        let time = Duration::from_millis(1250);
        let results = [(gates[0], time, None), (gates[1], time, Some("not tidy".into()))];
        let expected = "gate            seconds\n\
                        format              1.2  ok\n\
                        tidy                1.2  FAILED\n\
                        docs                  -  not run\n\
                        all                 2.5  1 passed, 1 failed";
        assert_eq!(table(&results, &gates[2..]), expected);
    }
}
