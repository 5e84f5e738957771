//! Analyses of representations beyond classification.

mod health;
mod convergence;
mod neighbors;
mod projection_2d;
mod locality;
mod cooccurrence;

pub use convergence::{ConvergencePoint, convergence};
pub use cooccurrence::{TrainedTable, World};
pub use health::{Deviation, Health, Verdict};
pub use locality::{GridLayout, Locality, locality};
pub use neighbors::{Neighbor, PatchId, neighbors};
pub use projection_2d::{Pca, Tsne, pca};
