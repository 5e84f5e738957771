//! `bagssl doctor`.

use std::process::ExitCode;

use anyhow::Result;
use bagssl_core::cpu::InstructionSet;
use bagssl_core::memory;

use crate::memory::MIB;
use crate::parallelism;
use crate::terminal::output::say;

/// Report which backends are available on this machine, and what is missing
///
/// The exit code is 1 if the program was built for NVIDIA GPUs and a requirement is missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare each operation on the GPU with the CPU
    ///
    /// The exit code is 1 if an operation differs. Needs a program built with the feature `cuda`.
    #[arg(long)]
    check: bool,
    /// Run only these parts of the check, separated by commas
    #[arg(long, value_name = "PART", value_delimiter = ',', requires = "check")]
    only: Vec<String>,
    /// List the parts of the check without running them
    #[arg(long, requires = "check")]
    list: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let check = Check::from_args(args)?;
    if args.list {
        check.list();
        return Ok(ExitCode::SUCCESS);
    }
    say!("bagssl {}", env!("CARGO_PKG_VERSION"));
    let sets: Vec<&str> =
        InstructionSet::ALL.into_iter().filter(|set| set.is_available()).map(InstructionSet::name).collect();
    say!(
        "ndarray  {} cores; kernels for {} (used: {})",
        parallelism::cores(),
        sets.join(", "),
        InstructionSet::best().name()
    );
    if let Some(bytes) = memory::available() {
        say!("         {} MiB of memory free", bytes / MIB);
    }
    say!(
        "candle   {}",
        match cfg!(feature = "candle") {
            true => "the same cores, with its own kernels",
            false => "not built in: rebuild with `cargo build --release -p bagssl-cli --features candle`",
        }
    );
    cuda(args.check.then_some(check))
}

/// The selected parts of the check.
struct Check {
    #[cfg(feature = "cuda")]
    parts: Vec<bagssl_cuda::self_check::Part>,
}

#[cfg(feature = "cuda")]
impl Check {
    fn from_args(args: &Args) -> Result<Self> {
        let parts = bagssl_cuda::self_check::parts(&args.only).map_err(|why| anyhow::anyhow!("--only: {why}"))?;
        Ok(Check { parts })
    }

    fn list(&self) {
        self.parts.iter().for_each(|part| say!("{:<17} {}", part.name, part.about));
    }

    /// Runs the check. Prints each line before the next part starts, so that a crash loses no
    /// output.
    fn run(&self) -> Result<ExitCode> {
        crate::backend::show_warnings();
        let summary = bagssl_backend::check_cuda(&self.parts, &mut |told| say!("{told}"))?;
        say!("{summary}");
        Ok(ExitCode::from(u8::from(!summary.failed.is_empty())))
    }
}

#[cfg(feature = "cuda")]
fn cuda(check: Option<Check>) -> Result<ExitCode> {
    let report = bagssl_cuda::probe::probe();
    say!("cuda     {}", if report.is_complete() { "ready" } else { "not ready: components are missing" });
    for line in report.to_string().lines() {
        say!("         {line}");
    }
    match check {
        _ if !report.is_complete() => Ok(ExitCode::from(1)),
        None => Ok(ExitCode::SUCCESS),
        Some(check) => check.run(),
    }
}

#[cfg(not(feature = "cuda"))]
impl Check {
    fn from_args(args: &Args) -> Result<Self> {
        if args.check {
            anyhow::bail!("--check: expected a program built with the feature `cuda`, got one without");
        }
        Ok(Check {})
    }

    fn list(&self) {}
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: Option<Check>) -> Result<ExitCode> {
    say!("cuda     not built in: rebuild with `cargo build --release -p bagssl-cli --features cuda`");
    Ok(ExitCode::SUCCESS)
}
