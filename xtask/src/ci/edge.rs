//! Small machines. The program without a standard library embeds the golden bag on an emulated
//! Cortex-M4. The tests of the CPU kernels are built for 64-bit Arm with NEON. (They are not run:
//! under Debian 12's qemu-user, even tests without a kernel hang.) Nothing is downloaded: missing
//! tools are reported.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{metadata, run};

const AARCH64: &str = "aarch64-unknown-linux-gnu";
const CORTEX_M: &str = "thumbv7em-none-eabihf";
/// The tolerance relative to the largest value, as in the program itself.
const TOLERANCE: f32 = 1e-4;

pub(crate) fn aarch64() -> Result<()> {
    let Some(rustc) = compiler(AARCH64, "libstd-") else {
        return skipped("its standard library: rustup target add, or Debian's rustc-web and libstd-rust-web-dev:arm64");
    };
    if let Some(package) = missing(&[("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")]) {
        return skipped(&format!("Debian's package {package}"));
    }
    let mut tests =
        run::cargo(&["test", "-p", "bagssl-core", "--features", "cpu,std", "--lib", "--locked", "--no-run"]);
    tests.args(["--target", AARCH64, "--target-dir"]).arg(metadata::target_folder()?.join("edge"));
    tests.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    tests.env("RUSTC", &rustc);
    run::run_checked(&mut tests)?;
    println!("  built, not run: `cargo test -p bagssl-core --features cpu,std` on a machine with NEON runs them");
    Ok(())
}

pub(crate) fn cortex_m() -> Result<()> {
    let tools = [("qemu-system-arm", "qemu-system-arm"), ("arm-none-eabi-ld", "binutils-arm-none-eabi")];
    if let Some(package) = missing(&tools) {
        return skipped(&format!("Debian's package {package}"));
    }
    let target = metadata::target_folder()?.join("edge");
    let (rustc, flags) = match compiler(CORTEX_M, "libcore-") {
        Some(rustc) => (rustc, String::new()),
        None => match sources() {
            Some((rustc, library)) => {
                let sysroot = library_of(&rustc, &library, &target)?;
                (rustc, format!("--sysroot {}", sysroot.display()))
            }
            None => return skipped("its core library: rustup target add, or Debian's rustc-web and rust-web-src"),
        },
    };
    let with = |command: &mut Command| {
        command.env("CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER", "arm-none-eabi-ld").env("RUSTC", &rustc);
        command.env("CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS", &flags);
    };
    let machine = ["-machine", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"];
    let console = ["-chardev", "stdio,id=console", "-semihosting-config", "enable=on,target=native,chardev=console"];
    let emulator = [&["qemu-system-arm"], &machine[..], &console, &["-kernel"]].concat();
    proof(&target, CORTEX_M, &with, &emulator)
}

/// Checks that the proof's embedding equals the golden one, and that the variant that expects wrong
/// numbers fails.
fn proof(target: &Path, triple: &str, with: &dyn Fn(&mut Command), emulator: &[&str]) -> Result<()> {
    let golden = run::root().join("tests/golden/embedding.txt");
    let golden = std::fs::read_to_string(&golden).with_context(|| golden.display().to_string())?;
    let program = target.join(triple).join("release/no-std-proof");
    let emulated = || {
        let mut command = Command::new(emulator[0]);
        command.args(&emulator[1..]).arg(&program);
        command
    };
    let build = |features: &str| {
        let arguments = ["build", "--release", "--target", triple, "--features", features];
        let mut command = run::cargo_outside("tests/no-std-proof/Cargo.toml", target, &arguments, &[]);
        with(&mut command);
        run::run_checked(&mut command)
    };
    build("cpu")?;
    let difference = compare(&run::output(&mut emulated())?, &golden)?;
    println!("  largest difference from the golden embedding: {difference:.1e} of its largest value");
    build("cpu,wrong-answer")?;
    let status = emulated().output().context("cannot start the emulator")?.status;
    ensure!(status.code() == Some(1), "a proof that expects wrong numbers: expected exit status: 1, got {status}");
    Ok(())
}

/// Returns the largest difference, relative to the largest value.
fn compare(printed: &str, golden: &str) -> Result<f32> {
    let read = |text: &str| text.lines().map(|line| line.trim().parse::<f32>()).collect::<Result<Vec<_>, _>>();
    let (got, expected) = (read(printed).context("printed embedding")?, read(golden).context("golden embedding")?);
    ensure!(got.len() == expected.len(), "expected {} values, got {}", expected.len(), got.len());
    let largest = expected.iter().fold(0_f32, |most, value| most.max(value.abs()));
    let mut most = 0.0;
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let difference = (got - expected).abs() / largest;
        // NaN is rejected too.
        if difference.is_nan() || difference > TOLERANCE {
            bail!("value {index} of the embedding: expected {expected}, got {got}");
        }
        most = difference.max(most);
    }
    Ok(most)
}

