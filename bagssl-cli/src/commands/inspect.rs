//! `bagssl inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bagssl_core::bag::Views;
use bagssl_core::checkpoint::{Checkpoint, Provenance};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::patch::Filter;

use crate::input::bag::describe_patches;
use crate::input::files;
use crate::terminal::output::{escaped, say};

/// Show the contents of a checkpoint
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Checkpoint file
    checkpoint: PathBuf,
    /// List all tensors with their mean and standard deviation
    #[arg(long)]
    tensors: bool,
    /// Print the metadata as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let bytes = files::read_checkpoint(&args.checkpoint)?;
    let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| args.checkpoint.display().to_string())?;
    let spec = checkpoint.spec();
    if args.json {
        say!("{}", serde_json::to_string_pretty(spec)?);
        return Ok(ExitCode::SUCCESS);
    }
    let side = spec.patch.input() as usize;
    let count = |prefix: &str| -> usize {
        let parameters = spec.model.parameters().into_iter();
        parameters.filter(|p| p.name.starts_with(prefix) && p.role.is_trained()).map(|p| p.len()).sum()
    };
    let operations = spec.model.encoder().multiply_accumulates([side; 2]).unwrap_or(0);
    let provenance = &spec.provenance;
    say!("format      {}", spec.format_version);
    match checkpoint.has_digest() {
        true => say!("digest      valid: the file is unchanged"),
        false => say!("digest      none (format {}): damage cannot be detected", spec.format_version),
    }
    let Provenance { created_by, preset, seed, .. } = provenance;
    say!("made by     {}, preset {}, seed {seed}", escaped(created_by), escaped(preset));
    match provenance.steps {
        0 => say!("trained     not by this program"),
        steps => say!("trained     {} epochs, {steps} steps, data {}", provenance.epochs, escaped(&provenance.data)),
    }
    say!(
        "encoder     {} layers, {} parameters, {:.1} million multiplications per patch",
        spec.model.encoder().layers().len(),
        count("encoder."),
        operations as f64 / 1e6
    );
    say!("projector   {} layers, {} parameters", spec.model.projector().layers().len(), count("projector."));
    say!("weights     {}", checkpoint.weight_type().name());
    if let Err(error) = checkpoint.check_values() {
        say!("values      unusable: {}", escaped(&error.to_string()));
    }
    let filter = match spec.filter {
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
    };
    say!("patches     {} ({filter})", describe_patches(spec.patch));
    match spec.views {
        Views::FixedScale(patch) => say!("trained on  {}", describe_patches(patch)),
        Views::MultiScale(crops) => say!("trained on  multi-scale crops, resampled to {0}x{0}", crops.input()),
    }
    say!("colors     mean {:?}, deviation {:?}", spec.normalization.mean(), spec.normalization.deviation());
    let dims = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];
    let dims: Vec<_> = dims.iter().map(|&tap| format!("{} {}", tap.name(), spec.model.dim(tap))).collect();
    say!("features    {} (used: {})", dims.join(", "), spec.layer.name());
    for change in &provenance.changes {
        let [setting, from, to] = [&change.setting, &change.from, &change.to].map(|text| escaped(text));
        say!("changed     {setting} from {from} to {to} after step {}", change.step);
    }
    if let Some(training) = &spec.training {
        say!("resumable   at step {}, epoch {}, batch {}", training.step, training.epoch, training.batch);
    }
    if args.tensors {
        for name in checkpoint.names() {
            let values = checkpoint.values(name)?;
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
            say!(
                "{}  {} values, mean {mean:.4}, deviation {:.4}",
                escaped(name),
                values.len(),
                (square / values.len() as f64).sqrt()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
