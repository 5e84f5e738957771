//! Data sets: where images and their classes come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

pub use crate::cifar::Cifar;
pub use crate::detect::Format;
pub use crate::imagenet::mat::{Synset, synsets};

use bagssl_core::patch::ImageSize;

use crate::cifar;
use crate::content::{self, Fingerprint};
use crate::decoder::Prepared;
use crate::detect;
use crate::entries::{Entries, Entry};
use crate::error::{Error, Result};
use crate::folder;
use crate::image::{Decode, Image};
use crate::imagenet;
use crate::memory::{Budget, Decoded, Room};
use crate::parquet;
pub use crate::passed::{PassedOver, Reason};
use crate::storage::Storage;

/// One of the two halves of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What is learned from.
    Train,
    /// What is held out.
    Validation,
}

impl Split {
    /// Both.
    pub const ALL: [Self; 2] = [Split::Train, Split::Validation];

    /// The names that a split's folder may have; the first that has images counts.
    pub(crate) fn folders(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train", "training"],
            Split::Validation => &["val", "valid", "validation", "test", "testing"],
        }
    }

    /// These names, for whoever has none of them.
    pub(crate) fn names(self, ending: &str) -> String {
        let (last, first) = self.folders().split_last().expect("a half has a name");
        let first: Vec<String> = first.iter().map(|name| format!("{name}{ending}")).collect();
        format!("{} or {last}{ending}", first.join(", "))
    }

    /// What helps who has no such half.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Split::Train => "",
            Split::Validation => "; `bagssl data split` makes two halves of a folder of images",
        }
    }
}

/// Which columns of parquet's files are read, where that is said; else they are found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The one with the bytes of images, or with a field `bytes` that has them.
    pub image: Option<String>,
    /// The one with the numbers of classes.
    pub label: Option<String>,
}

/// Images with classes. Opening it reads names only; images are read when they are decoded.
#[derive(Debug)]
pub struct Dataset {
    pub(crate) origin: PathBuf,
    pub(crate) format: Format,
    pub(crate) classes: Vec<String>,
    pub(crate) entries: Entries,
    pub(crate) storage: Storage,
    pub(crate) decode: Decode,
    pub(crate) budget: Arc<Budget>,
    pub(crate) undamaged: Undamaged,
    /// Once it is known; it is another one for other images, and if they are decoded in another way.
    pub(crate) fingerprint: OnceLock<Fingerprint>,
    /// Where the half lies in the data set.
    pub(crate) half: Option<String>,
    /// Whether there are no halves, and these are all images.
    pub(crate) is_whole: bool,
    /// What is passed over in this half, and outside of both.
    pub(crate) passed: PassedOver,
    pub(crate) beside: PassedOver,
}

impl Dataset {
    pub(crate) fn new(origin: &Path, format: Format, classes: Vec<String>, entries: Entries, storage: Storage) -> Self {
        Dataset {
            origin: origin.into(),
            format,
            classes,
            entries,
            storage,
            decode: Decode::default(),
            budget: Budget::shared(),
            undamaged: Undamaged::default(),
            fingerprint: OnceLock::new(),
            half: None,
            is_whole: false,
            passed: PassedOver::default(),
            beside: PassedOver::default(),
        }
    }

