//! `bagssl eval cooccurrence`.

use anyhow::Result;
use bagssl::claims::{Cooccurrence, CooccurrenceReport};
use bagssl_eval::report::Page;

use super::analysis::{Analysis, Bars};
use super::page::PageArgs;
use crate::embedding::by_flag;

/// Check, in a synthetic world, that the spectral contrastive loss learns which patches co-occur
///
/// Generates a world of patches with a known joint distribution p(x, x'). Checks that the
/// co-occurrence loss is 2 w L_S plus a constant at lambda = w / 2. Trains projections with L_S
/// from several random starts, and compares the losses with the optimum, which follows from the
/// greatest positive eigenvalues. Repeats everything for pairs of always different patches, where
/// the distribution has negative eigenvalues. Exits with code 1 if a start stays more than 1 %
/// above the optimum.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of patches in the world
    #[arg(long, value_name = "N", default_value_t = Cooccurrence::default().patches)]
    patches: usize,
    /// Number of kinds of images, each with its own distribution of patches
    #[arg(long, value_name = "N", default_value_t = Cooccurrence::default().kinds)]
    kinds: usize,
    /// Dimension of the projections
    #[arg(long, value_name = "N", default_value_t = Cooccurrence::default().dim)]
    dim: usize,
    /// Weight w of the co-occurrence loss
    #[arg(long, value_name = "W", default_value_t = Cooccurrence::default().weight)]
    weight: f64,
    /// Number of random starts
    #[arg(long, value_name = "N", default_value_t = Cooccurrence::default().starts)]
    starts: u64,
    /// Seed of the world; the starts use this seed and the following ones
    #[arg(long, value_name = "N", default_value_t = Cooccurrence::default().seed)]
    seed: u64,
    #[command(flatten)]
    page: PageArgs,
}

impl Args {
    /// Returns the default arguments with another seed.
    pub(crate) fn with_seed(seed: u64) -> Self {
        let Cooccurrence { patches, kinds, dim, weight, starts, .. } = Cooccurrence::default();
        Args { patches, kinds, dim, weight, starts, seed, page: PageArgs::default() }
    }

    fn claim(&self) -> Cooccurrence {
        let Args { patches, kinds, dim, weight, starts, seed, .. } = *self;
        Cooccurrence { patches, kinds, dim, weight, starts, seed }
    }
}

impl Analysis for Args {
    type Report = CooccurrenceReport;

    fn name(&self) -> &'static str {
        "cooccurrence"
    }

    fn output(&self) -> &PageArgs {
        &self.page
    }

    fn analyze(&self, _: Bars<'_>) -> Result<CooccurrenceReport> {
        self.claim().check().map_err(by_flag)
    }

    fn page(&self, report: &CooccurrenceReport) -> Result<Page> {
        Ok(report.page(&self.claim()))
    }

    fn holds(&self, report: &CooccurrenceReport) -> bool {
        report.holds
    }
}
