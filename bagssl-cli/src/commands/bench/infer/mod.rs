//! `bagssl bench infer`.

mod args;
mod burn;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::cpu::{Executor, ExecutorOptions, InstructionSet, Pool, Threads};
use bagssl_core::plan::{NamedTensor, Plan};
use serde::Serialize;

use super::check_range;
use crate::backend::Name;
use crate::input::files;
use crate::terminal::output::say;
pub(crate) use args::Args;

#[derive(Debug, Serialize)]
struct Inferred {
    patches_per_second: f64,
    fastest: f64,
    slowest: f64,
    milliseconds: f64,
    /// The time to the first result: from reading the checkpoint, or from random weights in memory.
    first_milliseconds: f64,
    patches: usize,
    batch: usize,
    height: usize,
    width: usize,
    threads: usize,
    instruction_set: &'static str,
    exact: bool,
    weight_bytes: usize,
    workspace_bytes: usize,
    peak_bytes: Option<u64>,
    gigaflops: f64,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    check_range("--size", args.size, 1..=4096)?;
    check_range("--batch", args.batch, 1..=4096)?;
    check_range("--runs", args.runs, 1..=1_000_000)?;
    check_range("--threads", args.threads, 0..=1024)?;
    if args.backend != Name::Ndarray {
        return burn::run(args);
    }
    let begun = Instant::now();
    let bytes = args.checkpoint.as_ref().map(|path| files::read_checkpoint(path)).transpose()?;
    let checkpoint = match (&bytes, &args.checkpoint) {
        (Some(bytes), Some(path)) => Some(Checkpoint::from_bytes(bytes).with_context(|| path.display().to_string())?),
        _ => None,
    };
    let (whole, tensors): (Plan, Vec<NamedTensor>) = match &checkpoint {
        Some(checkpoint) => (checkpoint.spec().model.encoder().clone(), Vec::new()),
        None => (args.arch.plan(), args.arch.plan().init_weights(0)),
    };
    let plan = if args.dense { whole.dense()?.0 } else { whole };
    let size = [args.size; 2];
    let set = args.set.map_or_else(InstructionSet::best, InstructionSet::from);
    // The creation of random weights is not timed. Reading a checkpoint's weights is.
    let begun = if checkpoint.is_some() { begun } else { Instant::now() };
    let mut source = |name: &str| match &checkpoint {
        Some(checkpoint) => checkpoint.tensor_ref(&format!("encoder.{name}")).map(Into::into),
        None => {
            let (.., values) =
                tensors.iter().find(|(known, ..)| known == name).expect("a plan names all its parameters");
            Ok(values.into())
        }
    };
    let options = ExecutorOptions { set, exact: args.exact, batch: args.batch, size };
    let executor = Executor::new(&plan, &mut source, options)?;
    let pool = Pool::new(args.threads);
    let mut workspace = executor.workspace(args.batch, size, &pool)?;
    let input: Vec<f32> = (0..args.batch * 3 * args.size * args.size).map(|i| (i % 23) as f32 / 11.5 - 1.0).collect();
    let first_output = executor.run(&mut workspace, &input, &pool)?;
    let first = begun.elapsed().as_secs_f64();
    executor.run(&mut workspace, &input, &pool)?;
    let mut seconds = Vec::with_capacity(args.runs);
    for _ in 0..args.runs {
        let begun = Instant::now();
        std::hint::black_box(executor.run(&mut workspace, &input, &pool)?);
        seconds.push(begun.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let patches = first_output.len() / plan.output_dim();
    let median = seconds[seconds.len() / 2];
    let rate = |seconds: f64| patches as f64 / seconds;
    let operations = 2 * plan.multiply_accumulates(size).unwrap_or(0) * args.batch as u64;
    let result = Inferred {
        patches_per_second: rate(median),
        fastest: rate(seconds[0]),
        slowest: rate(seconds[seconds.len() - 1]),
        milliseconds: 1e3 * median,
        first_milliseconds: 1e3 * first,
        patches,
        batch: args.batch,
        height: args.size,
        width: args.size,
        threads: pool.count(),
        instruction_set: set.name(),
        exact: args.exact,
        weight_bytes: executor.bytes(),
        workspace_bytes: workspace.bytes(),
        peak_bytes: peak_bytes(),
        gigaflops: operations as f64 / median / 1e9,
    };
    if args.json {
        say!("{}", serde_json::to_string(&result)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mega = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    say!(
        "{:.1} patches/s (median of {} runs; {:.1} to {:.1}), {:.2} ms per batch of {}",
        result.patches_per_second,
        args.runs,
        result.slowest,
        result.fastest,
        result.milliseconds,
        args.batch
    );
    say!(
        "{} on {} threads{}; {:.0} GFLOP/s, counted as direct convolution; weights {:.1} MiB, workspace {:.1} MiB; \
         first result after {:.0} ms",
        result.instruction_set,
        result.threads,
        if args.exact { ", exact" } else { "" },
        result.gigaflops,
        mega(result.weight_bytes),
        mega(result.workspace_bytes),
        result.first_milliseconds
    );
    Ok(ExitCode::SUCCESS)
}

/// Returns the peak memory of this process, if the operating system reports it.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
