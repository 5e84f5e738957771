//! How long it takes to open ImageNet's training archive when its index is there, and how much memory.
//!
//! `cargo run --release -p bagssl-data --example index_open -- FOLDER` makes a synthetic archive of 1,000 classes with 1,281
//! empty images each in FOLDER (about 0.7 GB) if there is none, and opens it. Run it twice: the first run makes the index.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bagssl_data::{Dataset, Split};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("expected a folder, got none")?);
    let archive = folder.join("ILSVRC2012_img_train.tar");
    if !archive.exists() {
        make(&archive)?;
    }
    let begun = Instant::now();
    let dataset = Dataset::open(&folder, Split::Train)?;
    println!("{}, opened in {:.3} s", dataset.summary(), begun.elapsed().as_secs_f64());
    // Linux alone tells the largest memory of a process.
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    }
    Ok(())
}

fn make(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut outer = tar::Builder::new(BufWriter::new(File::create(path)?));
    for class in 0..1000 {
        let mut inner = tar::Builder::new(Vec::new());
        for image in 0..1281 {
            append(&mut inner, &format!("n{class:08}_{image}.JPEG"), &[])?;
        }
        append(&mut outer, &format!("n{class:08}.tar"), &inner.into_inner()?)?;
    }
    outer.into_inner()?.flush()?;
    Ok(())
}

fn append(builder: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, bytes)
}
