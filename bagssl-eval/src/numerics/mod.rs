//! Numerics: matrix products, spectra, nearest neighbors, and a minimizer.

pub(crate) mod matrix;
pub(crate) mod spectrum;
pub(crate) mod similarity;
pub(crate) mod lbfgs;
