//! `bagssl eval compare`.

use anyhow::Result;
use bagssl::claims::{Compare, CompareReport};
use bagssl_eval::Protocol;
use bagssl_eval::report::Page;

use super::analysis::{Analysis, Bars};
use super::args::ClaimArgs;
use super::page::PageArgs;
use super::report::report;
use crate::input::bag::BagArgs;

/// Compare training methods, and measure what each gains from averaging patches
///
/// Measures the accuracy of the embedding on whole images and averaged over patches. Checkpoints of
/// the same preset count as seeds of one method. Models trained elsewhere are named after their
/// files. Each method is compared with the first one. Differences have two 95 % intervals. The
/// interval over seeds (Student's t for pairs of the same seed) requires that both methods were
/// trained with bagssl and the same seeds. The interval over test images is a cluster bootstrap
/// over groups of images, with seeds averaged.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    #[command(flatten)]
    pub(crate) bag: BagArgs,
    /// Evaluation protocol: bagssl, solo, lightly, emp-ssl or vicreg
    #[arg(long, value_name = "NAME", default_value = "bagssl")]
    pub(crate) protocol: String,
    /// Skip the linear probes, which take most of the time
    #[arg(long)]
    pub(crate) only_knn: bool,
}

impl Analysis for Args {
    type Report = CompareReport;

    fn name(&self) -> &'static str {
        "compare"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn analyze(&self, bars: Bars<'_>) -> Result<CompareReport> {
        let claim = Compare { color: self.claim.color(), only_knn: self.only_knn };
        report(&claim, &self.claim, Protocol::preset(&self.protocol)?, &self.bag, bars)
    }

    fn page(&self, report: &CompareReport) -> Result<Page> {
        Ok(report.page(&Protocol::preset(&self.protocol)?))
    }
}
