//! CIFAR-10 and CIFAR-100, binary version.
//!
//! # Source
//! Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009: a record is one label byte (two in
//! CIFAR-100: coarse, fine), then 32x32 red, green and blue values, row by row.

use std::fs;
use std::io::Read;
use std::path::Path;

use bagssl_core::patch::ImageSize;

use crate::dataset::{Dataset, Entry, Split, Storage};
use crate::error::{Error, Result};
use crate::image::Image;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Bytes that a file may have: twice those of CIFAR-100's training images, and more.
const MOST_BYTES: u64 = 1 << 30;

/// Which of the two layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cifar {
    /// CIFAR-10: one label.
    Ten,
    /// CIFAR-100: a coarse and a fine label, of which the fine one is the class. A list of fewer than 100 fine classes
    /// is a set of so many classes.
    Hundred,
}

impl Cifar {
    const ALL: [Self; 2] = [Cifar::Ten, Cifar::Hundred];

    fn files(self, split: Split) -> &'static [&'static str] {
        match (self, split) {
            (Cifar::Ten, Split::Train) => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            (Cifar::Ten, Split::Validation) => &["test_batch.bin"],
            (Cifar::Hundred, Split::Train) => &["train.bin"],
            (Cifar::Hundred, Split::Validation) => &["test.bin"],
        }
    }

    fn list(self) -> &'static str {
        match self {
            Cifar::Ten => "batches.meta.txt",
            Cifar::Hundred => "fine_label_names.txt",
        }
    }

    fn labels(self) -> usize {
        match self {
            Cifar::Ten => 1,
            Cifar::Hundred => 2,
        }
    }

    fn record(self) -> usize {
        self.labels() + 3 * PLANE
    }

    fn is_in(self, folder: &Path) -> bool {
        Split::ALL.into_iter().any(|split| folder.join(self.files(split)[0]).is_file())
    }
}

/// Which layout a folder has; `None` if it holds no such files.
///
/// # Errors
/// [`Error::Format`] if it holds both.
pub(crate) fn layout(folder: &Path) -> Result<Option<Cifar>> {
    let mut found = Cifar::ALL.into_iter().filter(|layout| layout.is_in(folder));
    let first = found.next();
    if found.next().is_some() {
        let (expected, got) = ("the files of CIFAR-10 or of CIFAR-100", "both".into());
        return Err(Error::Format { path: folder.into(), expected, got });
    }
    Ok(first)
}

/// Opens one half. Images are named by their file and number.
pub(crate) fn open(folder: &Path, layout: Cifar, split: Split) -> Result<Dataset> {
    let list = folder.join(layout.list());
    let classes = classes(&read(&list, 1)?, &list)?;
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    for file in layout.files(split) {
        let path = folder.join(file);
        let content = read(&path, layout.record() as u64)?;
        entries.extend(records(&content, bytes.len(), layout, classes.len(), &path, &format!("{file}/"))?);
        bytes.extend(content);
    }
    Ok(Dataset { origin: folder.into(), classes, entries, storage: Storage::Planes(bytes) })
}

/// Records in memory, named by their number.
pub(crate) fn from_bytes(records: Vec<u8>, list: &[u8], layout: Cifar, origin: &Path) -> Result<Dataset> {
    let classes = classes(list, origin)?;
    let entries = self::records(&records, 0, layout, classes.len(), origin, "")?;
    Ok(Dataset { origin: origin.into(), classes, entries, storage: Storage::Planes(records) })
}

/// A file whose length is checked before it is read.
fn read(path: &Path, record: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::Read { path: path.into(), error };
    let file = fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    check_length(length, record, path)?;
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn check_length(length: u64, record: u64, path: &Path) -> Result<()> {
    let refuse = |got| Err(Error::Format { path: path.into(), expected: "a file of CIFAR's binary version", got });
    if length == 0 || !length.is_multiple_of(record) {
        return refuse(format!("{length} bytes, not a multiple of {record}"));
    }
    if length > MOST_BYTES {
        return refuse(format!("{length} bytes, more than {MOST_BYTES}"));
    }
    Ok(())
}

/// The names of a list, one in each line that is not empty.
fn classes(list: &[u8], path: &Path) -> Result<Vec<String>> {
    let refuse = |got| Error::Format { path: path.into(), expected: "a list of classes, each by another name", got };
    let text = std::str::from_utf8(list).map_err(|error| refuse(error.to_string()))?;
    let classes: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
    let mut sorted: Vec<&String> = classes.iter().collect();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(format!("{:?} twice", pair[0])));
    }
    if classes.is_empty() {
        return Err(refuse("no name".into()));
    }
    Ok(classes)
}

/// The images of one file, whose bytes begin at `base`; each is named by `file` and its number.
///
/// # Errors
/// [`Error::Format`] if the file is not made of whole records, or a label has no class.
fn records(content: &[u8], base: usize, layout: Cifar, classes: usize, path: &Path, file: &str) -> Result<Vec<Entry>> {
    let (labels, length) = (layout.labels(), layout.record());
    check_length(content.len() as u64, length as u64, path)?;
    let entry = |(number, record): (usize, &[u8])| {
        let label = u32::from(record[labels - 1]);
        if label as usize >= classes {
            let got = format!("label {label} of {classes} in record {number}");
            return Err(Error::Format { path: path.into(), expected: "a label of the list of classes", got });
        }
        let offset = (base + number * length + labels) as u64;
        Ok(Entry { label, name: format!("{file}{number}"), offset, length: 3 * PLANE as u64 })
    };
    content.chunks_exact(length).enumerate().map(entry).collect()
}

/// An image from its planes.
pub(crate) fn image(planes: &[u8]) -> Image {
    let rgb = (0..PLANE).flat_map(|pixel| [0, 1, 2].map(|channel| planes[channel * PLANE + pixel])).collect();
    Image::new(ImageSize { height: SIDE as u32, width: SIDE as u32 }, rgb)
}
