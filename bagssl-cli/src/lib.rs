//! The `bagssl` program as a library. `main` calls [`run`].
//!
//! The commands connect the library crates. The modules that several commands share come first.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(clippy::print_stderr, clippy::print_stdout, reason = "they panic where nobody reads: use say and tell")]

mod terminal;
mod backend;
mod config;
mod memory;
mod parallelism;
mod provenance;
mod run_output;
mod input;
mod embedding;
mod events;

mod claims;
mod reproduce;
mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{
    bench, classify, convert, data, doctor, embed, eval, explain, import, inspect, map, nearest, report, train,
};
use terminal::output::{self, NOT_DONE, tell};
use terminal::signals::Stopped;

/// Train encoders on bags of image patches, and represent images by the mean of their patch
/// embeddings (BagSSL, arXiv:2206.08954)
///
/// Start with `bagssl train`. Without options it trains a small network on the built-in
/// photographs, in a few minutes on a CPU. Then `bagssl eval RUN/checkpoint.safetensors` measures
/// the quality of its representation.
#[derive(Debug, Parser)]
#[command(name = "bagssl", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Report(report::Args),
    Embed(embed::Args),
    Nearest(nearest::Args),
    Map(map::Args),
    Explain(explain::Args),
    Fit(classify::FitArgs),
    Classify(classify::Args),
    Inspect(inspect::Args),
    Convert(convert::ConvertArgs),
    Export(convert::ExportArgs),
    Import(import::Args),
    /// Check, preview and split data sets
    #[command(subcommand)]
    Data(data::Command),
    /// Benchmark this machine
    #[command(subcommand)]
    Bench(bench::Command),
    Reproduce(reproduce::Args),
    Doctor(doctor::Args),
}

/// Parses the command line, runs the command and returns the exit code.
///
/// The exit code is 0 on success, 1 if a check found a problem, and 2 if the command failed. If a
/// signal stopped a training run, it is 128 plus the signal's number.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = backend::or_panic(|| match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Nearest(args) => nearest::run(&args),
        Command::Map(args) => map::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Fit(args) => classify::fit(&args),
        Command::Classify(args) => classify::classify(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::convert(&args),
        Command::Export(args) => convert::export(&args),
        Command::Import(args) => import::run(&args),
        Command::Data(command) => data::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    });
    match result {
        Ok(_) if output::lost_notes() => ExitCode::from(NOT_DONE),
        Ok(code) => code,
        Err(error) if error.downcast_ref::<Stopped>().is_some() => {
            tell!("{error:#}");
            ExitCode::from(error.downcast_ref().map_or(NOT_DONE, Stopped::exit_code))
        }
        Err(error) => {
            // Prints the error and its causes on one line. Skips a cause that the message already
            // ends with.
            let mut line = error.to_string();
            for cause in error.chain().skip(1).map(ToString::to_string) {
                if !line.ends_with(&cause) {
                    line = format!("{line}: {cause}");
                }
            }
            tell!("error: {}", output::one_line(&line));
            ExitCode::from(NOT_DONE)
        }
    }
}

/// Prints help unchanged, and errors in the arguments as one line.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        output::write(format_args!("{}", error.render()));
        return ExitCode::SUCCESS;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::write_error(format_args!("{}", error.render()));
        return ExitCode::from(NOT_DONE);
    }
    let text = error.render().to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")).collect();
    let parts: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    tell!("{}; see --help", output::one_line(&parts.join(" ")));
    ExitCode::from(NOT_DONE)
}
