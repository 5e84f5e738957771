//! The program, called as a user calls it: all tests of it, as one program.

mod support;

mod data;
mod formats;
mod reading;
mod profile;
mod program;
mod runs;
mod streams;
mod trust;
mod bounds;
mod devices;
mod claims;
mod reproduce;
mod book;
#[cfg(feature = "cuda")]
mod cuda;
