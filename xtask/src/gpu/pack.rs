//! `cargo xtask gpu pack`: packs the folder for a GPU machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::glibc;
use crate::metadata;
use crate::run::{cargo, root, run_checked};

/// The maximum size of the folder.
const MAX_BYTES: u64 = 40 << 20;

/// Files of the workspace to pack besides the program: their paths, and their names in the folder.
const FILES: [(&str, &str); 6] = [
    ("xtask/src/gpu/run.sh", "run.sh"),
    ("xtask/src/gpu/run.py", "run.py"),
    ("xtask/src/gpu/parts.py", "parts.py"),
    ("xtask/src/gpu/read.py", "read.py"),
    ("docs/compare/train.py", "train.py"),
    ("tests/golden/checkpoint.safetensors", "golden.safetensors"),
];

/// The default data set: 64x64 pixels of nine photographs.
const DATA: &str = "bagssl-data/data/photo-tiles-mini.tar";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder [default: gpu in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A small data set to train on instead of the program's photographs: a file or folder that
    /// `bagssl train` reads
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Use this program instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let target = metadata::target_folder()?;
    let out = args.out.clone().unwrap_or_else(|| target.join("gpu"));
    let data = args.data.clone().unwrap_or_else(|| root().join(DATA));
    if !data.exists() {
        bail!("--data: expected a file or folder, got {}", data.display());
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => {
            run_checked(&mut cargo(&["build", "--release", "-p", "bagssl-cli", "--features", "cuda", "--locked"]))?;
            target.join("release").join("bagssl")
        }
    };
    let glibc = glibc::check(&program)?;
    let bytes = pack(&program, &data, &out)?;
    let (mib, most) = (mib(bytes), MAX_BYTES >> 20);
    println!("{}: {mib:.1} of at most {most} MiB, needs glibc {glibc}", out.display());
    println!("copy it to the GPU machine and call ./run.sh call1 there");
    Ok(ExitCode::SUCCESS)
}

/// Fills the folder and returns the total size of its files in bytes.
pub(super) fn pack(program: &Path, data: &Path, out: &Path) -> Result<u64> {
    clear(out)?;
    compress(program, &out.join("bagssl.gz"))?;
    for (from, to) in FILES {
        copy(&root().join(from), &out.join(to))?;
    }
    let to = out.join("data");
    match data.file_name() {
        Some(name) if data.is_file() => {
            fs::create_dir(&to).with_context(|| to.display().to_string())?;
            copy(data, &to.join(name))?;
        }
        _ => copy(data, &to)?,
    }
    executable(&out.join("run.sh"))?;
    let bytes = size(out)?;
    if bytes > MAX_BYTES {
        bail!("{}: expected at most {} MiB, got {:.1}", out.display(), MAX_BYTES >> 20, mib(bytes));
    }
    Ok(bytes)
}

/// Creates the folder, or removes the data of an earlier pack from it. Rejects other folders, which
/// may contain anything.
fn clear(out: &Path) -> Result<()> {
    let place = || out.display().to_string();
    fs::create_dir_all(out).with_context(place)?;
    if fs::read_dir(out).with_context(place)?.next().is_none() {
        return Ok(());
    }
    if !out.join("bagssl.gz").is_file() {
        bail!("{}: expected an empty folder or an earlier pack, got another folder", place());
    }
    let data = out.join("data");
    if data.exists() { fs::remove_dir_all(&data).with_context(|| data.display().to_string()) } else { Ok(()) }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Compresses a file: the uncompressed program alone exceeds the maximum size.
fn compress(from: &Path, to: &Path) -> Result<()> {
    let mut program = fs::File::open(from).with_context(|| from.display().to_string())?;
    let file = fs::File::create(to).with_context(|| to.display().to_string())?;
    let mut packed = GzEncoder::new(file, Compression::best());
    std::io::copy(&mut program, &mut packed).with_context(|| to.display().to_string())?;
    packed.finish().map(drop).with_context(|| to.display().to_string())
}

/// Copies a file, or a folder with its contents.
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
    use super::super::tests::Folder;
    use super::*;

    #[test]
    fn the_folder_holds_all_that_is_needed_and_not_too_much() {
        let place = Folder::new("pack");
        let (program, data, out) = (place.join("program"), place.join("some"), place.join("out"));
        fs::write(&program, "x").unwrap();
        fs::create_dir_all(data.join("deep")).unwrap();
        fs::write(data.join("deep/train.bin"), vec![7; 1000]).unwrap();
        let bytes = pack(&program, &data, &out).unwrap();
        let names = ["bagssl.gz", "run.sh", "run.py", "parts.py", "read.py", "train.py", "golden.safetensors"];
        for name in names.iter().chain(&["data/deep/train.bin"]) {
            assert!(out.join(name).is_file(), "{name}");
        }
        assert_eq!(bytes, size(&out).unwrap());
        assert!(bytes > 1001);
        pack(&program, &root().join(DATA), &out).unwrap();
        let tar = out.join("data/photo-tiles-mini.tar");
        assert_eq!(fs::read(tar).unwrap(), fs::read(root().join(DATA)).unwrap());
        assert!(!out.join("data/deep").exists());
        fs::File::create(data.join("large")).unwrap().set_len(MAX_BYTES).unwrap();
        let error = pack(&program, &data, &out).unwrap_err().to_string();
        assert!(error.contains("expected at most 40 MiB, got 40."), "{error}");
        let error = pack(&program, &data, &data).unwrap_err().to_string();
        assert!(error.contains("expected an empty folder or an earlier pack"), "{error}");
    }
}
