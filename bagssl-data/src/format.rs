//! The supported formats of data sets.

use std::fmt;

/// The format of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `train/` (or `training/`) and `val/` (or `valid/`, `validation/`, `test/` or `testing/`),
    /// each with a folder per class.
    ImageFolder,
    /// An uncompressed tar of an [`ImageFolder`](Format::ImageFolder), with or without a top
    /// folder.
    ImageFolderTar,
    /// A folder with the binary version of CIFAR-10 or CIFAR-100.
    Cifar,
    /// `cifar-10-binary.tar.gz` or `cifar-100-binary.tar.gz`.
    CifarArchive,
    /// WebDataset shards in a folder, or a brace pattern of shards:
    /// `imagenet-{train,val}-{000..146}.tar`.
    WebDataset,
    /// Parquet as Hugging Face writes it: a file, or files in a folder or its `data/` subfolder.
    Parquet,
    /// ImageNet-1K as distributed: `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and the
    /// devkit.
    ImageNet,
    /// ImageNet-1K unpacked, with all validation images directly in `val/`, and the devkit or
    /// Kaggle's list.
    ImageNetFolder,
    /// `train.txt` and `val.txt`, or other names of the splits: see [`crate::lists`].
    Lists,
    /// A folder of images without splits. All images are training images.
    WholeFolder,
    /// An uncompressed tar of images without splits.
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
            Format::WholeFolder => "a folder of images without splits",
            Format::WholeTar => "a tar of images without splits",
            Format::Files => "image files",
        })
    }
}
