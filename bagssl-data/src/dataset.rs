//! Data sets: where images and their classes come from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub use crate::cifar::Cifar;

use crate::cifar;
use crate::error::{Error, Result};
use crate::folder;
use crate::image::{Image, MOST_BYTES};
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
    /// Both.
    pub const ALL: [Self; 2] = [Split::Train, Split::Validation];

    /// The names that a split's folder may have; the first that is there counts.
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
    /// Opens one half of a data set: a folder with `train/` and `val/` (or else `validation/` or `test/`), each with a
    /// folder for each class; an uncompressed `.tar` of such a folder, with or without a folder on top; or the folder of
    /// CIFAR-10's or CIFAR-100's binary files. The classes of both halves are numbered together, in the order of their
    /// names (CIFAR's in the order of its list). Images are ordered by their names. What is hidden (a leading dot) or
    /// has no image's ending does not count.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read; [`Error::Format`] if it is none of these, this half is empty, or the file is
    /// cut short. A tar that holds links or names that point outside is refused.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|error| Error::Read { path: path.into(), error })?;
        if meta.is_dir() {
            return match cifar::layout(path)? {
                Some(layout) => cifar::open(path, layout, split),
                None => folder::open(path, split),
            };
        }
        tarball::open(path, split)
    }

    /// Image files, in this order, all of one class that has no name.
    ///
    /// # Errors
    /// [`Error::Read`] if one is not there, [`Error::Format`] if one is no file or has a name that is not UTF-8,
    /// [`Error::Setting`] if there is none.
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
        let entries: Vec<Entry> = paths.iter().map(entry).collect::<Result<_>>()?;
        if entries.is_empty() {
            return Err(Error::Setting { name: "images", expected: "at least one".into(), got: "none".into() });
        }
        Ok(Dataset {
            origin: PathBuf::new(),
            classes: vec![String::new()],
            entries,
            storage: Storage::Files(PathBuf::new()),
        })
    }

    /// One image in memory, of a class that has no name.
    pub fn of_bytes(name: &str, bytes: Vec<u8>) -> Self {
        let entry = Entry { label: 0, name: name.into(), offset: 0, length: bytes.len() as u64 };
        Dataset {
            origin: PathBuf::new(),
            classes: vec![String::new()],
            entries: vec![entry],
            storage: Storage::Memory(bytes.into()),
        }
    }

    /// All images in a folder and those below it, in the order of their names, all of one class that has no name.
    ///
    /// # Errors
    /// [`Error::Read`] if something cannot be read, [`Error::Format`] if there is no image, or too many folders lie in each
    /// other.
    pub fn of_folder(path: &Path) -> Result<Self> {
        let entry = |(name, length): (String, u64)| Entry { label: 0, name, offset: 0, length };
        let entries: Vec<Entry> = folder::images(path)?.into_iter().map(entry).collect();
        if entries.is_empty() {
            let (expected, got) = ("a folder with images in it", "none".into());
            return Err(Error::Format { path: path.into(), expected, got });
        }
        let (origin, storage) = (path.into(), Storage::Files(path.into()));
        Ok(Dataset { origin, classes: vec![String::new()], entries, storage })
    }

    /// Whether a folder holds the halves of a data set, or CIFAR's files: what [`Dataset::open`] opens.
    pub fn is_set(path: &Path) -> bool {
        let half = |split: Split| split.folders().iter().any(|folder| path.join(folder).is_dir());
        Split::ALL.into_iter().any(half) || cifar::layout(path).is_ok_and(|layout| layout.is_some())
    }

    /// A data set in a tar in memory.
    ///
    /// # Errors
    /// As [`Dataset::open`]; errors name `origin`.
    pub fn from_tar(bytes: impl Into<std::borrow::Cow<'static, [u8]>>, origin: &Path, split: Split) -> Result<Self> {
        tarball::from_bytes(bytes.into(), origin, split)
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
        match &self.storage {
            Storage::Planes(_) => Ok(cifar::image(&self.bytes(image)?)),
            _ => Image::decode(&self.bytes(image)?, &self.full_name(image)),
        }
    }

    /// Bytes of memory that decoding an image takes at most, by the size in its header: its file, 8 bytes for each of its
    /// pixels (16 bits of red, green, blue and alpha, the most that a decoder makes) and the 3 that remain. Reads the file.
    ///
    /// # Errors
    /// Those of [`Dataset::decode`], as far as a header tells.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn decoding_bytes(&self, image: usize) -> Result<u64> {
        if let Storage::Planes(_) = &self.storage {
            return Ok(self.entries[image].length);
        }
        let bytes = self.bytes(image)?;
        let size = Image::size_of(&bytes, &self.full_name(image))?;
        Ok(bytes.len() as u64 + u64::from(size.height) * u64::from(size.width) * (8 + 3))
    }

    /// The bytes of an image's file.
    fn bytes(&self, image: usize) -> Result<std::borrow::Cow<'_, [u8]>> {
        let entry = &self.entries[image];
        if entry.length > MOST_BYTES {
            let (expected, got) = (format!("at most {MOST_BYTES} bytes"), entry.length.to_string());
            return Err(Error::Image { name: self.full_name(image), expected, got });
        }
        let (offset, length) = (entry.offset as usize, entry.length as usize);
        match &self.storage {
            Storage::Files(root) => {
                let path = root.join(&entry.name);
                Ok(fs::read(&path).map_err(|error| Error::Read { path, error })?.into())
            }
            Storage::File(file) => {
                let mut bytes = vec![0; length];
                tarball::read_at(file, &mut bytes, entry.offset)
                    .map_err(|error| Error::Read { path: self.origin.join(&entry.name), error })?;
                Ok(bytes.into())
            }
            Storage::Memory(bytes) => Ok(bytes[offset..][..length].into()),
            Storage::Planes(bytes) => Ok(bytes[offset..][..length].into()),
        }
    }

    fn full_name(&self, image: usize) -> String {
        let name = &self.entries[image].name;
        match self.origin.as_os_str().is_empty() {
            true => name.clone(),
            false => format!("{}: {name}", self.origin.display()),
        }
    }

    /// What there is, in a line: `900 images of 9 classes`.
    pub fn summary(&self) -> String {
        let plural = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        };
        format!("{} of {}", plural(self.len(), "image", "images"), plural(self.classes.len(), "class", "classes"))
    }

    /// A short text that is another one if an image is added, removed, renamed, moved to another class or changed in
    /// its length: the number of images, and a hash (FNV-1a, 64 bits) of all names, classes and lengths. CIFAR's images,
    /// which have one length, count with their pixels; others are not read.
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
        if let Storage::Planes(bytes) = &self.storage {
            add(bytes);
        }
        format!("{}-{hash:016x}", self.len())
    }
}

