//! The project's own commands, called as `cargo xtask COMMAND`.

mod run;
mod metadata;
mod tidy;
mod licences;
mod no_std;
mod fuzz;
mod ci;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gates that a change must pass
    Ci(ci::Args),
    /// Build `bagssl` and reproduce the paper's idea with it (`cargo xtask reproduce --help` shows the options)
    #[command(disable_help_flag = true)]
    Reproduce {
        /// Passed on to `bagssl reproduce`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Fuzz the parsers (needs nightly Rust and cargo-fuzz)
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ci(args) => ci::run(&args),
        Command::Reproduce { args } => reproduce(&args),
        Command::Fuzz(args) => fuzz::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn reproduce(args: &[String]) -> anyhow::Result<ExitCode> {
    eprintln!("building bagssl (some minutes the first time)");
    if !run::cargo(&["build", "--release", "-p", "bagssl-cli"]).status()?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let program = metadata::target_folder()?.join("release").join(format!("bagssl{}", std::env::consts::EXE_SUFFIX));
    let status = std::process::Command::new(program).arg("reproduce").args(args).status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
