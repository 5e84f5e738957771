//! Classifiers of images by their features, and how they are measured.

pub mod knn;
pub mod probe;
pub mod confusion;
pub mod protocol;
pub mod classifier;
