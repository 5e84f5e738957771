//! `bagssl bench infer` on a Burn backend.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bagssl_backend::{Error, Weights};
use bagssl_core::architecture::mlp;
use bagssl_core::checkpoint::{Checkpoint, ModelPlan};

use super::args::Args;
use crate::input::files;
use crate::terminal::output::say;

/// The number of passes per timing. The host waits for the device once per timing.
const BATCHES_IN_FLIGHT: usize = 10;

/// The measured times, in seconds.
struct Inferred {
    /// The median time of a pass over the runs.
    seconds: f64,
    /// The time from the opened backend to the first result, including loading or creating the
    /// weights.
    first: f64,
}

/// Embeds the same batch repeatedly, and measures the time.
fn infer(args: &Args) -> Result<Inferred> {
    let Args { arch, checkpoint, batch, size, runs, .. } = args;
    let backend = args.backend.open()?;
    let begun = Instant::now();
    let mut encoder = match checkpoint {
        Some(path) => {
            let bytes = files::read_checkpoint(path)?;
            let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| path.display().to_string())?;
            backend.inference(Weights::Checkpoint(&checkpoint), *batch, [*size; 2])
        }
        None => {
            let encoder = arch.plan();
            let projector = mlp(encoder.output_dim(), &[1])?;
            backend.inference(Weights::Random(&ModelPlan::new(encoder, projector)?), *batch, [*size; 2])
        }
    }
    .map_err(|error| match error {
        Error::PatchSize(_) => anyhow::Error::new(error).context("--size"),
        other => other.into(),
    })?;
    let mut passes = |count: usize| {
        (0..count).for_each(|_| encoder.pass());
        encoder.wait()
    };
    passes(1)?;
    let first = begun.elapsed().as_secs_f64();
    let mut seconds = Vec::with_capacity(*runs);
    for run in 0..*runs + 2 {
        let begun = Instant::now();
        passes(BATCHES_IN_FLIGHT)?;
        // The first two runs allocate memory that later runs reuse.
        if run >= 2 {
            seconds.push(begun.elapsed().as_secs_f64() / BATCHES_IN_FLIGHT as f64);
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Inferred { seconds: seconds[seconds.len() / 2], first })
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if args.set.is_some() || args.exact || args.dense || args.threads != 0 {
        bail!("--set, --exact, --dense, --threads: expected --backend ndarray, got {}", args.backend.text());
    }
    let Inferred { seconds, first } = infer(args)?;
    let rate = args.batch as f64 / seconds;
    if args.json {
        let all = serde_json::json!({
            "patches_per_second": rate,
            "milliseconds": 1e3 * seconds,
            "first_milliseconds": 1e3 * first,
            "batch": args.batch,
            "size": args.size,
            "backend": args.backend.text(),
        });
        say!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "{rate:.1} patches/s on {} (median of {} times {BATCHES_IN_FLIGHT}), {:.2} ms per batch of {}; first result after {:.0} \
         ms",
        args.backend.text(),
        args.runs,
        1e3 * seconds,
        args.batch,
        1e3 * first
    );
    Ok(ExitCode::SUCCESS)
}
