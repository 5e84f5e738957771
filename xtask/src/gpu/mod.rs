//! A folder that checks and measures bagssl on a machine with a GPU, where there is no Rust, and the page that tells of it.

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
    /// Build the program with the feature `cuda` and put it into a folder with all that a GPU machine needs; there, call
    /// ./run.sh (docs/gpu/README.md says what it does)
    Pack(pack::Args),
    /// Make a page for docs/gpu of what ./run.sh brought back
    Report(report::Args),
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Pack(args) => pack::run(args),
        Command::Report(args) => report::run(args),
    }
}