/// Who took the embedded photographs, and under which licences they are.
#[cfg(feature = "embedded")]
pub const EMBEDDED_ATTRIBUTION: &str = include_str!("../data/ATTRIBUTION.md");

#[cfg(feature = "embedded")]
const EMBEDDED: &[u8] = include_bytes!("../data/photo-tiles-mini.tar");

/// Collects images under their folders' and classes' names; then numbers the classes.
pub(crate) struct Collector {
    origin: PathBuf,
    classes: BTreeSet<(&'static str, String)>,
    found: Vec<Found>,
}

/// An image in one of the folders that a half may have.
struct Found {
    folder: &'static str,
    class: String,
    entry: Entry,
}

impl Collector {
    pub(crate) fn new(origin: &Path) -> Self {
        Collector { origin: origin.into(), classes: BTreeSet::new(), found: Vec::new() }
    }

    pub(crate) fn add_class(&mut self, folder: &'static str, class: &str) {
        self.classes.insert((folder, class.into()));
    }

    pub(crate) fn add(&mut self, folder: &'static str, class: &str, name: String, offset: u64, length: u64) {
        self.add_class(folder, class);
        self.found.push(Found { folder, class: class.into(), entry: Entry { label: 0, name, offset, length } });
    }

    /// The images of one half, in the order of their names, with the classes of both.
    pub(crate) fn finish(self, split: Split, storage: Storage) -> Result<Dataset> {
        let refuse = |expected, got| Err(Error::Format { path: self.origin.clone(), expected, got });
        let is_there = |folder: &&&str| self.classes.iter().any(|(other, _)| *other == **folder);
        let folder_of = |half: Split| half.folders().iter().find(is_there).copied();
        let halves = Split::ALL.map(folder_of);
        let named = self.classes.iter().filter(|(folder, _)| halves.contains(&Some(folder)));
        let classes: Vec<String> = named.map(|(_, class)| class.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let number = |class: &String| classes.binary_search(class).expect("each image's class is known") as u32;
        let here = self.found.into_iter().filter(|found| Some(found.folder) == folder_of(split));
        let mut entries: Vec<Entry> = here.map(|found| Entry { label: number(&found.class), ..found.entry }).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if entries.is_empty() {
            let expected = "a folder with train/ and val/, each with a folder of images for each class";
            return refuse(expected, format!("no image under {}/", split.folders().join("/ or ")));
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return refuse("images with names of their own", format!("two images named {}", pair[0].name));
        }
        if u32::try_from(entries.len()).is_err() {
            return refuse("fewer images than 32 bits count", entries.len().to_string());
        }
        Ok(Dataset { origin: self.origin, classes, entries, storage })
    }
}

/// Whether a file's name is that of an image.
pub(crate) fn is_image(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or("");
    ["jpg", "jpeg", "png", "webp", "bmp", "gif"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}
