//! All tests of this crate from outside, as one program.

mod formats;
mod archives;
mod bounds;
mod decoding;
mod grids;
mod layouts;
mod loading;
mod anytime;
