//! The index of a data set: the images of a split, their classes, and the location of their bytes.

use std::borrow::Cow;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::entries::{Entries, Entry};
use crate::error::{Error, Result};
use crate::file::open_file;
use crate::format::Format;
use crate::formats::walk::NOT_UTF8;
use crate::ignored::Ignored;
use crate::image::decoder::PreparedImage;
use crate::storage::Storage;

/// The images of one split, before any of them is read.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) origin: PathBuf,
    pub(crate) format: Format,
    pub(crate) classes: Vec<String>,
    pub(crate) entries: Entries,
    pub(crate) storage: Storage,
    /// The location of the split in the data set.
    pub(crate) split_name: Option<String>,
    /// Whether the data set has no splits, so that these are all images.
    pub(crate) is_unsplit: bool,
    /// The lines of the list whose files are missing, in ascending order. An entry's offset is its
    /// line.
    pub(crate) absent: Vec<u64>,
    /// The ignored files in this split, and outside of both splits.
    pub(crate) ignored: Ignored,
    pub(crate) ignored_outside: Ignored,
}

impl Index {
    pub(crate) fn new(origin: &Path, format: Format, classes: Vec<String>, entries: Entries, storage: Storage) -> Self {
        Index {
            origin: origin.into(),
            format,
            classes,
            entries,
            storage,
            split_name: None,
            is_unsplit: false,
            absent: Vec::new(),
            ignored: Ignored::default(),
            ignored_outside: Ignored::default(),
        }
    }

    /// Creates an index of images of one class with an empty name.
    pub(crate) fn unlabeled(origin: &Path, files: &[(String, u64)], storage: Storage) -> Self {
        let entries =
            files.iter().map(|(name, length)| Entry { label: 0, name, source: 0, offset: 0, length: *length });
        let entries = entries.collect();
        Index::new(origin, Format::Files, vec![String::new()], entries, storage)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn name(&self, image: usize) -> &str {
        self.entries.get(image).name
    }

    /// Returns the most bytes of memory that reading an image needs, before it is decoded.
    pub(crate) fn read_memory(&self, image: usize) -> Result<u64> {
        let entry = self.entries.get(image);
        match &self.storage {
            Storage::Tables(tables) => {
                let needs = tables[entry.source as usize].read_memory(entry.offset);
                needs.map_err(|error| self.named(image, error))
            }
            _ => Ok(PreparedImage::read_memory(entry.length)),
        }
    }

    /// Returns the bytes of an image: an encoded image, or raw pixels for CIFAR. The caller has
    /// reserved memory for the length in the entry.
    pub(crate) fn bytes(&self, image: usize) -> Result<Cow<'_, [u8]>> {
        let entry = self.entries.get(image);
        let (offset, length) = (entry.offset as usize, entry.length as usize);
        match &self.storage {
            Storage::Files(root) => self.file(image, &root.join(entry.name), entry).map(Cow::Owned),
            Storage::Archives(archives) => {
                let read = archives[entry.source as usize].read(entry.offset, entry.length);
                read.map(Cow::Owned).map_err(|error| self.named(image, error))
            }
            Storage::Tables(tables) => {
                let row = tables[entry.source as usize].image(entry.offset);
                row.map(Cow::Owned).map_err(|error| self.named(image, error))
            }
            Storage::Memory(bytes) => Ok(Cow::Borrowed(&bytes[offset..][..length])),
            Storage::PlanarRgb(files) => Ok(Cow::Borrowed(&files[entry.source as usize][offset..][..length])),
        }
    }

