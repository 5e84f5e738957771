//! Proves that bagssl-core needs no standard library, by linking and running a program without one.
//! Two known-bad variants show that the proof can fail: one pulls in the standard library, the
//! other expects wrong numbers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{metadata, run};

const MANIFEST: &str = "tests/no-std-proof/Cargo.toml";

pub(crate) fn check() -> Result<()> {
    if !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        println!("  skipped: the proof is a Linux program for x86-64 or Arm");
        return Ok(());
    }
    let target = metadata::target_folder()?.join("no-std-proof");
    for features in ["", "checkpoint", "onnx", "cpu"] {
        run::run_checked(&mut run::cargo_outside(
            MANIFEST,
            &target,
            &["clippy", "--features", features],
            &["-D", "warnings"],
        ))?;
        run::run_checked(&mut build(features, &target))?;
        run::run_checked(&mut program(&target))?;
    }
    println!("  the known-bad variants:");
    run::run_checked(&mut build("wrong-answer", &target))?;
    let status = program(&target).status().context("cannot start the proof")?;
    if status.code() != Some(1) {
        bail!("a proof that expects wrong numbers: expected exit status: 1, got {status}");
    }
    let output = build("use-std", &target).output().context("cannot start cargo")?;
    refused(output.status.success(), &String::from_utf8_lossy(&output.stderr))
}

/// Checks that the variant with the standard library failed to build for that reason.
fn refused(built: bool, stderr: &str) -> Result<()> {
    if built {
        bail!("a program that links the standard library was built: the proof proves nothing");
    }
    if !stderr.contains("duplicate lang item `panic_impl`") {
        let last = stderr.lines().next_back().unwrap_or("nothing");
        bail!("a program that links the standard library: expected a second panic handler, got {last:?}");
    }
    Ok(())
}

fn build(features: &str, target: &Path) -> Command {
    run::cargo_outside(MANIFEST, target, &["build", "--features", features], &[])
}

fn program(target: &Path) -> Command {
    let path: PathBuf = target.join("debug").join("no-std-proof");
    Command::new(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_panic_handler_counts() {
        assert!(refused(false, "error[E0152]: found duplicate lang item `panic_impl`\n --> src/main.rs").is_ok());
        assert!(refused(true, "").unwrap_err().to_string().contains("proves nothing"));
        let other = refused(false, "error: no space left on device").unwrap_err().to_string();
        assert!(other.ends_with("got \"error: no space left on device\""), "{other}");
    }
}
