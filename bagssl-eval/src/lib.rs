//! Evaluation of patch embeddings.

pub mod error;
mod matrix;

pub mod features;
pub mod samples;
mod similarity;
pub mod knn;
pub mod probe;

pub use error::{Error, Result};
