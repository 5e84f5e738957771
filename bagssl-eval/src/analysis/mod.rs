//! Analyses of representations beyond classification.

pub mod health;
pub mod convergence;
pub mod neighbors;
pub mod projection_2d;
pub mod locality;
pub mod cooccurrence;
