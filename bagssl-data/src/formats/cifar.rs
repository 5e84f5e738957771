//! The binary version of CIFAR-10 and CIFAR-100.
//!
//! # Source
//! Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009. A record is one label
//! byte (two in CIFAR-100: coarse, fine), followed by 32x32 red, green and blue values, each plane
//! row by row.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use bagssl_core::patch::ImageSize;

use crate::entries::{Entries, Entry};
use crate::error::{Error, Result, one_line};
use crate::file::open_file;
use crate::format::Format;
use crate::formats::archive::{LongNameEntries, split_name};
use crate::image::Image;
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;

const SIDE: usize = 32;

/// The size of every image.
pub(crate) const SIZE: ImageSize = ImageSize { height: SIDE as u32, width: SIDE as u32 };
const PLANE: usize = SIDE * SIDE;
/// The bytes of every image.
pub(crate) const PIXELS: u64 = 3 * PLANE as u64;
/// The maximum total size of the files of one split in bytes: three times CIFAR-100's training
/// images.
const MAX_BYTES: u64 = 512 << 20;

/// The layout of CIFAR's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cifar {
    /// CIFAR-10: one label.
    Ten,
    /// CIFAR-100: a coarse and a fine label. The fine label is the class. The list of fine classes
    /// may have fewer than 100 names.
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

/// Returns the layout of the files in a folder, or `None` if it has no CIFAR files.
///
/// # Errors
/// [`Error::Format`] if the folder has files of both layouts.
pub(crate) fn layout(folder: &Path) -> Result<Option<Cifar>> {
    let mut found = Cifar::ALL.into_iter().filter(|layout| layout.is_in(folder));
    let first = found.next();
    if found.next().is_some() {
        let (expected, got) = ("the files of CIFAR-10 or CIFAR-100", "both".into());
        return Err(Error::Format { path: folder.into(), expected, got });
    }
    Ok(first)
}

/// Opens one split. An image is named by its file and its index in it.
pub(crate) fn open(folder: &Path, layout: Cifar, split: Split) -> Result<Index> {
    let list = folder.join(layout.list());
    let classes = classes(&read(&list, 1)?, &list)?;
    let files = layout.files(split).iter().map(|file| Ok((*file, read(&folder.join(file), layout.record() as u64)?)));
    join(files, classes, layout, Format::Cifar, folder)
}

/// Opens one split of a `.tar.gz`.
pub(crate) fn open_archive(path: &Path, split: Split) -> Result<Index> {
    let file = open_file(path)?;
    from_archive(std::io::BufReader::new(file), path, split)
}

/// The error message for the unsupported Python version.
pub(crate) const PYTHON_VERSION: &str = "the Python version; use the binary version (cifar-10-binary.tar.gz)";

/// Returns whether a folder has the unsupported Python version.
pub(crate) fn is_python(root: &Path) -> bool {
    let has = |name: &str| root.join(name).is_file();
    (has("data_batch_1") && has("batches.meta")) || (has("train") && has("test") && has("meta"))
}

/// The key that marks files of the Python version.
const PYTHON: &str = "python";

/// The error message for other compressed archives.
const COMPRESSED: &str = "for other archives, run gunzip to get a .tar";

/// Opens one split of a `.tar.gz`. Folders in the archive are ignored.
pub(crate) fn from_archive(reader: impl Read, origin: &Path, split: Split) -> Result<Index> {
    let mut files = unpacked(reader, origin, split)?;
    let refuse = |got| Error::Format { path: origin.into(), expected: "the files of CIFAR-10 or CIFAR-100", got };
    let is_in = |layout: &Cifar| files.contains_key(layout.list());
    let others = || match files.contains_key(PYTHON) {
        true => refuse(PYTHON_VERSION.into()),
        false => refuse(format!("no list of classes; {COMPRESSED}")),
    };
    let layout = Cifar::ALL.into_iter().find(is_in).ok_or_else(others)?;
    let classes = classes(&files[layout.list()], &origin.join(layout.list()))?;
    let take = |file: &&'static str| {
        let content = files.remove(*file).ok_or_else(|| refuse(format!("no {file}")))?;
        Ok((*file, content))
    };
    join(layout.files(split).iter().map(take), classes, layout, Format::CifarArchive, origin)
}

