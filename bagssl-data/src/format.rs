//! The kinds of data sets.

use std::fmt;

/// A kind of data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `train/` (or else `training/`) and `val/` (or else `valid/`, `validation/`, `test/` or `testing/`), each with a folder for each class.
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
    /// `train.txt` and `val.txt`, or other names of halves: see [`crate::lists`].
    Lists,
    /// A folder of images without halves: all are for training.
    WholeFolder,
    /// The same in an uncompressed tar.
    WholeTar,
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
            Format::WholeFolder => "a folder of images without halves",
            Format::WholeTar => "a tar of images without halves",
            Format::Files => "image files",
        })
    }
}
