//! `bagssl eval aggregation`.

use anyhow::Result;
use bagssl::claims::{Aggregation, AggregationReport};
use bagssl_eval::Protocol;
use bagssl_eval::report::Page;

use super::analysis::{Analysis, Bars};
use super::args::ClaimArgs;
use super::page::PageArgs;
use super::report::report;
use crate::input::bag::BagArgs;

/// Measure how accuracy grows with the number of patches, and which aggregate is best
///
/// Measures the embedding, the projector's first layer and the projection. Each is averaged over 1,
/// 4, 16.. patches of a grid in random order, and over as many patches at random positions. Also
/// measures 2 x 2 pooling of the grid (if all images have the same grid), the center crop and the
/// whole image.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    /// Take all patches of a grid, PIXELS from one to the next [default: a quarter of the patch's
    /// side]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) stride: Option<u32>,
    /// Evaluation protocol: bagssl, solo, lightly, emp-ssl or vicreg
    #[arg(long, value_name = "NAME", default_value = "bagssl")]
    pub(crate) protocol: String,
    /// Skip the linear probes, which take most of the time
    #[arg(long)]
    pub(crate) only_knn: bool,
}

impl Analysis for Args {
    type Report = AggregationReport;

    fn name(&self) -> &'static str {
        "aggregation"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn analyze(&self, bars: Bars<'_>) -> Result<AggregationReport> {
        let claim = Aggregation { color: self.claim.color(), only_knn: self.only_knn };
        report(&claim, &self.claim, Protocol::preset(&self.protocol)?, &BagArgs::with_stride(self.stride), bars)
    }

    fn page(&self, report: &AggregationReport) -> Result<Page> {
        Ok(report.page(&Protocol::preset(&self.protocol)?))
    }
}