    /// Opens one half of a data set of any [`Format`], which is found out by what lies at `path`. The classes of both halves
    /// are numbered together, in the order of their names (CIFAR's and Hugging Face's in the order of their lists). Images
    /// are ordered by their names. [`Dataset::passed_over`] says what does not count. Where there are no halves all images are for
    /// training.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read; [`Error::Format`] if it is none of these, this half is empty, or a file is
    /// cut short. A tar that holds links or names that point outside is refused.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        detect::open(path, split, &Columns::default())
    }

    /// The same, with the columns that parquet's files are to be read by.
    ///
    /// # Errors
    /// Those of [`Dataset::open`]; [`Error::Setting`] if a column is named and there are no columns.
    pub fn open_with(path: &Path, split: Split, columns: &Columns) -> Result<Self> {
        detect::open(path, split, columns)
    }

    /// The validation half, or all images if there are no halves.
    ///
    /// # Errors
    /// Those of [`Dataset::open_with`].
    pub fn held_out_or_all(path: &Path, columns: &Columns) -> Result<Self> {
        Self::open_with(path, Split::Validation, columns).or_else(|error| {
            match Self::open_with(path, Split::Train, columns) {
                Ok(all) if all.is_whole => Ok(all),
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
            Ok((folder::utf8(path.as_os_str()), folder::length(meta)))
        };
        let files: Vec<(String, u64)> = paths.iter().map(entry).collect::<Result<_>>()?;
        if files.is_empty() {
            return Err(Error::Setting { name: "images", expected: "at least one".into(), got: "none".into() });
        }
        Ok(Self::unlabeled(Path::new(""), &files, Storage::Files(PathBuf::new())))
    }

    /// One image in memory, of a class that has no name.
    pub fn of_bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self::unlabeled(Path::new(""), &[(name.into(), bytes.len() as u64)], Storage::Memory(bytes.into()))
    }

    /// Images of one class that has no name.
    fn unlabeled(origin: &Path, files: &[(String, u64)], storage: Storage) -> Self {
        let entries =
            files.iter().map(|(name, length)| Entry { label: 0, name, source: 0, offset: 0, length: *length });
        let entries = entries.collect();
        Dataset::new(origin, Format::Files, vec![String::new()], entries, storage)
    }

    /// All images in a folder and those below it, in the order of their names, all of one class that has no name.
    ///
    /// # Errors
    /// [`Error::Read`] if something cannot be read, [`Error::Format`] if there is no image, or too many folders lie in each
    /// other.
    pub fn of_folder(path: &Path) -> Result<Self> {
        let folder::FolderContents { images: files, passed } = folder::images(path)?;
        if files.is_empty() {
            let instead = if passed.is_empty() { String::new() } else { format!(", but {passed}") };
            let (expected, got) = ("a folder with images in it", format!("none{instead}"));
            return Err(Error::Format { path: path.into(), expected, got });
        }
        Ok(Dataset { passed, ..Self::unlabeled(path, &files, Storage::Files(path.into())) })
    }

    /// One half of a folder with folders of halves, whatever lists lie beside these.
    ///
    /// # Errors
    /// Those of [`Dataset::open`].
    pub fn of_halves(path: &Path, split: Split) -> Result<Self> {
        folder::open(path, split)
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
        detect::tar_in_memory(bytes.into(), origin, split)
    }

    /// Records of CIFAR's binary version in memory, and the list of classes, a name a line.
    ///
    /// # Errors
    /// [`Error::Format`] if the records are not whole, a label has no class, or the list is empty or has a name twice.
    pub fn from_cifar(records: Vec<u8>, list: &[u8], layout: Cifar, origin: &Path) -> Result<Self> {
        cifar::from_bytes(records, list, layout, origin)
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
        cifar::from_archive(bytes, origin, split)
    }

    /// A file of Hugging Face's parquet layout in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not whole, has no column of images or of labels, or is written in a way that is not read.
    pub fn from_parquet(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        parquet::from_bytes(bytes, origin)
    }

    /// A shard of WebDataset in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if it is no whole tar, or an image has no label, a label no image, or both a key that is not theirs.
    pub fn from_shard(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        detect::shard_in_memory(bytes, origin)
    }

    /// Whether some bytes are a whole file of digests, as [`Dataset::fingerprint`] keeps them.
    pub fn are_digests(bytes: &[u8]) -> bool {
        content::are_digests(bytes)
    }

    /// Whether some bytes are a whole index, as [`Dataset::open`] keeps one, of an archive of `length` bytes with the time 0.
    pub fn is_index(bytes: &[u8], length: u64) -> bool {
        imagenet::is_index(bytes, length)
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
        self.format
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none: never, after opening.
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// What lies there and is none of the images of either half, as far as opening this half has seen it.
    pub fn passed_over(&self) -> PassedOver {
        let mut all = self.beside.clone();
        all.join(&self.passed);
        all
    }

    /// The same of both halves, one of which is `self`: what lies outside of them counts once.
    pub fn passed_over_with(&self, other: &Dataset) -> PassedOver {
        let mut all = self.passed_over();
        all.join(&other.passed);
        all
    }

    /// The first image that has no class, if there is one: see [`Dataset::of_files`].
    pub fn without_class(&self) -> Option<&str> {
        let nameless = self.classes.iter().position(String::is_empty)? as u32;
        let image = self.entries.labels.iter().position(|label| *label == nameless)?;
        Some(self.name(image))
    }

    /// Whether the data set has no halves: then these are all of its images.
    pub fn is_whole(&self) -> bool {
        self.is_whole
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
        self.entries.labels[image]
    }

    /// The path of an image inside the data set.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn name(&self, image: usize) -> &str {
        self.entries.get(image).name
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
        if let Storage::PlanarRgb(_) = self.storage {
            return Ok(Some(Decoded::new(cifar::image(&self.bytes(image)?), None)));
        }
        let name = self.full_name(image);
        let mut wanted = self.reading(image)?;
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

    /// The size of an image as its header says it, which EXIF may turn. Reads the file.
    ///
    /// # Errors
    /// Those of [`Dataset::decode`], as far as a header tells.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn size_in_header(&self, image: usize) -> Result<ImageSize> {
        if let Storage::PlanarRgb(_) = &self.storage {
            return Ok(cifar::SIZE);
        }
        let name = self.full_name(image);
        let _room = self.budget.take(self.reading(image)?, &name)?;
        Image::size_of(&self.bytes(image)?, &name)
    }

    /// What there is, in a line: `900 images of 9 classes`.
    pub fn summary(&self) -> String {
        let plural = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        };
        let images = plural(self.len(), "image", "images");
        let named = self.classes.iter().filter(|class| !class.is_empty()).count();
        match (named, self.classes.len() - named) {
            (0, _) => format!("{images} without classes"),
            (_, 0) => format!("{images} of {}", plural(named, "class", "classes")),
            _ => format!("{images} of {} or none", plural(named, "class", "classes")),
        }
    }

    /// What was opened, in a line: `ImageFolder, train/: 900 images of 9 classes`.
    pub fn describe(&self) -> String {
        match &self.half {
            Some(_) => format!("{}, {}", self.format, self.describe_half()),
            None => format!("{}: {}", self.format, self.summary()),
        }
    }

    /// Where it lies, and which half of it this is: `/photos, val/`.
    pub fn place(&self) -> String {
        let origin = std::path::absolute(&self.origin).unwrap_or_else(|_| self.origin.clone());
        [Some(origin.display().to_string()), self.half.clone()].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The folder that the images lie in, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        let is_there = !matches!(self.storage, Storage::Memory(_)) && self.origin.is_dir();
        is_there.then_some(&*self.origin)
    }

    /// The same without the format: `val/: 900 images of 9 classes`.
    pub fn describe_half(&self) -> String {
        self.half.as_ref().map_or(self.summary(), |half| format!("{half}: {}", self.summary()))
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
