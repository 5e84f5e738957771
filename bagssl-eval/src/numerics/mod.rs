//! Arithmetic on tables of numbers: products, spectra, similarity, and a minimizer.

pub(crate) mod matrix;
pub(crate) mod spectrum;
pub(crate) mod similarity;
pub(crate) mod lbfgs;
