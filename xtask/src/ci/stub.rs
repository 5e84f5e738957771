//! Runs the checks of the GPU's operations on the CUDA stub. The tests of the cli run some of them
//! too.
//!
//! The part `ordering` is excluded: it keeps a GPU busy for seconds, which would be hours on a CPU,
//! to detect work that runs out of order. In the cli's tests, the stub's mode `deferred` detects
//! that.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{metadata, run};

/// The part that takes too long.
const LEFT_OUT: &str = "ordering";

pub(crate) fn check(features: &str) -> Result<()> {
    let build = ["build", "--workspace", "--features", features, "--locked", "--bin", "bagssl"];
    run::run_checked(&mut run::cargo(&build))?;
    let target = metadata::target_folder()?;
    let source = std::path::absolute("bagssl-cuda/tests/stub")?;
    let folder = target.join("cuda-stub");
    let [libraries, kernels, home] = ["libraries", "kernels", "home"].map(|name| folder.join(name));
    for folder in [&libraries, &kernels, &home] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    run::run_checked(Command::new("sh").arg(source.join("build.sh")).arg(&libraries))?;
    let program = target.join("debug/bagssl");
    let list = run::output(Command::new(&program).args(["doctor", "--check", "--list"]))?;
    let parts = list.lines().filter_map(|line| line.split_whitespace().next()).filter(|part| *part != LEFT_OUT);
    let parts: Vec<&str> = parts.collect();
    let mut doctor = Command::new(&program);
    doctor
        .args(["doctor", "--check", "--only", &parts.join(",")])
        .env("LD_LIBRARY_PATH", &libraries)
        .env("CUDA_PATH", &source);
    doctor.env("CUDA_STUB_CACHE", &kernels).env("HOME", &home).env("XDG_CACHE_HOME", home.join("cache"));
    run::run_checked(&mut doctor)
}
