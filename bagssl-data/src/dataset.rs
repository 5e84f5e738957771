//! Data sets: a list of images with their classes, and access to their bytes.

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
use crate::ignored::Ignored;
use crate::image::decoder::PreparedImage;
use crate::image::{Decode, Image};
use crate::index::Index;
use crate::memory::{Budget, Decoded, Reservation};
use crate::split::Split;
use crate::storage::Storage;

/// A list of labeled images. Opening a data set reads file names and indexes only; an image is read
/// when it is decoded.
#[derive(Debug)]
pub struct Dataset {
    index: Index,
    decode: Decode,
    budget: Arc<Budget>,
    verified: VerifiedImages,
    /// Once it is known; it is another one for other images, and if they are decoded in another way.
    fingerprint: OnceLock<Fingerprint>,
}

impl From<Index> for Dataset {
    fn from(index: Index) -> Self {
        Dataset {
            index,
            decode: Decode::default(),
            budget: Budget::shared(),
            verified: VerifiedImages::default(),
            fingerprint: OnceLock::new(),
        }
    }
}

impl Dataset {
    /// Opens the training or validation split of a data set. The [`Format`] is detected from the
    /// names and first bytes at `path`.
    ///
    /// Both splits share one numbering of the classes, in the order of the class names (for CIFAR
    /// and Hugging Face, in the order of their class lists). Images are sorted by name (for CIFAR
    /// and parquet, in the order of their records). A data set without splits is opened as a
    /// training split with all images. [`Dataset::ignored`] reports the files that were ignored.
    ///
    /// # Errors
    /// [`Error::Read`] if the data set cannot be read. [`Error::Format`] if no format matches, the
    /// requested split is empty, a file is truncated, or a tar contains links or names that point
    /// outside of it.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        detect::open(path, split, &Columns::default()).map(Into::into)
    }

    /// Opens a split like [`Dataset::open`], with the given parquet columns.
    ///
    /// # Errors
    /// The errors of [`Dataset::open`], and [`Error::Setting`] if a column is given but the format
    /// has no columns.
    pub fn open_with(path: &Path, split: Split, columns: &Columns) -> Result<Self> {
        detect::open(path, split, columns).map(Into::into)
    }

    /// Opens the validation split, or all images if the data set has no splits.
    ///
    /// # Errors
    /// The errors of [`Dataset::open_with`].
    pub fn open_validation_or_all(path: &Path, columns: &Columns) -> Result<Self> {
        Self::open_with(path, Split::Validation, columns).or_else(|error| {
            match Self::open_with(path, Split::Train, columns) {
                Ok(all) if all.index.is_unsplit => Ok(all),
                _ => Err(error),
            }
        })
    }

    /// Creates a data set from image files, in the given order. All of them belong to one class
    /// with an empty name. Dead links, pipes and files whose names are not UTF-8 are listed; decoding
    /// them fails.
    ///
    /// # Errors
    /// [`Error::Read`] if a path does not exist, [`Error::Format`] if it is a folder, and
    /// [`Error::Setting`] if `paths` is empty.
    pub fn from_files(paths: &[PathBuf]) -> Result<Self> {
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

    /// Creates a data set of one image in memory. Its class has an empty name.
    pub fn from_image_bytes(name: &str, bytes: Vec<u8>) -> Self {
        Index::unlabeled(Path::new(""), &[(name.into(), bytes.len() as u64)], Storage::Memory(bytes.into())).into()
    }

    /// Creates a data set of all images in a folder and its subfolders. They are in depth-first
    /// order, sorted by name within each folder, and belong to one class with an empty name.
    ///
    /// # Errors
    /// [`Error::Read`] if a file or folder cannot be read, and [`Error::Format`] if the folder has
    /// no images or is nested too deeply.
    pub fn from_folder(path: &Path) -> Result<Self> {
        let walk::FolderContents { images: files, ignored } = walk::images(path)?;
        if files.is_empty() {
            let instead = if ignored.is_empty() { String::new() } else { format!(", but {ignored}") };
            let (expected, got) = ("a folder with images", format!("none{instead}"));
            return Err(Error::Format { path: path.into(), expected, got });
        }
        Ok(Index { ignored, ..Index::unlabeled(path, &files, Storage::Files(path.into())) }.into())
    }

    /// Opens one split of a folder that contains a folder per split. Lists of image files in the
    /// same folder are ignored.
    ///
    /// # Errors
    /// The errors of [`Dataset::open`].
    pub fn from_split_folders(path: &Path, split: Split) -> Result<Self> {
        folder::open(path, split).map(Into::into)
    }

    /// Detects the format of a folder, ignoring lists of image files in it.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read, and [`Error::Format`] if it is not a data set.
    pub fn format_of_folder(path: &Path) -> Result<Format> {
        detect::format_of_folder(path)
    }

    /// Returns whether `path` is a data set and not just an image or a folder of images without
    /// splits.
    pub fn is_set(path: &Path) -> bool {
        detect::format(path).is_ok_and(|format| format != Format::WholeFolder)
    }

    /// Opens one split of a tar in memory.
    ///
    /// # Errors
    /// The errors of [`Dataset::open`]. Error messages name `origin`.
    pub fn from_tar(bytes: impl Into<std::borrow::Cow<'static, [u8]>>, origin: &Path, split: Split) -> Result<Self> {
        detect::tar_in_memory(bytes.into(), origin, split).map(Into::into)
    }

    /// Opens records in CIFAR's binary format in memory. `list` has the class names, one per line.
    ///
    /// # Errors
    /// [`Error::Format`] if the records are truncated, a label has no class, or the list is empty
    /// or names a class twice.
    pub fn from_cifar(records: Vec<u8>, list: &[u8], layout: Cifar, origin: &Path) -> Result<Self> {
        cifar::from_bytes(records, list, layout, origin).map(Into::into)
    }

    /// Opens `photo-tiles-mini`, which is embedded in this crate: 900 training tiles and 270
    /// validation tiles of 64x64 pixels, cut from nine photographs. The training and validation
    /// tiles come from separate regions of the photographs. See `data/ATTRIBUTION.md`.
    ///
    /// # Errors
    /// The errors of [`Dataset::open`]; none occur in practice.
    #[cfg(feature = "embedded")]
    pub fn embedded(split: Split) -> Result<Self> {
        Self::from_tar(EMBEDDED, Path::new("photo-tiles-mini"), split)
    }

    /// Opens one split of CIFAR's `.tar.gz` in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if the archive is truncated, or lacks the files of this split or the list
    /// of classes.
    pub fn from_cifar_archive(bytes: &[u8], origin: &Path, split: Split) -> Result<Self> {
        cifar::from_archive(bytes, origin, split).map(Into::into)
    }

    /// Opens a parquet file in memory, in the layout that Hugging Face writes.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is truncated, has no image or label column, or uses an
    /// unsupported feature of parquet.
    pub fn from_parquet(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        parquet::from_bytes(bytes, origin).map(Into::into)
    }

    /// Opens a WebDataset shard in memory.
    ///
    /// # Errors
    /// [`Error::Format`] if the tar is truncated, an image has no label, a label has no image, or
    /// two images or two labels have the same key.
    pub fn from_shard(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        detect::shard_in_memory(bytes, origin).map(Into::into)
    }

    /// Returns a short text that identifies the data set: the number of images, and a digest
    /// (XXH3-64) of all names, classes and bytes. It changes if an image is added, removed,
    /// renamed, moved to another class or changed in any byte. A folder and a tar of the same files
    /// have the same fingerprint. A parquet file is hashed as one file, not image by image. The
    /// digest detects accidental changes; it is not cryptographic.
    ///
    /// The first call reads all images. The digests of files are stored in the user's cache folder
    /// for later runs. A file is read again only if its length or its times have changed. For an
    /// unreadable image, only its name and its class are hashed.
    pub fn fingerprint(&self) -> String {
        self.fingerprint_with(&|_| {})
    }

    /// Returns the same text as [`Dataset::fingerprint`]. `progress` is called from several threads
    /// with the number of images that were hashed since its last call.
    pub fn fingerprint_with(&self, progress: &(dyn Fn(u64) + Sync)) -> String {
        self.fingerprint.get_or_init(|| self.index.fingerprint(self.decode, progress)).text.clone()
    }

    /// Returns whether `bytes` are a complete cache file of digests, as written by
    /// [`Dataset::fingerprint`].
    #[doc(hidden)]
    pub fn are_digests(bytes: &[u8]) -> bool {
        content::are_digests(bytes)
    }

    /// Returns whether `bytes` are a complete cached index, as written by [`Dataset::open`], of an
    /// archive of `length` bytes with modification time 0.
    #[doc(hidden)]
    pub fn is_index(bytes: &[u8], length: u64) -> bool {
        imagenet::is_index(bytes, length)
    }

    /// Keeps only the images of the listed classes, as in ImageNet-100, which is ImageNet
    /// restricted to a list of wnids. The list has one class per line: the class name, optionally
    /// followed by further words, which are ignored. The remaining classes are renumbered in the
    /// order of their names.
    ///
    /// # Errors
    /// [`Error::Setting`] if the list is empty, names a class twice or an unknown class, or if no
    /// image remains.
    pub fn select_classes(self, list: &str) -> Result<Self> {
        let index = self.index.select_classes(list)?;
        Ok(Dataset { index, verified: VerifiedImages::default(), fingerprint: OnceLock::new(), ..self })
    }

    /// Keeps only the given images, in the given order. The classes stay the same.
    ///
    /// # Panics
    /// If an index is out of range.
    #[must_use]
    pub fn select_images(self, images: &[u32]) -> Self {
        let index = self.index.select_images(images);
        Dataset { index, verified: VerifiedImages::default(), fingerprint: OnceLock::new(), ..self }
    }

    /// Sets how images are decoded.
    #[must_use]
    pub fn with_decode(self, decode: Decode) -> Self {
        Dataset { decode, fingerprint: OnceLock::new(), ..self }
    }

    /// Sets the memory budget for decoding. The default is the [shared](Budget::shared) budget.
    #[must_use]
    pub fn with_budget(self, budget: Arc<Budget>) -> Self {
        Dataset { budget, ..self }
    }

    /// Returns the memory budget for decoding.
    pub fn budget(&self) -> Arc<Budget> {
        self.budget.clone()
    }

    /// Returns the format of the data set.
    pub fn format(&self) -> Format {
        self.index.format
    }

    /// The path of the data set; empty for single files.
    pub(crate) fn origin(&self) -> &Path {
        &self.index.origin
    }

    /// Whether images are rotated by their EXIF orientation.
    pub(crate) fn applies_exif(&self) -> bool {
        self.decode.exif
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether the data set has no images. A data set that was opened has at least one.
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Returns the files that are not images of either split, as far as they were seen when this
    /// split was opened.
    pub fn ignored(&self) -> Ignored {
        let mut all = self.index.ignored_outside.clone();
        all.join(&self.index.ignored);
        all
    }

    /// Returns the ignored files of both splits. `other` is the other split. Files outside of both
    /// splits are counted once.
    pub fn ignored_with(&self, other: &Dataset) -> Ignored {
        let mut all = self.ignored();
        all.join(&other.index.ignored);
        all
    }

    /// Returns the name of the first image without a class, or `None`. Images of
    /// [`Dataset::from_files`] have no class.
    pub fn first_without_class(&self) -> Option<&str> {
        let nameless = self.index.classes.iter().position(String::is_empty)? as u32;
        let image = self.index.entries.labels.iter().position(|label| *label == nameless)?;
        Some(self.name(image))
    }

    /// Returns whether the data set has no splits, so that it contains all images.
    pub fn is_unsplit(&self) -> bool {
        self.index.is_unsplit
    }

    /// Returns the class names, indexed by label.
    pub fn classes(&self) -> &[String] {
        &self.index.classes
    }

    /// Returns the label of an image.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn label(&self, image: usize) -> u32 {
        self.index.entries.labels[image]
    }

    /// Returns the path of an image inside the data set.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn name(&self, image: usize) -> &str {
        self.index.name(image)
    }

    /// Reads and decodes an image. Waits until the budget has enough free memory. The first time,
    /// the data of a JPEG is checked for damage from start to end.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Image`] or, if its bytes are no longer those of the [fingerprint](Dataset::fingerprint),
    /// [`Error::Changed`], with the image's name.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn decode(&self, image: usize) -> Result<Decoded> {
        let take = |bytes, name: &str| self.budget.take(bytes, name).map(Some);
        self.decode_with(image, &take, &|_| 0).map(|decoded| decoded.expect("it waits for room"))
    }

    /// Decodes an image like [`Dataset::decode`]. Calls `make_room` before it waits for more than
    /// half of the budget, which is what images that are kept may take.
    pub(crate) fn decode_before(&self, image: usize, make_room: &dyn Fn()) -> Result<Decoded> {
        let take = |bytes, name: &str| match self.budget.try_take(bytes, name)? {
            Some(room) => Ok(Some(room)),
            None => {
                if self.budget.needs_kept(bytes) {
                    make_room();
                }
                self.budget.take(bytes, name).map(Some)
            }
        };
        self.decode_with(image, &take, &|_| 0).map(|decoded| decoded.expect("it waits for room"))
    }

    /// Returns the size of the first image that can be decoded.
    ///
    /// # Errors
    /// The error of the first image, if none can be decoded.
    pub fn first_size(&self) -> Result<ImageSize> {
        let usable = (0..self.len()).find_map(|image| self.decode(image).ok());
        Ok(usable.map_or_else(|| self.decode(0), Ok)?.size())
    }

    /// Reads and decodes an image if the budget has enough free memory now, otherwise returns
    /// `None`. `more` returns the additional bytes to reserve for an image of the given size.
    ///
    /// # Errors
    /// The errors of [`Dataset::decode`].
    ///
    /// # Panics
    /// If the index is out of range.
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
        take: &dyn Fn(u64, &str) -> Result<Option<Reservation>>,
        more: &dyn Fn(ImageSize) -> u64,
    ) -> Result<Option<Decoded>> {
        let name = self.index.full_name(image);
        if let Storage::PlanarRgb(_) = self.index.storage {
            let Some(room) = take(cifar::PIXELS.saturating_add(more(cifar::SIZE)), &name)? else { return Ok(None) };
            return Ok(Some(Decoded::new(cifar::image(&self.bytes(image)?), Some(room))));
        }
        let mut wanted = self.index.read_memory(image)?;
        loop {
            let Some(mut room) = take(wanted, &name)? else { return Ok(None) };
            let bytes = self.bytes(image)?;
            let prepared = PreparedImage::new(&bytes, &name)?;
            let more = more(prepared.size());
            wanted = PreparedImage::read_memory(bytes.len() as u64)
                .saturating_add(prepared.decode_memory(self.decode)?)
                .saturating_add(more);
            // If threads waited for more memory while holding some, they could wait for each other
            // forever.
            if room.try_grow(wanted) {
                let decoded = prepared.decode(self.decode, self.verified.has(image))?;
                self.verified.add(image, self.len());
                room.shrink(decoded.rgb().len() as u64 + more);
                return Ok(Some(Decoded::new(decoded, Some(room))));
            }
        }
    }

    /// Returns the error of the first image that a list names and whose file is missing.
    pub(crate) fn check_listed(&self) -> Result<()> {
        self.index.absent().try_for_each(|image| self.bytes(image).map(drop))
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
    /// The errors of [`Dataset::decode`] that the header can reveal.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn size_from_header(&self, image: usize) -> Result<ImageSize> {
        if let Storage::PlanarRgb(_) = &self.index.storage {
            return Ok(cifar::SIZE);
        }
        let name = self.index.full_name(image);
        let _room = self.budget.take(self.index.read_memory(image)?, &name)?;
        Image::size_from_header(&self.bytes(image)?, &name)
    }

    /// Returns the number of images and classes: `900 images of 9 classes`.
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

    /// Returns the format, the split and the number of images:
    /// `ImageFolder, train/: 900 images of 9 classes`.
    pub fn describe(&self) -> String {
        match &self.index.split_name {
            Some(_) => format!("{}, {}", self.index.format, self.describe_split()),
            None => format!("{}: {}", self.index.format, self.summary()),
        }
    }

    /// Returns the path and the split: `/photos, val/`.
    pub fn location(&self) -> String {
        let origin = std::path::absolute(&self.index.origin).unwrap_or_else(|_| self.index.origin.clone());
        [Some(origin.display().to_string()), self.index.split_name.clone()]
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
    pub fn describe_split(&self) -> String {
        self.index.split_name.as_ref().map_or(self.summary(), |split_name| format!("{split_name}: {}", self.summary()))
    }
}

/// The images that have been decoded before and need no second check for damage.
#[derive(Debug, Default)]
pub(crate) struct VerifiedImages(OnceLock<Box<[AtomicBool]>>);

impl VerifiedImages {
    fn has(&self, image: usize) -> bool {
        self.0.get().is_some_and(|images| images[image].load(Ordering::Relaxed))
    }

    fn add(&self, image: usize, count: usize) {
        let all = self.0.get_or_init(|| (0..count).map(|_| AtomicBool::new(false)).collect());
        all[image].store(true, Ordering::Relaxed);
    }
}

/// The photographers and licenses of the embedded photographs.
#[cfg(feature = "embedded")]
pub const EMBEDDED_ATTRIBUTION: &str = include_str!("../data/ATTRIBUTION.md");

#[cfg(feature = "embedded")]
const EMBEDDED: &[u8] = include_bytes!("../data/photo-tiles-mini.tar");
