//! The innermost loops, compiled for each instruction set, and the operations that use them.

pub(crate) mod simd;
pub(crate) mod microkernel;
pub(crate) mod elementwise;
pub(crate) mod isa;
pub(crate) mod conv;
pub(crate) mod pool;
