//! The tests from outside, one program.

mod support;

mod encoder;
mod evaluation;
mod claims;
