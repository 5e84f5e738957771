//! All tests of this crate from outside, as one program.

mod losses;
mod optimisers;
mod training;
mod workers;
mod cuda_kernels;
