//! Images for BagSSL: where they come from, how they are cut and changed, and how they are loaded.
//!
//! The modules stand in the order in which an image goes through them: a [`dataset`] finds it and an [`image`] is
//! decoded, [`resample`] cuts patches out of it, which [`augment`] changes and [`to_tensor`] makes values of; a [`loader`]
//! makes batches of these for training, [`bags`] for evaluation. [`check`] looks at a whole data set, [`classes`] at those of two halves, [`groups`] makes halves of one.
//!
//! ```
//! use bagssl_core::batch::{BatchShape, PatchBatch};
//! use bagssl_core::normalize::Normalization;
//! use bagssl_core::patch::{Crop, Filter, ImageSize};
//! use bagssl_core::random::{Address, Purpose};
//! use bagssl_data::augment::Augment;
//! use bagssl_data::image::Image;
//! use bagssl_data::to_tensor::ToTensor;
//! use bagssl_data::resample::Resampler;
//!
//! // Two rows and three columns: red grows to the right, green downwards.
//! let pixels = [[0, 0, 9], [100, 0, 9], [200, 0, 9], [0, 50, 9], [100, 50, 9], [200, 50, 9]];
//! let image = Image::new(ImageSize { height: 2, width: 3 }, pixels.concat());
//!
//! // Its right part, turned over, as values for a network: [channel, height, width].
//! let crop = Crop { top: 0, left: 1, height: 2, width: 2 };
//! let mut patch = Resampler::new(Filter::Bilinear).patch(&image, crop, 2);
//! let augment = Augment { flip: 1.0, ..Augment::default() }.check()?;
//! augment.apply(&mut patch, &mut Address::default().stream(Purpose::Augment));
//! let mut values = Vec::new();
//! ToTensor::new(Normalization::new([0.0; 3], [1.0; 3])?).append(&patch, &mut values);
//!
//! // A batch of this one image and its one patch: [batch, patch, channel, height, width].
//! let shape = BatchShape { images: 1, patches: 1, channels: 3, height: 2, width: 2 };
//! let batch = PatchBatch::new(shape, values, vec![0], vec![0])?;
//! assert_eq!(batch.data()[..4], [200.0 / 255.0, 100.0 / 255.0, 200.0 / 255.0, 100.0 / 255.0]);
//! assert_eq!(batch.data()[4..8], [0.0, 0.0, 50.0 / 255.0, 50.0 / 255.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;

pub mod dataset;
mod detect;
mod entries;
mod storage;
mod cache;
mod content;
mod collector;
mod passed;
mod sniff;
mod folder;
mod archive;
mod tarball;
mod cifar;
mod splits;
pub mod lists;
mod webdataset;
mod parquet;
mod imagenet;
pub mod memory;
pub mod image;
mod decoder;
mod jpeg;
mod webp;

pub mod resample;
pub mod augment;
mod color;
mod blur;
pub mod to_tensor;

pub mod skip;
mod prefetch;
pub mod loader;
pub mod bags;
pub mod duplicates;
pub mod classes;
pub mod groups;
pub mod check;

#[cfg(test)]
mod reference;

/// The readme's example is a test.
#[cfg(all(doctest, feature = "embedded"))]
#[doc = include_str!("../README.md")]
mod readme {}

pub use error::{Error, Result};
