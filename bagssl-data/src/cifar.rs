//! CIFAR-10 and CIFAR-100, binary version.
//!
//! # Source
//! Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009: a record is one label byte (two in
//! CIFAR-100: coarse, fine), then 32x32 red, green and blue values, row by row.

use std::fs;
use std::path::Path;

use bagssl_core::patch::ImageSize;

use crate::dataset::{Dataset, Entry, Split, Storage};
use crate::error::{Error, Result};
use crate::image::Image;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// The two layouts: the files of each half, the list of classes, and the label bytes of a record.
struct Layout {
    train: &'static [&'static str],
    test: &'static [&'static str],
    names: &'static str,
    labels: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        test: &["test_batch.bin"],
        names: "batches.meta.txt",
        labels: 1,
    },
    Layout { train: &["train.bin"], test: &["test.bin"], names: "fine_label_names.txt", labels: 2 },
];

/// Whether a folder holds such files.
pub(crate) fn is_cifar(folder: &Path) -> bool {
    LAYOUTS.iter().any(|layout| folder.join(layout.train[0]).is_file() || folder.join(layout.test[0]).is_file())
}

/// Opens one half. Images are named by their file and number.
pub(crate) fn open(folder: &Path, split: Split) -> Result<Dataset> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|error| Error::Read { path, error })
    };
    let here = |layout: &&Layout| folder.join(layout.train[0]).is_file() || folder.join(layout.test[0]).is_file();
    let layout = LAYOUTS.iter().find(here).expect("asked before");
    let names = read(layout.names)?;
    let names = String::from_utf8_lossy(&names);
    let classes: Vec<String> = names.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
    let files = if split == Split::Train { layout.train } else { layout.test };
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    for file in files {
        let content = read(file)?;
        entries.extend(records(&content, bytes.len(), layout.labels, classes.len(), &folder.join(file), file)?);
        bytes.extend(content);
    }
    Ok(Dataset { origin: folder.into(), classes, entries, storage: Storage::Planes(bytes) })
}

/// The images of one file, whose bytes begin at `base`; `labels` label bytes in front of each, the last of which counts.
///
/// # Errors
/// [`Error::Format`] if the file is not made of whole records, or a label has no class.
pub(crate) fn records(
    content: &[u8],
    base: usize,
    labels: usize,
    classes: usize,
    path: &Path,
    file: &str,
) -> Result<Vec<Entry>> {
    let length = labels + 3 * PLANE;
    let refuse = |expected, got| Err(Error::Format { path: path.into(), expected, got });
    if content.is_empty() || !content.len().is_multiple_of(length) {
        return refuse(
            "whole records of CIFAR's binary version",
            format!("{} bytes, not a multiple of {length}", content.len()),
        );
    }
    let mut entries = Vec::with_capacity(content.len() / length);
    for (number, record) in content.chunks_exact(length).enumerate() {
        let label = u32::from(record[labels - 1]);
        if label as usize >= classes {
            return refuse("a label of the list of classes", format!("label {label} of {classes} in record {number}"));
        }
        let offset = (base + number * length + labels) as u64;
        entries.push(Entry { label, name: format!("{file}/{number}"), offset, length: 3 * PLANE as u64 });
    }
    Ok(entries)
}

/// An image from its planes.
pub(crate) fn image(planes: &[u8]) -> Image {
    let rgb = (0..PLANE).flat_map(|pixel| [0, 1, 2].map(|channel| planes[channel * PLANE + pixel])).collect();
    Image::new(ImageSize { height: SIDE as u32, width: SIDE as u32 }, rgb)
}
