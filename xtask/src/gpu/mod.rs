//! Packs a folder that checks and benchmarks bagssl on a GPU machine without Rust, and reports its
//! results.

mod glibc;
mod pack;
mod results;
mod bounds;
mod report;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// `cargo xtask gpu`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the program with the feature `cuda` and pack a folder with everything that a GPU
    /// machine needs; call ./run.sh there (described in docs/gpu/README.md)
    Pack(pack::Args),
    /// Write a page for docs/gpu from the results of ./run.sh
    Report(report::Args),
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Pack(args) => pack::run(args),
        Command::Report(args) => report::run(args),
    }
}
