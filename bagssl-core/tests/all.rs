//! All integration tests of this crate, in one binary. Those of models on Burn are in the crate
//! `tests`.

mod support;

mod import;
mod torchvision;
