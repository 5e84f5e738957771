//! Classifiers of images by their features, and evaluation protocols.

pub(crate) mod knn;
pub(crate) mod probe;
pub(crate) mod confusion;
pub(crate) mod protocol;
pub(crate) mod classifier;
