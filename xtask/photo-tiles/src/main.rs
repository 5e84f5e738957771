//! PhotoTiles: labeled images for measurements, made of free photographs that Debian's packages carry.
//!
//! Every class is a photograph (or a photographic texture), every image a tile of it of 64x64 pixels. The validation tiles come
//! from other regions of the photograph than the training tiles. Tiles are chosen by Python's random numbers, and cut as
//! Pillow would: the set was first made with these, and figures that were measured then hold on.

mod photos;
mod python;
mod lanczos;
mod tiles;
mod write;

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use image::{ImageReader, RgbImage};

use clap::Parser;
use photos::{PACKAGES, PHOTOS};

/// Build PhotoTiles from free photographs in Debian's packages (needs apt-get and dpkg; downloads 220 MB once)
///
/// Writes photo-tiles-64.tar (39 classes, 12,965 training and 3,549 validation tiles of 64x64 pixels, ImageFolder) and
/// cifar100-binary/ (the same at 32x32, as CIFAR-100's files).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask data photo-tiles", args_override_self = true)]
struct Args {
    /// Folder to write to
    folder: PathBuf,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
    /// Folder of the packages, which are downloaded if they are not there yet
    #[arg(long, value_name = "DIR", default_value = "target/photo-tiles")]
    packages: PathBuf,
}

/// The seed of the choice of tiles.
const SEED: u32 = 20260;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let names = [
        "photo-tiles-64.tar",
        "cifar100-binary/train.bin",
        "cifar100-binary/test.bin",
        "cifar100-binary/fine_label_names.txt",
    ];
    let paths = names.map(|name| args.folder.join(name));
    if let Some(there) = paths.iter().find(|path| !args.force && path.symlink_metadata().is_ok()) {
        bail!("{}: already exists; --force replaces it", there.display());
    }
    let root = unpacked(&args.packages)?;
    eprintln!("cutting {} photographs", PHOTOS.len());
    let halves = tiles::choose(PHOTOS.iter().map(|photo| decoded(&root.join("usr/share").join(photo))), SEED)?;
    let number = |(label, photo): (usize, &&str)| format!("{label:02}-{}", photos::class(photo));
    let classes: Vec<String> = PHOTOS.iter().enumerate().map(number).collect();
    let contents = [
        write::tar("photo-tiles-64", &classes, &halves)?,
        write::cifar(&halves[0]),
        write::cifar(&halves[1]),
        format!("{}\n", classes.join("\n")).into_bytes(),
    ];
    fs::create_dir_all(args.folder.join("cifar100-binary")).with_context(|| args.folder.display().to_string())?;
    for (path, bytes) in paths.iter().zip(contents) {
        whole(path, &bytes)?;
    }
    let [train, validation] = halves.map(|half| half.len());
    println!(
        "{} classes, {train} training and {validation} validation tiles in {}",
        classes.len(),
        args.folder.display()
    );
    Ok(())
}

/// The folder with what is in Debian's packages, which are downloaded if they are not there yet.
fn unpacked(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let missing: Vec<&str> =
        PACKAGES.into_iter().filter(|package| !found(folder, package).is_ok_and(|path| path.is_some())).collect();
    if !missing.is_empty() {
        let mut download = Command::new("apt-get");
        download.args(["download", "-qq"]).args(missing).current_dir(folder);
        run_checked(&mut download).context("expected Debian's apt-get and its lists of packages (apt-get update)")?;
    }
    let root = folder.join("root");
    for package in PACKAGES {
        let path =
            found(folder, package)?.with_context(|| format!("expected {package}_*.deb in {}", folder.display()))?;
        run_checked(Command::new("dpkg").arg("-x").arg(path).arg(&root))?;
    }
    Ok(root)
}

/// Runs a command that must succeed.
fn run_checked(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().context(name.clone())?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// The file of a package.
fn found(folder: &Path, package: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".deb") && name.split('_').next() == Some(package) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn decoded(path: &Path) -> Result<RgbImage> {
    let named = || path.display().to_string();
    let file = BufReader::new(fs::File::open(path).with_context(named)?);
    let mut reader = ImageReader::new(file).with_guessed_format().with_context(named)?;
    reader.no_limits();
    Ok(reader.decode().with_context(named)?.into_rgb8())
}

/// Writes a file as a whole or not at all.
fn whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = PathBuf::from(format!("{}.partial", path.display()));
    fs::write(&partial, bytes).with_context(|| partial.display().to_string())?;
    fs::rename(&partial, path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_by_its_whole_name() {
        let folder = std::env::temp_dir().join(format!("bagssl-photo-tiles-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("mate-backgrounds-extra_1.deb"), "").unwrap();
        assert_eq!(found(&folder, "mate-backgrounds").unwrap(), None);
        fs::write(folder.join("mate-backgrounds_1.26.0-1_all.deb"), "").unwrap();
        assert!(found(&folder, "mate-backgrounds").unwrap().is_some());
        fs::remove_dir_all(&folder).unwrap();
    }
}
