//! Fuzzing of the parsers.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::run;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target
    target: Option<String>,
    /// A few seconds of each
    #[arg(long)]
    smoke: bool,
    /// Seconds of each [default: 600, with --smoke 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
}

impl Args {
    /// A few seconds of every target.
    pub(crate) fn smoke() -> Self {
        Args { target: None, smoke: true, seconds: None }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let seconds = args.seconds.unwrap_or(if args.smoke { 10 } else { 600 });
    let folder = run::root().join("fuzz");
    let all = targets(&folder)?;
    let chosen: Vec<&String> = match &args.target {
        None => all.iter().collect(),
        Some(name) if all.contains(name) => vec![name],
        Some(name) => bail!("expected one of {}, got {name:?}", all.join(", ")),
    };
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    // All of them at once, which is shared out among the cores.
    run::must(Command::new("cargo").args(["+nightly", "fuzz", "build"]).args(&args.target).current_dir(&folder))?;
    for target in chosen {
        let seeds = folder.join("seeds").join(target);
        let corpus = folder.join("corpus").join(target);
        std::fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
        let mut command = Command::new("cargo");
        command.args(["+nightly", "fuzz", "run", target]).arg(&corpus).arg(&seeds);
        command.args(["--", &format!("-max_total_time={seconds}"), "-rss_limit_mb=2048", "-print_final_stats=1"]);
        if args.smoke {
            command.arg("-verbosity=0");
        }
        command.current_dir(&folder);
        run::must(&mut command)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What fuzzing needs and is not there, with how to get it.
pub(crate) fn missing() -> Option<&'static str> {
    let runs = |arguments: &[&str]| {
        Command::new("cargo").arg("+nightly").args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !runs(&["--version"]) {
        return Some("expected nightly Rust, got none: rustup toolchain install nightly");
    }
    (!runs(&["fuzz", "--version"])).then_some("expected cargo-fuzz, got none: cargo install cargo-fuzz --locked")
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
