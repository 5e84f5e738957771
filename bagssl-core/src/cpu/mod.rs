//! Networks on a CPU without Burn: kernels on plain memory, and an [`Executor`] that runs a plan with them.
//!
//! The kernels are compiled for several instruction sets ([`InstructionSet`]) and chosen at run time (with the feature
//! `std`; at compile time without). Threads are whoever implements [`Threads`]: nobody ([`Serial`]), or a [`Pool`].
//!
//! `unsafe` is allowed in this module alone, for vector instructions and for maps of which threads write parts.

mod padded;
mod conv;
mod dense;
mod elementwise;
#[cfg(feature = "std")]
mod embedder;
mod executor;
mod isa;
mod arena;
mod feature_map;
mod microkernel;
pub mod ops;
mod pool;
mod simd;
mod threads;
mod values;
#[cfg(all(test, feature = "std"))]
mod tests;

pub use arena::ArenaExecutor;
pub use dense::{Dense, DenseRows};
#[cfg(feature = "std")]
pub use embedder::{Embedder, EmbedderOptions};
pub use executor::{Executor, Options, Source, Workspace};
pub use isa::InstructionSet;
#[cfg(feature = "rayon")]
pub use threads::Rayon;
#[cfg(feature = "std")]
pub use threads::{Pool, serially};
pub use threads::{Serial, Threads, with_threads};
pub use values::Values;
