//! The tests from outside, one program.

mod encoder;