/// Unpacks the files of a split in either layout from a `.tar.gz`. The keys are file names without
/// folders.
fn unpacked(reader: impl Read, origin: &Path, split: Split) -> Result<BTreeMap<String, Vec<u8>>> {
    let failed = |error: std::io::Error| Error::Format {
        path: origin.into(),
        expected: "a complete .tar.gz of CIFAR's binary version",
        got: one_line(&error),
    };
    let refuse = |file: &str, got| Error::Format { path: origin.join(file), expected: "each file once", got };
    let mut limited = flate2::read::GzDecoder::new(reader).take(2 * MAX_BYTES);
    let (mut files, mut length) = (BTreeMap::new(), 0);
    for entry in LongNameEntries::new(tar::Archive::new(&mut limited).entries().map_err(failed)?) {
        let (path, mut entry) = entry.map_err(failed)?;
        let (folder, file) = split_name(std::str::from_utf8(&path).unwrap_or_default());
        if folder.ends_with("cifar-10-batches-py") || folder.ends_with("cifar-100-python") {
            files.insert(PYTHON.into(), Vec::new());
        }
        if !entry.header().entry_type().is_file() || !is_known(file, split) {
            continue;
        }
        length += entry.size();
        check_length(length, 1, &origin.join(file))?;
        let mut content = Vec::with_capacity(entry.size() as usize);
        entry.read_to_end(&mut content).map_err(failed)?;
        if files.insert(file.to_string(), content).is_some() {
            return Err(refuse(file, "a second one".into()));
        }
    }
    // Read to the end: the checksum follows the tar.
    std::io::copy(&mut limited, &mut std::io::sink()).map_err(failed)?;
    if limited.limit() == 0 {
        let expected = "a .tar.gz of CIFAR's binary version of at most 1 GiB unpacked";
        return Err(Error::Format { path: origin.into(), expected, got: format!("more; {COMPRESSED}") });
    }
    Ok(files)
}

fn is_known(file: &str, split: Split) -> bool {
    Cifar::ALL.into_iter().any(|layout| layout.list() == file || layout.files(split).contains(&file))
}

/// Joins the images of several files.
fn join(
    files: impl Iterator<Item = Result<(&'static str, Vec<u8>)>>,
    classes: Vec<String>,
    layout: Cifar,
    format: Format,
    origin: &Path,
) -> Result<Index> {
    let (mut entries, mut contents) = (Entries::default(), Vec::new());
    for file in files {
        let (file, content) = file?;
        let (path, prefix) = (origin.join(file), format!("{file}/"));
        records(&content, contents.len() as u32, layout, classes.len(), &path, &prefix, &mut entries)?;
        contents.push(content);
    }
    Ok(Index::new(origin, format, classes, entries, Storage::PlanarRgb(contents)))
}

/// Opens records in memory. An image is named by its index.
pub(crate) fn from_bytes(records: Vec<u8>, list: &[u8], layout: Cifar, origin: &Path) -> Result<Index> {
    let classes = classes(list, origin)?;
    let mut entries = Entries::default();
    self::records(&records, 0, layout, classes.len(), origin, "", &mut entries)?;
    Ok(Index::new(origin, Format::Cifar, classes, entries, Storage::PlanarRgb(vec![records])))
}

/// Reads a file after checking its length.
fn read(path: &Path, record: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::Read { path: path.into(), error };
    let file = open_file(path)?;
    let length = file.metadata().map_err(failed)?.len();
    check_length(length, record, path)?;
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn check_length(length: u64, record: u64, path: &Path) -> Result<()> {
    let refuse = |got| Err(Error::Format { path: path.into(), expected: "a file of CIFAR's binary version", got });
    if length == 0 || !length.is_multiple_of(record) {
        return refuse(format!("{length} bytes, not a multiple of {record}"));
    }
    if length > MAX_BYTES {
        return refuse(format!("{length} bytes, more than {MAX_BYTES}"));
    }
    Ok(())
}

/// Parses a list of class names, one per line. Empty lines are skipped.
fn classes(list: &[u8], path: &Path) -> Result<Vec<String>> {
    let refuse = |got| Error::Format { path: path.into(), expected: "a list of unique class names", got };
    let text = std::str::from_utf8(list).map_err(|error| refuse(error.to_string()))?;
    let classes: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
    let mut sorted: Vec<&String> = classes.iter().collect();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(format!("{:?} twice", pair[0])));
    }
    if classes.is_empty() {
        return Err(refuse("an empty list".into()));
    }
    Ok(classes)
}

/// Adds the images of one file with index `source`. An image is named by `file` and its index.
///
/// # Errors
/// [`Error::Format`] if the file does not consist of complete records, or a label has no class.
fn records(
    content: &[u8],
    source: u32,
    layout: Cifar,
    classes: usize,
    path: &Path,
    file: &str,
    entries: &mut Entries,
) -> Result<()> {
    let (labels, length) = (layout.labels(), layout.record());
    check_length(content.len() as u64, length as u64, path)?;
    for (number, record) in content.chunks_exact(length).enumerate() {
        let label = u32::from(record[labels - 1]);
        if label as usize >= classes {
            let got = format!("label {label} in record {number} for {classes} classes");
            return Err(Error::Format { path: path.into(), expected: "a label in the list of classes", got });
        }
        let offset = (number * length + labels) as u64;
        entries.push(Entry { label, name: &format!("{file}{number}"), source, offset, length: 3 * PLANE as u64 });
    }
    Ok(())
}

/// Interleaves the planes of an image.
pub(crate) fn image(planes: &[u8]) -> Image {
    let rgb = (0..PLANE).flat_map(|pixel| [0, 1, 2].map(|channel| planes[channel * PLANE + pixel])).collect();
    Image::new(SIZE, rgb)
}
