//! `bagssl bench`: benchmarks on this machine.

mod accuracy;
mod data;
mod infer;
mod train;

use std::process::ExitCode;

use anyhow::{Result, bail};
use bagssl_core::architecture::Architecture;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Infer(infer::Args),
    Train(train::Args),
    Accuracy(accuracy::Args),
    Data(data::Args),
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Infer(args) => infer::run(args),
        Command::Train(args) => train::run(args),
        Command::Accuracy(args) => accuracy::run(args),
        Command::Data(args) => data::run(args),
    }
}

pub(crate) fn architecture(name: &str) -> std::result::Result<Architecture, String> {
    name.parse().map_err(|error: bagssl_core::Error| error.to_string())
}

/// Returns an error if a number is out of range.
fn check_range(name: &str, value: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    match range.contains(&value) {
        true => Ok(()),
        false => bail!("{name}: expected {} to {}, got {value}", range.start(), range.end()),
    }
}
