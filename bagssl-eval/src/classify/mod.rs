//! Classifiers of images by their features, and evaluation protocols.

pub mod knn;
pub mod probe;
pub mod confusion;
pub mod protocol;
pub mod classifier;
