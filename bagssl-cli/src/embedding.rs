//! Embeds images for the commands: shows progress and reports errors by the names of the flags.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use bagssl::{EmbedOptions, Embeddings, Error};
use bagssl_core::anytime::Reason;
use bagssl_core::checkpoint::Spec;
use bagssl_core::embed::Embed;
use bagssl_data::Dataset;

use crate::terminal::progress::Progress;

/// Embeds all images. Shows a progress bar unless `quiet`.
pub(crate) fn embed(
    dataset: &Arc<Dataset>,
    spec: &Spec,
    network: &dyn Embed,
    options: &EmbedOptions<'_>,
    quiet: bool,
) -> Result<Embeddings> {
    let bar = Progress::images("embed", dataset.len(), quiet);
    let progress = |done| bar.set_position(done as u64);
    let done = bagssl::embed(dataset, spec, network, &EmbedOptions { progress: Some(&progress), ..*options });
    bar.finish();
    done.map_err(by_flag)
}

/// Converts an error to one that names the flag that caused it.
pub(crate) fn by_flag(error: Error) -> anyhow::Error {
    match error {
        Error::Setting { name, expected, got } => {
            anyhow!("--{}: expected {expected}, got {got}", name.replace('_', "-").replace(", ", ", --"))
        }
        Error::MemoryLimit { .. } | Error::TooManyPatches { .. } | Error::UnknownMemory => {
            anyhow!("--{}", error.to_string().replacen("memory limit", "memory-limit", 1))
        }
        Error::FeatureMemory { .. } => {
            anyhow!("{}", error.to_string().replacen("a feature cache keeps", "--features DIR keeps", 1))
        }
        Error::NotTiles { .. } => anyhow!("{}", error.to_string().replacen("groups:", "--groups tiles:", 1)),
        Error::NoGrid => anyhow!("{}", error.to_string().replacen("patches:", "--random:", 1)),
        other => other.into(),
    }
}

/// Returns the name of a stopping reason.
pub(crate) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Complete => "all patches",
        Reason::Tolerance => "tolerance",
        Reason::Most => "most patches",
        Reason::Deadline => "deadline",
        Reason::Decided => "decided",
        _ => "stopped",
    }
}
