//! Data sets: where images and their classes come from.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bagssl_core::patch::ImageSize;

use crate::content::{self, Fingerprint};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::formats::cifar::{self, Cifar};
use crate::formats::parquet::columns::Columns;
use crate::formats::{detect, folder, imagenet, parquet, walk};
use crate::image::decoder::Prepared;
use crate::image::{Decode, Image};
use crate::index::Index;
use crate::memory::{Budget, Decoded, Room};
use crate::passed::PassedOver;
use crate::split::Split;
use crate::storage::Storage;

/// Images with classes. Opening it reads names only; images are read when they are decoded.
#[derive(Debug)]
pub struct Dataset {
    index: Index,
    decode: Decode,
    budget: Arc<Budget>,
    undamaged: Undamaged,
    /// Once it is known; it is another one for other images, and if they are decoded in another way.
    fingerprint: OnceLock<Fingerprint>,
}

impl From<Index> for Dataset {
    fn from(index: Index) -> Self {
        Dataset {
            index,
            decode: Decode::default(),
            budget: Budget::shared(),
            undamaged: Undamaged::default(),
            fingerprint: OnceLock::new(),
        }
    }
}

impl Dataset {
    /// Opens one half of a data set of any [`Format`], which is found out by what lies at `path`. The classes of both halves
    /// are numbered together, in the order of their names (CIFAR's and Hugging Face's in the order of their lists). Images
    /// are ordered by their names. [`Dataset::passed_over`] says what does not count. Where there are no halves all images are for
    /// training.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read; [`Error::Format`] if it is none of these, this half is empty, or a file is
    /// cut short. A tar that holds links or names that point outside is refused.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        detect::open(path, split, &Columns::default()).map(Into::into)
    }

    /// The same, with the columns that parquet's files are to be read by.
    ///
    /// # Errors
    /// Those of [`Dataset::open`]; [`Error::Setting`] if a column is named and there are no columns.
    pub fn open_with(path: &Path, split: Split, columns: &Columns) -> Result<Self> {
        detect::open(path, split, columns).map(Into::into)
    }

    /// The validation half, or all images if there are no halves.
    ///
    /// # Errors
    /// Those of [`Dataset::open_with`].
    pub fn held_out_or_all(path: &Path, columns: &Columns) -> Result<Self> {
        Self::open_with(path, Split::Validation, columns).or_else(|error| {
            match Self::open_with(path, Split::Train, columns) {
                Ok(all) if all.index.is_whole => Ok(all),
                _ => Err(error),
            }
        })
    }

    /// Image files, in this order, all of one class that has no name. A link that leads nowhere, a pipe, and a file whose name is not UTF-8
    /// are images that cannot be decoded.
    ///
    /// # Errors
    /// [`Error::Read`] if one is not there, [`Error::Format`] if one is a folder, [`Error::Setting`] if there is none.
    pub fn of_files(paths: &[PathBuf]) -> Result<Self> {
        let entry = |path: &PathBuf| {
            path.symlink_metadata().map_err(|error| Error::Read { path: path.clone(), error })?;
            let meta = fs::metadata(path);
            if meta.as_ref().is_ok_and(fs::Metadata::is_dir) {
                return Err(Error::Format { path: path.clone(), expected: "an image file", got: "a folder".into() });
            }
            Ok((walk::utf8(path.as_os_str()), walk::length(meta)))
        };
        let files: Vec<(String, u64)> = paths.iter().map(entry).collect::<Result<_>>()?;
        if files.is_empty() {
            return Err(Error::Setting { name: "images", expected: "at least one".into(), got: "none".into() });
        }
        Ok(Index::unlabeled(Path::new(""), &files, Storage::Files(PathBuf::new())).into())
    }

    /// One image in memory, of a class that has no name.
    pub fn of_bytes(name: &str, bytes: Vec<u8>) -> Self {
        Index::unlabeled(Path::new(""), &[(name.into(), bytes.len() as u64)], Storage::Memory(bytes.into())).into()
    }

    /// All images in a folder and those below it, in the order of their names, all of one class that has no name.
    ///
    /// # Errors
    /// [`Error::Read`] if something cannot be read, [`Error::Format`] if there is no image, or too many folders lie in each
    /// other.
    pub fn of_folder(path: &Path) -> Result<Self> {
        let walk::FolderContents { images: files, passed } = walk::images(path)?;
        if files.is_empty() {
            let instead = if passed.is_empty() { String::new() } else { format!(", but {passed}") };
            let (expected, got) = ("a folder with images in it", format!("none{instead}"));
            return Err(Error::Format { path: path.into(), expected, got });
        }
        Ok(Index { passed, ..Index::unlabeled(path, &files, Storage::Files(path.into())) }.into())
    }

    /// One half of a folder with folders of halves, whatever lists lie beside these.
    ///
    /// # Errors
    /// Those of [`Dataset::open`].
    pub fn of_halves(path: &Path, split: Split) -> Result<Self> {
        folder::open(path, split).map(Into::into)
    }

    /// What lies in a folder besides lists.
    ///
    /// # Errors
    /// Those of [`Dataset::format_at`].
    pub fn format_of_folder(path: &Path) -> Result<Format> {
        detect::format_of_folder(path)
    }

    /// What lies there, by a look at its names and first bytes.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read, [`Error::Format`] if it is no data set.
    pub fn format_at(path: &Path) -> Result<Format> {
        detect::format(path)
    }

    /// Whether what lies there is a data set with halves: not if it is an image, or a folder of nothing but images.
    pub fn is_set(path: &Path) -> bool {
        detect::format(path).is_ok_and(|format| format != Format::WholeFolder)
    }

    /// A data set in a tar in memory.
    ///
    /// # Errors
    /// As [`Dataset::open`]; errors name `origin`.
    pub fn from_tar(bytes: impl Into<std::borrow::Cow<'static, [u8]>>, origin: &Path, split: Split) -> Result<Self> {
        detect::tar_in_memory(bytes.into(), origin, split).map(Into::into)
    }

    /// Records of CIFAR's binary version in memory, and the list of classes, a name a line.
    ///
    /// # Errors
    /// [`Error::Format`] if the records are not whole, a label has no class, or the list is empty or has a name twice.
    pub fn from_cifar(records: Vec<u8>, list: &[u8], layout: Cifar, origin: &Path) -> Result<Self> {
        cifar::from_bytes(records, list, layout, origin).map(Into::into)
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

    /// CIFAR's `.tar.gz` in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not whole, or does not hold this half's files and the list of classes.
    pub fn from_cifar_archive(bytes: &[u8], origin: &Path, split: Split) -> Result<Self> {
        cifar::from_archive(bytes, origin, split).map(Into::into)
    }

    /// A file of Hugging Face's parquet layout in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not whole, has no column of images or of labels, or is written in a way that is not read.
    pub fn from_parquet(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        parquet::from_bytes(bytes, origin).map(Into::into)
    }

    /// A shard of WebDataset in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if it is no whole tar, or an image has no label, a label no image, or both a key that is not theirs.
    pub fn from_shard(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        detect::shard_in_memory(bytes, origin).map(Into::into)
    }

    /// A short text that is another one if an image is added, removed, renamed, moved to another class or changed in a byte: the
    /// number of images, and a digest (XXH3-64) of all names, classes and bytes. A folder and its tar have the same; of parquet
    /// each file counts as a whole. It tells data sets apart by accident, not against somebody's intent.
    ///
    /// The first call reads all images. What it has found of files is kept in the user's cache folder: a file that has the length
    /// and times it had then is not read again, by whatever program. Of an image that cannot be read only the name and the class count.
    pub fn fingerprint(&self) -> String {
        self.fingerprint_with(&|_| {})
    }

    /// The same. `progress` hears how many more images are done, from several threads.
    pub fn fingerprint_with(&self, progress: &(dyn Fn(u64) + Sync)) -> String {
        self.fingerprint.get_or_init(|| self.index.fingerprint(self.decode, progress)).text.clone()
    }

    /// Whether some bytes are a whole file of digests, as [`Dataset::fingerprint`] keeps them.
    pub fn are_digests(bytes: &[u8]) -> bool {
        content::are_digests(bytes)
    }

    /// Whether some bytes are a whole index, as [`Dataset::open`] keeps one, of an archive of `length` bytes with the time 0.
    pub fn is_index(bytes: &[u8], length: u64) -> bool {
        imagenet::is_index(bytes, length)
    }

    /// Only the images of these classes, as ImageNet-100 is made of ImageNet with a list of wnids. The list has a class a line:
    /// its name, or its name and more words, which do not count. The classes are numbered in the order of their names.
    ///
    /// # Errors
    /// [`Error::Setting`] if the list is empty, has a name twice or one that is no class here, or no image is left.
    pub fn of_classes(self, list: &str) -> Result<Self> {
        let index = self.index.of_classes(list)?;
        Ok(Dataset { index, undamaged: Undamaged::default(), fingerprint: OnceLock::new(), ..self })
    }

    /// Only these images, in this order; the classes stay as they are.
    ///
    /// # Panics
    /// If there is no such image.
    #[must_use]
    pub fn of_images(self, images: &[u32]) -> Self {
        let index = self.index.of_images(images);
        Dataset { index, undamaged: Undamaged::default(), fingerprint: OnceLock::new(), ..self }
    }

    /// The same images, decoded in another way.
    #[must_use]
    pub fn with_decode(self, decode: Decode) -> Self {
        Dataset { decode, fingerprint: OnceLock::new(), ..self }
    }

    /// The same images, which take their memory from this budget instead of the [shared](Budget::shared) one.
    #[must_use]
    pub fn with_budget(self, budget: Arc<Budget>) -> Self {
        Dataset { budget, ..self }
    }

    /// The budget that decoding takes its memory from.
    pub fn budget(&self) -> Arc<Budget> {
        self.budget.clone()
    }

    /// What was opened.
    pub fn format(&self) -> Format {
        self.index.format
    }

    /// Where it lies; empty for single files.
    pub(crate) fn origin(&self) -> &Path {
        &self.index.origin
    }

    /// Whether images are turned as EXIF says.
    pub(crate) fn applies_exif(&self) -> bool {
        self.decode.exif
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none: never, after opening.
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// What lies there and is none of the images of either half, as far as opening this half has seen it.
    pub fn passed_over(&self) -> PassedOver {
        let mut all = self.index.beside.clone();
        all.join(&self.index.passed);
        all
    }

    /// The same of both halves, one of which is `self`: what lies outside of them counts once.
    pub fn passed_over_with(&self, other: &Dataset) -> PassedOver {
        let mut all = self.passed_over();
        all.join(&other.index.passed);
        all
    }

    /// The first image that has no class, if there is one: see [`Dataset::of_files`].
    pub fn without_class(&self) -> Option<&str> {
        let nameless = self.index.classes.iter().position(String::is_empty)? as u32;
        let image = self.index.entries.labels.iter().position(|label| *label == nameless)?;
        Some(self.name(image))
    }

    /// Whether the data set has no halves: then these are all of its images.
    pub fn is_whole(&self) -> bool {
        self.index.is_whole
    }

    /// The names of the classes, by number.
    pub fn classes(&self) -> &[String] {
        &self.index.classes
    }

    /// The class of an image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn label(&self, image: usize) -> u32 {
        self.index.entries.labels[image]
    }

    /// The path of an image inside the data set.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn name(&self, image: usize) -> &str {
        self.index.name(image)
    }

    /// Reads and decodes an image, when there is room for it in the budget: this waits for images that other threads have.
    /// A JPEG's data is gone through in full the first time.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Image`] or, if its bytes are no longer those of the [fingerprint](Dataset::fingerprint),
    /// [`Error::Changed`], with the image's name.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn decode(&self, image: usize) -> Result<Decoded> {
        let take = |bytes, name: &str| self.budget.take(bytes, name).map(Some);
        self.decode_with(image, &take, &|_| 0).map(|decoded| decoded.expect("it waits for room"))
    }

    /// Reads and decodes an image if there is room now in this budget: for it, and for `more` bytes that go with an image of
    /// its size.
    ///
    /// # Errors
    /// As [`Dataset::decode`].
    ///
    /// # Panics
    /// If there is no such image.
    pub fn try_decode(
        &self,
        image: usize,
        budget: &Arc<Budget>,
        more: &dyn Fn(ImageSize) -> u64,
    ) -> Result<Option<Decoded>> {
        self.decode_with(image, &|bytes, name| budget.try_take(bytes, name), more)
    }

    fn decode_with(
        &self,
        image: usize,
        take: &dyn Fn(u64, &str) -> Result<Option<Room>>,
        more: &dyn Fn(ImageSize) -> u64,
    ) -> Result<Option<Decoded>> {
        if let Storage::PlanarRgb(_) = self.index.storage {
            return Ok(Some(Decoded::new(cifar::image(&self.bytes(image)?), None)));
        }
        let name = self.index.full_name(image);
        let mut wanted = self.index.reading(image)?;
        loop {
            let Some(mut room) = take(wanted, &name)? else { return Ok(None) };
            let bytes = self.bytes(image)?;
            let prepared = Prepared::new(&bytes, &name)?;
            let more = more(prepared.size());
            wanted =
                Prepared::reading(bytes.len() as u64).saturating_add(prepared.needs(self.decode)?).saturating_add(more);
            // Who keeps a file while waiting for more might wait for others who do so too.
            if room.try_grow(wanted) {
                let decoded = prepared.decode(self.decode, self.undamaged.has(image))?;
                self.undamaged.add(image, self.len());
                room.shrink(decoded.rgb().len() as u64 + more);
                return Ok(Some(Decoded::new(decoded, Some(room))));
            }
        }
    }

    /// The bytes of an image, compared with their digest where the fingerprint is known.
    fn bytes(&self, image: usize) -> Result<Cow<'_, [u8]>> {
        let bytes = self.index.bytes(image);
        match self.fingerprint.get() {
            Some(known) if known.is_changed(image, bytes.as_deref()) => {
                Err(Error::Changed { name: self.index.full_name(image) })
            }
            _ => bytes,
        }
    }

    /// The size of an image as its header says it, which EXIF may turn. Reads the file.
    ///
    /// # Errors
    /// Those of [`Dataset::decode`], as far as a header tells.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn size_in_header(&self, image: usize) -> Result<ImageSize> {
        if let Storage::PlanarRgb(_) = &self.index.storage {
            return Ok(cifar::SIZE);
        }
        let name = self.index.full_name(image);
        let _room = self.budget.take(self.index.reading(image)?, &name)?;
        Image::size_of(&self.bytes(image)?, &name)
    }

    /// What there is, in a line: `900 images of 9 classes`.
    pub fn summary(&self) -> String {
        let plural = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        };
        let images = plural(self.len(), "image", "images");
        let named = self.index.classes.iter().filter(|class| !class.is_empty()).count();
        match (named, self.index.classes.len() - named) {
            (0, _) => format!("{images} without classes"),
            (_, 0) => format!("{images} of {}", plural(named, "class", "classes")),
            _ => format!("{images} of {} or none", plural(named, "class", "classes")),
        }
    }

    /// What was opened, in a line: `ImageFolder, train/: 900 images of 9 classes`.
    pub fn describe(&self) -> String {
        match &self.index.half {
            Some(_) => format!("{}, {}", self.index.format, self.describe_half()),
            None => format!("{}: {}", self.index.format, self.summary()),
        }
    }

    /// Where it lies, and which half of it this is: `/photos, val/`.
    pub fn place(&self) -> String {
        let origin = std::path::absolute(&self.index.origin).unwrap_or_else(|_| self.index.origin.clone());
        [Some(origin.display().to_string()), self.index.half.clone()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The folder that the images lie in, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        let is_there = !matches!(self.index.storage, Storage::Memory(_)) && self.origin().is_dir();
        is_there.then_some(self.origin())
    }

    /// The same without the format: `val/: 900 images of 9 classes`.
    pub fn describe_half(&self) -> String {
        self.index.half.as_ref().map_or(self.summary(), |half| format!("{half}: {}", self.summary()))
    }
}

/// Images that have been decoded, and so need not be looked at again for damage.
#[derive(Debug, Default)]
pub(crate) struct Undamaged(OnceLock<Box<[AtomicBool]>>);

impl Undamaged {
    fn has(&self, image: usize) -> bool {
        self.0.get().is_some_and(|images| images[image].load(Ordering::Relaxed))
    }

    fn add(&self, image: usize, count: usize) {
        let all = self.0.get_or_init(|| (0..count).map(|_| AtomicBool::new(false)).collect());
        all[image].store(true, Ordering::Relaxed);
    }
}

/// Who took the embedded photographs, and under which licenses they are.
#[cfg(feature = "embedded")]
pub const EMBEDDED_ATTRIBUTION: &str = include_str!("../data/ATTRIBUTION.md");

#[cfg(feature = "embedded")]
const EMBEDDED: &[u8] = include_bytes!("../data/photo-tiles-mini.tar");
