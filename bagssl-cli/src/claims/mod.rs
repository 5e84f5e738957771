//! The claims of the paper. Each is a command of `bagssl eval` that answers one question about a
//! set of checkpoints. `bagssl::claims` checks them; here are their arguments and their output.

mod analysis;
mod args;
mod page;
mod report;
pub(crate) mod aggregation;
pub(crate) mod convergence;
pub(crate) mod locality;
pub(crate) mod cooccurrence;
pub(crate) mod compare;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use analysis::{Bars, StoredAnalysis};
pub(crate) use args::{ClaimArgs, MAX_CHECKPOINTS, for_each_checkpoint};
pub(crate) use page::PageArgs;

/// A claim.
#[derive(Debug, Subcommand)]
pub(crate) enum Claim {
    Aggregation(aggregation::Args),
    Convergence(convergence::Args),
    Locality(locality::Args),
    Cooccurrence(cooccurrence::Args),
    Compare(compare::Args),
}

impl Claim {
    /// Returns the analysis that answers the claim, for results that are stored as JSON.
    pub(crate) fn analysis(&self) -> &dyn StoredAnalysis {
        match self {
            Claim::Aggregation(args) => args,
            Claim::Convergence(args) => args,
            Claim::Locality(args) => args,
            Claim::Cooccurrence(args) => args,
            Claim::Compare(args) => args,
        }
    }
}

pub(crate) fn run(claim: &Claim) -> Result<ExitCode> {
    match claim {
        Claim::Aggregation(args) => analysis::run_analysis(args),
        Claim::Convergence(args) => analysis::run_analysis(args),
        Claim::Locality(args) => analysis::run_analysis(args),
        Claim::Cooccurrence(args) => analysis::run_analysis(args),
        Claim::Compare(args) => analysis::run_analysis(args),
    }
}
