//! This project's own commands, run as `cargo xtask COMMAND`.

mod run;
mod metadata;
mod gpu;
mod ci;

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command as Program, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// This project's own commands.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gates that a change must pass
    Ci(ci::Args),
    /// Build `bagssl` and reproduce the paper's idea with it (`cargo xtask reproduce --help` shows
    /// the options)
    #[command(disable_help_flag = true)]
    Reproduce {
        /// Passed on to `bagssl reproduce`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Fuzz the parsers (needs a C++ compiler; under the address sanitizer, nightly Rust)
    Fuzz(ci::fuzz::Args),
    /// Run and report on a machine with a GPU
    #[command(subcommand)]
    Gpu(gpu::Command),
    /// Build data sets for measurements
    #[command(subcommand)]
    Data(DataCommand),
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Build PhotoTiles from free photographs in Debian's packages
    /// (`cargo xtask data photo-tiles --help` shows the options)
    #[command(disable_help_flag = true)]
    PhotoTiles {
        /// Passed on to the program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ci(args) => ci::run(&args),
        Command::Reproduce { args } => reproduce(&args),
        Command::Fuzz(args) => ci::fuzz::run(&args),
        Command::Gpu(command) => gpu::run(&command),
        Command::Data(DataCommand::PhotoTiles { args }) => photo_tiles(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn reproduce(args: &[OsString]) -> Result<ExitCode> {
    // If this cannot be written, bagssl itself reports that by its exit code.
    let _ = writeln!(std::io::stderr(), "building bagssl (takes minutes the first time)");
    let build = run::cargo(&["build", "--release", "-p", "bagssl-cli"]).status().context("cannot start cargo")?;
    if !build.success() {
        return Ok(ExitCode::FAILURE);
    }
    let program = metadata::target_folder()?.join("release").join(format!("bagssl{}", std::env::consts::EXE_SUFFIX));
    let status = Program::new(&program).arg("reproduce").args(args).status();
    Ok(code_of(status.with_context(|| program.display().to_string())?))
}

/// Runs `photo-tiles`, a separate program, so that everything else builds without it.
fn photo_tiles(args: &[OsString]) -> Result<ExitCode> {
    let mut program = run::cargo(&["run", "--quiet", "--release", "--manifest-path"]);
    program.arg(run::root().join("xtask/photo-tiles/Cargo.toml")).arg("--");
    let folder = std::env::current_dir().context("the current folder")?;
    program.arg("--packages").arg(metadata::target_folder()?.join("photo-tiles"));
    Ok(code_of(program.args(args).current_dir(folder).status().context("cannot start cargo")?))
}

/// Converts a program's exit status to an exit code. A program killed by a signal gets 128 plus the
/// signal, as in a shell.
fn code_of(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitCode::from(128 + signal as u8);
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_arguments_go_on_to_bagssl() {
        for given in [&["--help"][..], &["-h"], &["--profile", "tiles", "--dry-run"], &["--", "x"]] {
            let line = ["xtask", "reproduce"].iter().chain(given);
            let Command::Reproduce { args } = Cli::try_parse_from(line).unwrap().command else { panic!("{given:?}") };
            let expected: Vec<_> = given.iter().filter(|arg| **arg != "--").map(OsString::from).collect();
            assert_eq!(args, expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn exit_codes_go_back() {
        use std::os::unix::process::ExitStatusExt;
        let code = |raw| format!("{:?}", code_of(ExitStatus::from_raw(raw)));
        assert_eq!(code(2 << 8), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(9), format!("{:?}", ExitCode::from(137)));
        assert_eq!(code(0), format!("{:?}", ExitCode::SUCCESS));
    }
}
