//! All tests of this crate from outside, as one program.

#[path = "../examples/report/sample.rs"]
mod sample;

mod classifiers;
mod anytime;
mod report;
mod browser;
