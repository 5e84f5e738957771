//! Networks on the CPU without Burn: kernels on plain memory, and an [`Executor`] that runs a plan
//! with them.
//!
//! The kernels are compiled for several instruction sets ([`InstructionSet`]). The set is chosen at
//! run time with the feature `std`, and at compile time without it. Kernels run on any
//! implementation of [`Threads`], such as [`Serial`] or a [`Pool`].
//!
//! Only this module may use `unsafe`, for vector instructions and for maps whose parts are written
//! by several threads.

mod layout;
mod kernels;
mod exec;
pub mod ops;
#[cfg(all(test, feature = "std"))]
mod tests;

pub use exec::arena::ArenaExecutor;
pub use exec::dense::{Dense, DenseRows};
#[cfg(feature = "std")]
pub use exec::embedder::{Embedder, EmbedderOptions};
pub use exec::executor::{Executor, ExecutorOptions, WeightSource, Workspace};
#[cfg(feature = "rayon")]
pub use exec::threads::Rayon;
#[cfg(feature = "std")]
pub use exec::threads::{Pool, serially};
pub use exec::threads::{Serial, Threads, with_threads};
pub use kernels::isa::InstructionSet;
pub use layout::values::Values;
