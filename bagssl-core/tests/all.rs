//! All tests of this crate from outside, as one program. Those of models on Burn are in `tests`.

mod support;

mod import;
mod torchvision;
