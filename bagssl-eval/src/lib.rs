//! Evaluation of patch embeddings.

pub mod error;
mod matrix;

pub mod colour;
pub mod baselines;
pub mod features;
pub mod samples;
mod similarity;
pub mod knn;
pub mod probe;

pub use error::{Error, Result};