    /// Reads an image file. Its length must be the listed one; at most one byte more is read.
    fn file(&self, image: usize, path: &Path, entry: Entry<'_>) -> Result<Vec<u8>> {
        let failed = |error| Error::Read { path: path.into(), error };
        let file = open_file(path).map_err(|error| self.not_there(image, path, error))?;
        let mut bytes = Vec::with_capacity(entry.length as usize);
        file.take(entry.length + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 != entry.length {
            let more = if bytes.len() as u64 > entry.length { "more".into() } else { bytes.len().to_string() };
            let expected = format!("{} bytes (as listed)", entry.length);
            return Err(Error::Image { name: self.full_name(image), expected, got: more });
        }
        Ok(bytes)
    }

    /// Returns the images whose files were missing when they were listed.
    pub(crate) fn absent(&self) -> impl Iterator<Item = usize> {
        let is_absent = |image: &usize| self.absent.binary_search(&self.entries.offsets[*image]).is_ok();
        (0..if self.absent.is_empty() { 0 } else { self.len() }).filter(is_absent)
    }

    /// What is expected at the path of an image.
    fn wanted(&self, image: usize) -> String {
        match (self.format, &self.split_name) {
            (Format::Lists, Some(list)) => {
                format!("an image file, as line {} of {list} names", self.entries.get(image).offset)
            }
            _ => "an image file".into(),
        }
    }

    /// What is at the path of an image that cannot be opened, if it is no image file.
    fn not_there(&self, image: usize, path: &Path, error: Error) -> Error {
        let refuse = |expected: &str, got: &str| Error::Image {
            name: self.full_name(image),
            expected: expected.into(),
            got: got.into(),
        };
        match error {
            Error::Read { error, .. } if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
                refuse(&self.wanted(image), "a broken link")
            }
            Error::Read { error, .. }
                if error.kind() == io::ErrorKind::NotFound && self.name(image).contains(NOT_UTF8) =>
            {
                refuse("a file name in UTF-8", "another encoding")
            }
            Error::Read { error, .. } if self.format == Format::Lists => {
                refuse(&self.wanted(image), &error.to_string())
            }
            Error::Format { .. } => self.named(image, error),
            error => error,
        }
    }

    /// An error of an archive, as one of an image in it.
    fn named(&self, image: usize, error: Error) -> Error {
        let name = self.full_name(image);
        match error {
            Error::Read { error, .. } => Error::Read { path: name.into(), error },
            Error::Format { expected, got, .. } => Error::Image { name, expected: expected.into(), got },
            Error::Changed { .. } => Error::Changed { name },
            other => other,
        }
    }

    /// Returns the path of the data set and the name of the image in it.
    pub(crate) fn full_name(&self, image: usize) -> String {
        match self.origin.as_os_str().is_empty() {
            true => self.name(image).into(),
            false => format!("{}: {}", self.origin.display(), self.name(image)),
        }
    }

    /// See [`Dataset::select_classes`](crate::dataset::Dataset::select_classes).
    pub(crate) fn select_classes(self, list: &str) -> Result<Self> {
        let refuse = |expected: &str, got: String| Error::Setting { name: "classes", expected: expected.into(), got };
        let name = |line: &str| match self.classes.iter().find(|class| *class == line.trim()) {
            Some(class) => Some(class.clone()),
            None => line.split_whitespace().next().map(Into::into),
        };
        let mut classes: Vec<String> = list.lines().filter_map(name).collect();
        classes.sort();
        if classes.is_empty() {
            return Err(refuse("at least one class", "an empty list".into()));
        }
        if let Some(pair) = classes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(refuse("each class once", format!("{:?} twice", pair[0])));
        }
        if let Some(other) = classes.iter().find(|class| !self.classes.contains(class)) {
            return Err(refuse(
                "classes of the data set",
                format!("{other:?}, which is not in {}", self.origin.display()),
            ));
        }
        let number: Vec<Option<u32>> =
            self.classes.iter().map(|class| classes.binary_search(class).ok().map(|number| number as u32)).collect();
        let kept =
            self.entries.iter().filter_map(|entry| Some(Entry { label: number[entry.label as usize]?, ..entry }));
        let entries: Entries = kept.collect();
        if entries.len() == 0 {
            return Err(refuse("classes with images", format!("{} classes without images", classes.len())));
        }
        Ok(Index { entries, classes, ..self })
    }

    /// See [`Dataset::select_images`](crate::dataset::Dataset::select_images).
    pub(crate) fn select_images(self, images: &[u32]) -> Self {
        let entries = images.iter().map(|&image| self.entries.get(image as usize)).collect();
        Index { entries, ..self }
    }
}
