//! `bagssl eval locality`.

use anyhow::Result;
use bagssl::claims::{Locality, LocalityReport};
use bagssl_eval::Protocol;
use bagssl_eval::report::Page;

use super::analysis::{Analysis, Bars};
use super::args::ClaimArgs;
use super::page::PageArgs;
use super::report::report;
use crate::embedding::by_flag;
use crate::input::bag::BagArgs;
use crate::input::splits;

/// Measure whether the embedding retains more of a patch's position than the projection
///
/// Uses a grid of patches that all images share. Reports how often the nearest patch of the same
/// image is adjacent. Also reports how well a linear regression, fitted on training images,
/// predicts a patch's row and column in test images. Adjacent patches share pixels if the stride is
/// less than their side; the default stride is a quarter of the side. The page also shows the
/// nearest patches of other test images for some patches.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    #[command(flatten)]
    pub(crate) bag: BagArgs,
}

impl Analysis for Args {
    type Report = LocalityReport;

    fn name(&self) -> &'static str {
        "locality"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn analyze(&self, bars: Bars<'_>) -> Result<LocalityReport> {
        let claim = Locality { color: self.claim.color() };
        report(&claim, &self.claim, Protocol::default(), &self.bag, bars)
    }

    fn page(&self, report: &LocalityReport) -> Result<Page> {
        let splits = splits::open(&self.claim.data)?;
        report.page(&splits, self.claim.color(), self.claim.seed).map_err(by_flag)
    }
}
