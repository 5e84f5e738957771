//! Data sets: where images and their classes come from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cifar;
use crate::error::{Error, Result};
use crate::folder;
use crate::image::Image;
use crate::tarball;

/// One of the two halves of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What is learned from.
    Train,
    /// What is held out.
    Validation,
}

impl Split {
    /// The names that a split's folder may have.
    pub(crate) fn folders(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train"],
            Split::Validation => &["val", "validation", "test"],
        }
    }
}

/// Images with classes. Opening it reads names only; images are read when they are decoded.
#[derive(Debug)]
pub struct Dataset {
    pub(crate) origin: PathBuf,
    pub(crate) classes: Vec<String>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) storage: Storage,
}

/// An image before it is read.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) label: u32,
    /// The path inside the data set.
    pub(crate) name: String,
    /// Where its bytes begin, and how many there are.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Where the bytes of images lie.
#[derive(Debug)]
pub(crate) enum Storage {
    /// Each in a file of its own, under this folder.
    Files(PathBuf),
    /// All in one file.
    File(fs::File),
    /// All in memory.
    Memory(std::borrow::Cow<'static, [u8]>),
    /// Raw pixels of 32x32, plane by plane, in memory.
    Planes(Vec<u8>),
}

impl Dataset {
    /// Opens one half of a data set: a folder or `.tar` with `train/` and `val/` (or `validation/`, `test/`), each with
    /// a folder for each class; or the folder of CIFAR-10's or CIFAR-100's binary files. Classes are numbered in the
    /// order of their names (CIFAR's in the order of its list).
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Format`] if it is none of these, is empty, or its halves differ in their classes.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|error| Error::Read { path: path.into(), error })?;
        if meta.is_dir() {
            return if cifar::is_cifar(path) { cifar::open(path, split) } else { folder::open(path, split) };
        }
        tarball::open(path, split)
    }

    /// Image files, in this order, all of one class that has no name.
    ///
    /// # Errors
    /// [`Error::Read`] if one is not there, [`Error::Format`] if one is no file or has a name that is not UTF-8.
    pub fn of_files(paths: &[PathBuf]) -> Result<Self> {
        let entry = |path: &PathBuf| {
            let meta = fs::metadata(path).map_err(|error| Error::Read { path: path.clone(), error })?;
            let refuse = |expected, got: &str| Error::Format { path: path.clone(), expected, got: got.into() };
            if !meta.is_file() {
                return Err(refuse("an image file", "something else"));
            }
            let name = path.to_str().ok_or_else(|| refuse("a name in UTF-8", "another"))?;
            Ok(Entry { label: 0, name: name.into(), offset: 0, length: meta.len() })
        };
        let entries = paths.iter().map(entry).collect::<Result<_>>()?;
        Ok(Dataset {
            origin: PathBuf::new(),
            classes: vec![String::new()],
            entries,
            storage: Storage::Files(PathBuf::new()),
        })
    }

    /// A data set in a tar in memory.
    ///
    /// # Errors
    /// As [`Dataset::open`]; errors name `origin`.
    pub fn from_tar(bytes: impl Into<std::borrow::Cow<'static, [u8]>>, origin: &Path, split: Split) -> Result<Self> {
        tarball::from_bytes(bytes.into(), origin, split)
    }

    /// `photo-tiles-mini`, which this crate carries: 900 training and 270 validation tiles of 64x64 pixels, cut from
    /// nine photographs; the validation tiles come from regions of their own. See `data/ATTRIBUTION.md`.
    ///
    /// # Errors
    /// None in practice; those of [`Dataset::open`].
    #[cfg(feature = "embedded")]
    pub fn embedded(split: Split) -> Result<Self> {
        Self::from_tar(EMBEDDED, Path::new("photo-tiles-mini"), split)
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none: never, after opening.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names of the classes, by number.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The class of an image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn label(&self, image: usize) -> u32 {
        self.entries[image].label
    }

    /// The path of an image inside the data set.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn name(&self, image: usize) -> &str {
        &self.entries[image].name
    }

    /// Reads and decodes an image.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Image`], with the image's name.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn decode(&self, image: usize) -> Result<Image> {
        let entry = &self.entries[image];
        let full = || match self.origin.as_os_str().is_empty() {
            true => entry.name.clone(),
            false => format!("{}: {}", self.origin.display(), entry.name),
        };
        let range = entry.offset as usize..(entry.offset + entry.length) as usize;
        match &self.storage {
            Storage::Files(root) => {
                let path = root.join(&entry.name);
                let bytes = fs::read(&path).map_err(|error| Error::Read { path, error })?;
                Image::decode(&bytes, &full())
            }
            Storage::File(file) => {
                let mut bytes = vec![0; entry.length as usize];
                tarball::read_at(file, &mut bytes, entry.offset)
                    .map_err(|error| Error::Read { path: self.origin.join(&entry.name), error })?;
                Image::decode(&bytes, &full())
            }
            Storage::Memory(bytes) => Image::decode(&bytes[range], &full()),
            Storage::Planes(bytes) => Ok(cifar::image(&bytes[range])),
        }
    }

    /// A short text that is another one if an image is added, removed, renamed, moved to another class or changed in
    /// its length: a hash (FNV-1a) of all names, classes and lengths, with the number of images.
    pub fn fingerprint(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for &byte in bytes.iter().chain(&[0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for entry in &self.entries {
            add(entry.name.as_bytes());
            add(self.classes[entry.label as usize].as_bytes());
            add(&entry.length.to_le_bytes());
        }
        format!("{}-{hash:016x}", self.len())
    }
}

/// Who took the embedded photographs, and under which licences they are.
#[cfg(feature = "embedded")]
pub const EMBEDDED_ATTRIBUTION: &str = include_str!("../data/ATTRIBUTION.md");

#[cfg(feature = "embedded")]
const EMBEDDED: &[u8] = include_bytes!("../data/photo-tiles-mini.tar");

/// Collects images under their classes' names, and numbers the classes.
pub(crate) struct Collector {
    origin: PathBuf,
    found: Vec<(String, Entry)>,
}

impl Collector {
    pub(crate) fn new(origin: &Path) -> Self {
        Collector { origin: origin.into(), found: Vec::new() }
    }

    pub(crate) fn add(&mut self, class: String, name: String, offset: u64, length: u64) {
        self.found.push((class, Entry { label: 0, name, offset, length }));
    }

    /// The data set, in the order of the images' names; `classes` are those of both halves.
    pub(crate) fn finish(self, mut classes: Vec<String>, split: Split, storage: Storage) -> Result<Dataset> {
        if self.found.is_empty() {
            let expected = "a folder with train/ and val/, each with a folder of images for each class";
            let got = format!("no image under {}/", split.folders().join("/ or "));
            return Err(Error::Format { path: self.origin, expected, got });
        }
        classes.sort();
        classes.dedup();
        let mut entries: Vec<Entry> = self
            .found
            .into_iter()
            .map(|(class, entry)| Entry { label: classes.binary_search(&class).unwrap_or(0) as u32, ..entry })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let got = format!("two images named {}", pair[0].name);
            return Err(Error::Format { path: self.origin, expected: "images with names of their own", got });
        }
        Ok(Dataset { origin: self.origin, classes, entries, storage })
    }
}

/// Whether a file's name is that of an image.
pub(crate) fn is_image(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or("");
    ["jpg", "jpeg", "png", "webp", "bmp", "gif"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}
