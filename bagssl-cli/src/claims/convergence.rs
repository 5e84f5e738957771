//! `bagssl eval convergence`.

use anyhow::Result;
use bagssl::claims::{Convergence, ConvergenceReport};
use bagssl_eval::Protocol;
use bagssl_eval::report::Page;

use super::analysis::{Analysis, Bars};
use super::args::ClaimArgs;
use super::page::PageArgs;
use super::report::report;
use crate::input::bag::BagArgs;

/// Measure whether an image's embedding is the mean of its patches' embeddings
///
/// On test images, compares the mean of k patches, in random order, with the embedding of the whole
/// image and of the largest centered square, by cosine and relative distance. The paper finds that
/// they converge for multi-scale training.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    #[command(flatten)]
    pub(crate) bag: BagArgs,
}

impl Analysis for Args {
    type Report = ConvergenceReport;

    fn name(&self) -> &'static str {
        "convergence"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn analyze(&self, bars: Bars<'_>) -> Result<ConvergenceReport> {
        let claim = Convergence { color: self.claim.color() };
        report(&claim, &self.claim, Protocol::default(), &self.bag, bars)
    }

    fn page(&self, report: &ConvergenceReport) -> Result<Page> {
        Ok(report.page())
    }
}
