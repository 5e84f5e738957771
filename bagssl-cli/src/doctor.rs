//! `bagssl doctor`.

use std::process::ExitCode;

use anyhow::Result;
use bagssl_backend::memory;
use bagssl_core::cpu::InstructionSet;

use crate::memory::MIB;
use crate::output::say;
use crate::work;

/// Say what this machine has for each backend, and what is missing
///
/// Exit code 1 if the program was built for NVIDIA's GPUs and something that they need is missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare each operation on the GPU with the CPU (only in a program built with the feature `cuda`); exit code 1 if one differs
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    say!("bagssl {}", env!("CARGO_PKG_VERSION"));
    let sets: Vec<&str> =
        InstructionSet::ALL.into_iter().filter(|set| set.is_available()).map(InstructionSet::name).collect();
    say!("ndarray  {} cores; kernels for {} (used: {})", work::cores(), sets.join(", "), InstructionSet::best().name());
    if let Some(bytes) = memory::available() {
        say!("         {} MiB of memory are free", bytes / MIB);
    }
    say!(
        "candle   {}",
        match cfg!(feature = "candle") {
            true => "the same cores, independent of these kernels",
            false => "not in this program: build it with `cargo build --release -p bagssl-cli --features candle`",
        }
    );
    cuda(args)
}

#[cfg(feature = "cuda")]
fn cuda(args: &Args) -> Result<ExitCode> {
    use bagssl_train::cuda::{correct, probe};
    let report = probe::probe();
    say!("cuda     {}", if report.is_complete() { "complete" } else { "not complete" });
    for line in report.to_string().lines() {
        say!("         {line}");
    }
    if !report.is_complete() {
        return Ok(ExitCode::from(1));
    }
    if !args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let rows = correct::correct()?;
    rows.iter().for_each(|row| say!("{row}"));
    let wrong = rows.iter().filter(|row| !row.pass).count();
    say!("{} checks, {wrong} failed", rows.len());
    Ok(ExitCode::from(u8::from(wrong > 0)))
}

#[cfg(not(feature = "cuda"))]
fn cuda(args: &Args) -> Result<ExitCode> {
    say!("cuda     not in this program: build it with `cargo build --release -p bagssl-cli --features cuda`");
    if args.check {
        anyhow::bail!("--check: expected a program built with the feature `cuda`, got one without");
    }
    Ok(ExitCode::SUCCESS)
}