/// Returns the compilers that may support a target: the one that rustup has chosen, and the
/// system's.
fn compilers() -> [PathBuf; 2] {
    [std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from), "/usr/bin/rustc".into()]
}

/// Finds a compiler with the target's library.
fn compiler(triple: &str, library: &str) -> Option<PathBuf> {
    compilers().into_iter().find(|rustc| {
        let arguments = ["--print", "target-libdir", "--target", triple];
        let folder = run::output(Command::new(rustc).args(arguments)).unwrap_or_default();
        std::fs::read_dir(folder.trim())
            .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with(library)))
    })
}

/// Finds a compiler with the sources of its library.
fn sources() -> Option<(PathBuf, PathBuf)> {
    compilers().into_iter().find_map(|rustc| {
        let sysroot = run::output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        library.join("alloc/Cargo.toml").exists().then_some((rustc, library))
    })
}

/// Builds `core` and `alloc` as dependencies of an empty crate that needs no other packages.
/// Returns their sysroot.
fn library_of(rustc: &Path, library: &Path, target: &Path) -> Result<PathBuf> {
    let folder = target.join("library");
    let (none, sysroot) = (folder.join("none"), folder.join("sysroot"));
    let to = sysroot.join("lib/rustlib").join(CORTEX_M).join("lib");
    let _ = std::fs::remove_dir_all(&to);
    for folder in [&none, &to, &folder.join("src")] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let manifest = format!(
        "[workspace]\n[package]\nname = \"library\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\n\
         alloc = {{ path = {:?}, features = [\"compiler-builtins-mem\"] }}\n[profile.release]\npanic = \"abort\"\n",
        library.join("alloc")
    );
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    std::fs::write(folder.join("src/lib.rs"), "#![feature(no_core)]\n#![no_core]\n")?;
    let mut build = run::cargo(&["build", "--offline", "--release", "--target", CORTEX_M, "--manifest-path"]);
    build.arg(folder.join("Cargo.toml")).arg("--target-dir").arg(folder.join("target"));
    let flags = format!("-Zforce-unstable-if-unmarked --sysroot {}", none.display());
    // The library uses features that are unstable elsewhere.
    build.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags);
    run::run_checked(&mut build)?;
    for file in std::fs::read_dir(folder.join("target").join(CORTEX_M).join("release/deps"))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("lib") && name.ends_with(".rlib") {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(sysroot)
}

/// Returns the package of the first missing program.
fn missing(tools: &[(&str, &'static str)]) -> Option<&'static str> {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    tools.iter().find(|(program, _)| !there(program)).map(|(_, package)| *package)
}

fn skipped(what: &str) -> Result<()> {
    println!("  skipped: expected {what} (see CONTRIBUTING.md)");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_embedding_is_refused() {
        let golden = "0.5\n-2\n0\n";
        assert_eq!(compare("0.5\n-2e0\n0\n", golden).unwrap(), 0.0);
        assert!(compare("0.50019\n-2\n0\n", golden).is_ok());
        for wrong in ["0.50021\n-2\n0\n", "0.5\n-2\n", "0.5\n-2\n0\n1\n", "0.5\nNaN\n0\n", "0.5\n2\n0\n", "", "panic\n"]
        {
            assert!(compare(wrong, golden).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn missing_tools_are_named() {
        assert_eq!(missing(&[("cargo", "cargo"), ("no-such-program", "its-package")]), Some("its-package"));
        assert_eq!(missing(&[("cargo", "cargo")]), None);
        assert_eq!(compiler("no-such-target", "libcore-"), None);
    }
}
