//! A folder that checks and measures bagssl on a machine with a GPU, where there is no Rust.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::metadata;
use crate::run::{cargo, must, root};

/// The most that the folder may hold.
const MOST_BYTES: u64 = 60 << 20;

/// Files of the workspace beside the program: where they are, and what they are called in the folder.
const FILES: [(&str, &str); 3] = [
    ("xtask/src/gpu/run.sh", "run.sh"),
    ("docs/compare/train.py", "train.py"),
    ("tests/golden/checkpoint.safetensors", "golden.safetensors"),
];

/// `cargo xtask gpu`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the program with the feature `cuda` and put it into a folder with all that a GPU machine needs; there, call
    /// ./run.sh (docs/gpu/README.md says what it prints)
    Pack(PackArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PackArgs {
    /// The folder [default: gpu in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Small files to train on there, such as CIFAR's: they are copied to data/ in the folder
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    let Command::Pack(args) = command;
    let target = metadata::target_folder()?;
    let out = args.out.clone().unwrap_or_else(|| target.join("gpu"));
    if let Some(data) = &args.data
        && !data.exists()
    {
        bail!("--data: expected a file or folder, got {}", data.display());
    }
    must(&mut cargo(&["build", "--release", "-p", "bagssl-cli", "--features", "cuda", "--locked"]))?;
    let program = target.join("release").join("bagssl");
    let bytes = pack(&program, args.data.as_deref(), &out)?;
    println!("{}: {:.1} MiB; copy it to the GPU machine and call ./run.sh there", out.display(), mib(bytes));
    Ok(ExitCode::SUCCESS)
}

/// Fills the folder anew, and says how many bytes it holds.
fn pack(program: &Path, data: Option<&Path>, out: &Path) -> Result<u64> {
    // What is there is not deleted: it may be anything.
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    compress(program, &out.join("bagssl.gz"))?;
    for (from, to) in FILES {
        copy(&root().join(from), &out.join(to))?;
    }
    if let Some(data) = data {
        copy(data, &out.join("data"))?;
    }
    executable(&out.join("run.sh"))?;
    let bytes = size(out)?;
    if bytes > MOST_BYTES {
        bail!("{}: expected at most {} MiB, got {:.1}", out.display(), MOST_BYTES >> 20, mib(bytes));
    }
    Ok(bytes)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Compresses a file: the program alone has more bytes than the folder may hold.
fn compress(from: &Path, to: &Path) -> Result<()> {
    let mut program = fs::File::open(from).with_context(|| from.display().to_string())?;
    let file = fs::File::create(to).with_context(|| to.display().to_string())?;
    let mut packed = GzEncoder::new(file, Compression::default());
    std::io::copy(&mut program, &mut packed).with_context(|| to.display().to_string())?;
    packed.finish().map(drop).with_context(|| to.display().to_string())
}

/// Copies a file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop).with_context(|| format!("{} to {}", from.display(), to.display()));
    }
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry.with_context(|| from.display().to_string())?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| path.display().to_string())
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("bagssl-gpu-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_folder_holds_all_that_is_needed_and_not_too_much() {
        let place = folder("pack");
        let (program, data, out) = (place.join("program"), place.join("some"), place.join("out"));
        fs::write(&program, "x").unwrap();
        fs::create_dir_all(data.join("deep")).unwrap();
        fs::write(data.join("deep/train.bin"), vec![7; 1000]).unwrap();
        let bytes = pack(&program, Some(&data), &out).unwrap();
        for name in ["bagssl.gz", "run.sh", "train.py", "golden.safetensors", "data/deep/train.bin"] {
            assert!(out.join(name).is_file(), "{name}");
        }
        assert_eq!(bytes, size(&out).unwrap());
        assert!(bytes > 1001);
        fs::File::create(data.join("large")).unwrap().set_len(MOST_BYTES).unwrap();
        let error = pack(&program, Some(&data), &out).unwrap_err().to_string();
        assert!(error.contains("expected at most 60 MiB, got 60."), "{error}");
        fs::remove_dir_all(place).unwrap();
    }
}
