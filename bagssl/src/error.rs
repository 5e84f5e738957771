//! What can go wrong.

use std::path::{Path, PathBuf};

use bagssl_core::batch::SourceError;
use bagssl_data::MIB;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file is no checkpoint, or one that cannot be used.
    #[error("{}: {error}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        error: bagssl_core::Error,
    },
    /// A setting lies outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is allowed.
        expected: String,
        /// What came.
        got: String,
    },
    /// The memory limit is too low.
    #[error("memory limit: expected at least {} MiB for {what}, got {}", needed.div_ceil(MIB), limit / MIB)]
    MemoryLimit {
        /// The bytes that are needed.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
        /// What needs them.
        what: &'static str,
    },
    /// The memory limit leaves no room for the embeddings of all patches.
    #[error("memory limit: expected at most {max} embeddings of patches, got more; embed fewer images at a time")]
    TooManyPatches {
        /// The patches that fit.
        max: u64,
    },
    /// Features do not fit into the memory that is free.
    #[error(
        "features of {images} images x {patches} patches: expected at most the {} MiB of memory that are free, got {}; a \
         feature cache keeps them on disk",
        available / MIB,
        needed.div_ceil(MIB)
    )]
    FeatureMemory {
        /// The number of images.
        images: usize,
        /// The number of patches per image.
        patches: usize,
        /// The bytes that are free.
        available: u64,
        /// The bytes that are needed.
        needed: u64,
    },
    /// Cached features are not those of the images.
    #[error(
        "{}: expected features of the images and classes of the data set, got others; remove what is kept there",
        folder.display()
    )]
    CachedFeatures {
        /// The folder of the features.
        folder: PathBuf,
    },
    /// An image has no class.
    #[error("expected a class for each image of the {split} split, got none for {image}")]
    NoClass {
        /// The split.
        split: &'static str,
        /// The image's name in its data set.
        image: String,
    },
    /// An image is not named as a tile, so that its place is unknown.
    #[error("groups: expected names such as s768-x04-y10.jpg, got {image}")]
    NotTiles {
        /// The image's name in its data set.
        image: String,
    },
    /// Patches at random places are asked for where a grid is needed.
    #[error("patches: expected a grid of patches, as places are compared")]
    NoGrid,
    /// A model was measured on other images than the first one, so that the two cannot be compared.
    #[error("{model}: expected the images of {first} ({expected}), got others ({got})")]
    OtherImages {
        /// The model's name.
        model: String,
        /// The first model's name.
        first: String,
        /// How many images the first model has.
        expected: String,
        /// How many images this model has.
        got: String,
    },
    /// The operating system does not report the memory of a process, so that it cannot be limited.
    #[error("memory limit: expected a system that reports a process's memory (/proc/self/status), got another")]
    UnknownMemory,
    /// Patches of an image cannot be cut.
    #[error("{name}: {error}")]
    Patch {
        /// The image's name in its data set.
        name: String,
        /// Why.
        error: bagssl_core::Error,
    },
    /// An embedding is not finite.
    #[error("{name}: expected a finite embedding, got {value}")]
    NotFinite {
        /// The image's name in its data set.
        name: String,
        /// What came.
        value: f32,
    },
    /// No image could be used.
    #[error("expected an image that can be used, got none of {count}; the last: {last}")]
    NoImage {
        /// How many there are.
        count: usize,
        /// Why the last one could not be used, with its name.
        last: String,
    },
    /// A thread that decodes images has panicked.
    #[error("{name}: decoding or cutting it panicked")]
    Panicked {
        /// The image's name in its data set.
        name: String,
    },
    /// The network failed.
    #[error("{0}")]
    Network(SourceError),
    /// An image cannot be read or decoded.
    #[error(transparent)]
    Data(#[from] bagssl_data::Error),
    /// A classifier does not fit.
    #[error(transparent)]
    Eval(#[from] bagssl_eval::Error),
    /// A setting or shape that the core refuses.
    #[error(transparent)]
    Core(#[from] bagssl_core::Error),
}

/// The result of a function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the file that an error of a checkpoint is about.
    pub(crate) fn in_checkpoint(self, path: &Path) -> Self {
        match self {
            Error::Core(error) => Error::Checkpoint { path: path.into(), error },
            other => other,
        }
    }
}
