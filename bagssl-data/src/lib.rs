//! Images for BagSSL: data sets, augmentation, and loaders of patch batches.
//!
//! An image goes through these types in this order:
//!
//! 1. A [`Dataset`] lists images and classes, and decodes an [`Image`] within a [memory budget](Budget).
//! 2. A [`Resampler`] cuts a patch and resizes it to the input of the network.
//! 3. [`Augment`] changes it (in training only), and [`ToTensor`] normalizes it.
//! 4. A [`Loader`] makes batches of random patches for training, a [`BagLoader`] all patches of each image for evaluation.
//!
//! [`curate`] checks a whole data set and splits one; [`lists`] reads and writes lists of image files.
//!
//! ```
//! use bagssl_core::batch::PatchSource;
//! use bagssl_data::{Dataset, Loader, LoaderConfig, Split};
//!
//! # #[cfg(feature = "embedded")] {
//! // The photographs in this crate. For a folder: `Dataset::open("photos".as_ref(), Split::Train)?`.
//! let photos = Dataset::embedded(Split::Train)?;
//! let loader = Loader::new(photos.into(), LoaderConfig { patches: 4, batch: 9, ..LoaderConfig::default() })?;
//! let batch = loader.epoch(0, 0).next().expect("a batch")?;
//! assert_eq!(batch.patch(8, 3).len(), 3 * 32 * 32); // patch 3 of image 8: [channel, height, width]
//! # }
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;

mod dataset;
mod split;
mod format;
mod index;
mod entries;
mod storage;
mod file;
mod ignored;
mod cache;
mod content;
mod formats;
mod memory;
mod image;
mod transform;
mod loading;
pub mod curate;

/// Compiles and runs the README's example as a doc test.
#[cfg(all(doctest, feature = "embedded"))]
#[doc = include_str!("../README.md")]
mod readme {}

/// Lists of image files: `train.txt` and `val.txt`.
pub mod lists {
    pub use crate::formats::lists::{ListEntry, parse, print};
}

pub use dataset::Dataset;
#[cfg(feature = "embedded")]
pub use dataset::EMBEDDED_ATTRIBUTION;
pub use error::{Error, Result};
pub use format::Format;
pub use formats::cifar::Cifar;
#[doc(hidden)]
pub use formats::imagenet::mat::{Synset, synsets};
pub use formats::parquet::columns::Columns;
pub use ignored::{IgnoreReason, Ignored};
pub use image::sniff::file_type;
pub use image::{Decode, Image, MAX_BYTES};
pub use loading::bags::{BagConfig, BagLoader, Cutter, common_grid};
pub use loading::loader::{Loader, LoaderConfig};
pub use loading::skip::{OnBadImage, Skipped};
pub use memory::{Budget, Decoded, MIB, Reservation};
pub use split::Split;
pub use transform::augment::{Augment, Blur, CheckedAugment, Jitter, Solarise};
pub use transform::resample::Resampler;
pub use transform::to_tensor::ToTensor;
