//! Which format lies at a path: the one place that says so.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use crate::archive::{self, Section};
use crate::cifar;
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::folder;
use crate::halves;
use crate::imagenet;
use crate::lists;
use crate::parquet;
use crate::storage::{Archive, Storage, open_file};
use crate::tarball;
use crate::webdataset;

/// A kind of data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `train/` and `val/` (or else `validation/` or `test/`), each with a folder for each class.
    ImageFolder,
    /// The same in an uncompressed tar, with or without a folder on top.
    ImageFolderTar,
    /// The folder of CIFAR-10's or CIFAR-100's binary files.
    Cifar,
    /// `cifar-10-binary.tar.gz` or `cifar-100-binary.tar.gz`.
    CifarArchive,
    /// WebDataset's shards in a folder, or a pattern of them: `imagenet-{train,val}-{000..146}.tar`.
    WebDataset,
    /// Parquet as Hugging Face writes it: a file, or files in a folder or in `data/` there.
    Parquet,
    /// ImageNet-1K as it is distributed: `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and the devkit.
    ImageNet,
    /// ImageNet-1K unpacked, with all validation images in `val/` itself, and the devkit or Kaggle's list.
    ImageNetFolder,
    /// `train.txt`, and `val.txt` (or else `validation.txt` or `test.txt`): see [`crate::lists`].
    Lists,
    /// Single images.
    Files,
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Format::ImageFolder => "ImageFolder",
            Format::ImageFolderTar => "ImageFolder in a tar",
            Format::Cifar => "CIFAR, binary version",
            Format::CifarArchive => "CIFAR, binary version, .tar.gz",
            Format::WebDataset => "WebDataset",
            Format::Parquet => "Hugging Face parquet",
            Format::ImageNet => "ImageNet-1K, archives",
            Format::ImageNetFolder => "ImageNet-1K, unpacked",
            Format::Lists => "lists of image files",
            Format::Files => "image files",
        })
    }
}

/// What is looked for, for whoever has none of it.
pub(crate) const KNOWN: &str = "a folder with train/ and val/ (each with a folder of images for each class), an uncompressed \
.tar of one, CIFAR's binary files or .tar.gz, WebDataset's .tar shards, .parquet files, lists train.txt and val.txt, or ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar";

/// Opens one half of whatever lies there.
pub(crate) fn open(path: &Path, split: Split) -> Result<Dataset> {
    match format(path)? {
        Format::Cifar => cifar::open(path, cifar::layout(path)?.expect("it was found just now"), split),
        Format::CifarArchive => cifar::open_archive(path, split),
        Format::WebDataset if halves::is_pattern(path) => webdataset::open(path, &halves::matching(path)?, split),
        Format::WebDataset => webdataset::open(path, &halves::files(path, "tar")?, split),
        Format::Parquet if path.is_dir() => parquet::open(path, &halves::files(path, "parquet")?, split),
        Format::Parquet => parquet::open(path, &[(folder::text(path)?, path.into())], split),
        Format::ImageNet => imagenet::open(imagenet::archives(path).expect("they were found just now"), split),
        Format::ImageNetFolder => imagenet::open_flat(path, split),
        Format::ImageFolderTar => tar(path, split),
        Format::Lists => lists::open(path, split),
        _ => folder::open(path, split),
    }
}

/// What lies there.
pub(crate) fn format(path: &Path) -> Result<Format> {
    let meta = match fs::metadata(path) {
        Err(_) if halves::is_pattern(path) => return Ok(Format::WebDataset),
        meta => meta.map_err(|error| Error::Read { path: path.into(), error })?,
    };
    let refuse = |got: &str| Err(Error::Format { path: path.into(), expected: KNOWN, got: got.into() });
    if imagenet::archives(path).is_some() {
        return Ok(Format::ImageNet);
    }
    if meta.is_dir() {
        return match () {
            () if cifar::layout(path)?.is_some() => Ok(Format::Cifar),
            () if !halves::files(path, "parquet")?.is_empty() => Ok(Format::Parquet),
            () if !halves::files(path, "tar")?.is_empty() => Ok(Format::WebDataset),
            () if imagenet::is_flat(path) => Ok(Format::ImageNetFolder),
            () if has_half(path) => Ok(Format::ImageFolder),
            () if lists::is_lists(path) => Ok(Format::Lists),
            () => refuse("a folder without any of these (no image under train/)"),
        };
    }
    if !meta.is_file() {
        return refuse("a special file");
    }
    match &start(path)?[..] {
        [0x1f, 0x8b, ..] => Ok(Format::CifarArchive),
        [b'P', b'A', b'R', b'1', ..] => Ok(Format::Parquet),
        _ => Ok(Format::ImageFolderTar),
    }
}

/// Whether a folder has that of a half.
fn has_half(path: &Path) -> bool {
    Split::ALL.into_iter().flat_map(Split::folders).any(|folder| path.join(folder).is_dir())
}

/// The first bytes of a file.
fn start(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::Read { path: path.into(), error };
    let mut start = Vec::new();
    open_file(path)?.take(8).read_to_end(&mut start).map_err(failed)?;
    Ok(start)
}

/// One half of a tar file: a folder of images, or a shard.
fn tar(path: &Path, split: Split) -> Result<Dataset> {
    let archive = Archive::open(path)?;
    let length = archive.stamp.length;
    let members = archive::members(Section::new(&archive.file, 0, length), length, path)?;
    if !tarball::is_image_folder(&members) && webdataset::is_shard(&members) {
        return webdataset::open(path, &[(folder::text(path)?, path.into())], split);
    }
    tarball::collect(members, path)?.finish(split, Format::ImageFolderTar, Storage::Archives(vec![archive]))
}

/// One half of a tar in memory.
pub(crate) fn tar_in_memory(bytes: Cow<'static, [u8]>, origin: &Path, split: Split) -> Result<Dataset> {
    let members = archive::members(Cursor::new(&bytes), bytes.len() as u64, origin)?;
    tarball::collect(members, origin)?.finish(split, Format::ImageFolderTar, Storage::Memory(bytes))
}

/// A shard in memory.
pub(crate) fn shard_in_memory(bytes: Vec<u8>, origin: &Path) -> Result<Dataset> {
    let members = archive::members(Cursor::new(&bytes), bytes.len() as u64, origin)?;
    webdataset::from_members(&members, bytes, origin)
}
