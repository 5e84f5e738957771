//! The proof that bagssl-core needs no standard library: a program without one is linked and run, and one that pulls the
//! standard library in must fail to link.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::metadata;
use crate::run;

const MANIFEST: &str = "tests/no-std-proof/Cargo.toml";

pub(crate) fn check() -> Result<()> {
    if !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        println!("  skipped: the proof is a Linux program for x86-64 or Arm");
        return Ok(());
    }
    let target = metadata::target_folder()?.join("no-std-proof");
    let build = |features: &str| -> Command {
        let mut command = run::cargo(&["build", "--manifest-path", MANIFEST, "--locked", "--features", features]);
        command.env("CARGO_TARGET_DIR", &target);
        command
    };
    for features in ["", "checkpoint"] {
        run::must(&mut build(features))?;
        run::must(&mut Command::new(target.join("debug/no-std-proof")))?;
    }
    println!("  and with the standard library it must not link:");
    if build("use-std").stderr(Stdio::null()).status()?.success() {
        bail!("a program that uses the standard library has linked: the proof proves nothing");
    }
    Ok(())
}
