//! Makes the report of a claim about checkpoints.

use anyhow::{Result, anyhow};
use bagssl::Error;
use bagssl::claims::Claim;
use bagssl_eval::Protocol;

use super::analysis::Bars;
use super::args::{ClaimArgs, for_each_checkpoint};
use crate::embedding::by_flag;
use crate::input::bag::BagArgs;

/// Measures each checkpoint in turn, and joins the measurements.
pub(super) fn report<C: Claim>(
    claim: &C,
    args: &ClaimArgs,
    protocol: Protocol,
    bag: &BagArgs,
    bars: Bars<'_>,
) -> Result<C::Report> {
    let measurements = for_each_checkpoint(args, protocol, bag, claim.layers(), bars, |model, splits, options| {
        claim.measure(model, splits, options).map_err(by_flag)
    })?;
    claim.report(measurements, &args.options(protocol, bag)?).map_err(|error| by_path(error, args))
}

/// Converts an error to one that names checkpoints by their paths.
fn by_path(error: Error, args: &ClaimArgs) -> anyhow::Error {
    match error {
        Error::OtherImages { model, first, expected, got } => {
            let [model, first] = [model, first].map(|name| args.path_of(&name));
            anyhow!("{model}: expected the images of {first} ({expected}), got others ({got})")
        }
        other => by_flag(other),
    }
}
