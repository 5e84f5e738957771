//! Fuzzing of the parsers.
//!
//! The targets in `fuzz/` also work with cargo-fuzz. Here they are built with the same coverage
//! flags without cargo-fuzz: in a single build, and on stable Rust unless a sanitizer is requested.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::{metadata, run};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fuzz only this target
    target: Option<String>,
    /// Fuzz each target for a few seconds
    #[arg(long)]
    smoke: bool,
    /// Seconds per target [default: 600, with --smoke 6]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Use the address sanitizer (needs nightly Rust)
    #[arg(long)]
    address: bool,
}

impl Args {
    /// Fuzzes every target for a few seconds.
    pub(crate) fn smoke() -> Self {
        Args { target: None, smoke: true, seconds: None, address: false }
    }

    /// The same with the address sanitizer.
    pub(crate) fn address() -> Self {
        Args { address: true, ..Args::smoke() }
    }
}

/// The flags that cargo-fuzz compiles with: libFuzzer's counters, comparisons and assertions.
const COVERAGE: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let seconds = args.seconds.unwrap_or(if args.smoke { 6 } else { 600 });
    let folder = run::root().join("fuzz");
    let all = targets(&folder)?;
    let chosen: Vec<&String> = match &args.target {
        None => all.iter().collect(),
        Some(name) if all.contains(name) => vec![name],
        Some(name) => bail!("expected one of {}, got {name:?}", all.join(", ")),
    };
    let programs = build(args)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Runs as many targets at a time as there are cores.
    for targets in chosen.chunks(cores) {
        let commands = targets.iter().map(|target| command(&folder, &programs, target, seconds));
        let mut commands = commands.collect::<Result<Vec<_>>>()?;
        let failed: Vec<String> = std::thread::scope(|scope| {
            let running: Vec<_> =
                commands.iter_mut().map(|command| scope.spawn(|| run::run_checked(command))).collect();
            let ended = running.into_iter().map(|one| one.join().expect("no thread panics"));
            ended.filter_map(|result| result.err().map(|error| error.to_string())).collect()
        });
        if !failed.is_empty() {
            bail!("{}; the failing input is in {}", failed.join(", "), folder.join("artifacts").display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds all targets and returns the folder of the programs.
fn build(args: &Args) -> Result<PathBuf> {
    let host = run::output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let host = host.trim();
    let target = metadata::target_folder()?.join(if args.address { "fuzz-address" } else { "fuzz" });
    let mut flags = COVERAGE.join(" ");
    // Nightly is selected through rustup's proxy: the cargo that called this program is another
    // one.
    let mut command = if args.address { Command::new("cargo") } else { run::cargo(&[]) };
    if args.address {
        flags += " -Zsanitizer=address -Ccodegen-units=1";
        command.arg("+nightly").env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    }
    let profile = if args.smoke { "smoke" } else { "release" };
    command.args(["build", "--profile", profile, "--locked", "--manifest-path", "fuzz/Cargo.toml", "--target", host]);
    if let Some(name) = &args.target {
        command.args(["--bin", name]);
    }
    command.arg("--target-dir").arg(&target).env("RUSTFLAGS", flags).current_dir(run::root());
    run::run_checked(&mut command)?;
    Ok(target.join(host).join(profile))
}

/// Returns the command that fuzzes a target on its corpus and seeds.
fn command(folder: &Path, programs: &Path, target: &str, seconds: u32) -> Result<Command> {
    let folders = ["corpus", "artifacts"].map(|name| folder.join(name).join(target));
    for folder in &folders {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let [corpus, artifacts] = folders;
    let mut command = Command::new(programs.join(target));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args([
        &format!("-max_total_time={seconds}"),
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-print_funcs=0",
        "-verbosity=0",
    ]);
    command.arg(corpus).arg(folder.join("seeds").join(target)).current_dir(folder);
    Ok(command)
}

/// Whether nightly Rust is installed.
pub(crate) fn has_nightly() -> bool {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "--version"]).env_remove("RUSTUP_TOOLCHAIN");
    command.output().is_ok_and(|output| output.status.success())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("fuzz_targets");
    let entries = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(String::from));
    }
    names.sort();
    Ok(names)
}
