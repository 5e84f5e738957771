//! All tests of this crate from outside, as one program.

// Links what is compiled there, instead of compiling it here.
use bagssl_backend as _;

mod algebra;
mod losses;
mod optimizers;
mod training;
mod skips;
mod kills;
mod threads;
mod workers;
