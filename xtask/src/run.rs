//! Runs other programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Returns the folder of the workspace.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace").to_path_buf()
}

/// Returns a command for the cargo that called this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Returns a cargo command for a crate outside the workspace, with its own lock file. Its builds go
/// to `target`. `arguments` begin with the cargo command; `after` are arguments of the program that
/// it runs.
pub(crate) fn cargo_outside(manifest: &str, target: &Path, arguments: &[&str], after: &[&str]) -> Command {
    let mut command = cargo(arguments);
    command.args(["--locked", "--manifest-path", manifest, "--target-dir"]).arg(target);
    if !after.is_empty() {
        command.arg("--").args(after);
    }
    command
}

/// Runs a command and returns an error if it fails.
pub(crate) fn run_checked(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("  $ {shown}");
    let status = command.status().with_context(|| shown.clone())?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command and returns its output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| shown.clone())?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) fn show(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(|argument| quoted(&argument.to_string_lossy())).collect();
    format!("{name} {}", arguments.join(" "))
}

/// Quotes an argument for a shell, if necessary.
fn quoted(argument: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_=./,:+".contains(character);
    if !argument.is_empty() && argument.chars().all(plain) { argument.into() } else { format!("'{argument}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_reads_it() {
        let shown = show(Command::new("/usr/bin/cargo").args(["check", "--features", "", "a b", "x/y=1,2"]));
        assert_eq!(shown, "cargo check --features '' 'a b' x/y=1,2");
    }
}
