//! `bagssl bench infer` on a backend of Burn.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bagssl_core::architecture::mlp;
use bagssl_core::checkpoint::{Checkpoint, ModelPlan};
use bagssl_core::embed::Tap;
use bagssl_core::model::{Kernels, Model};
use burn::tensor::{Tensor, TensorData};

use super::infer::Args;
use crate::backend::{self, Device, Job, Target};
use crate::files;
use crate::output::say;

/// Passes between two readings, which wait for the device.
const TOGETHER: usize = 10;

/// What embedding takes.
struct Inferred {
    /// A pass, the median over the runs.
    seconds: f64,
    /// From nothing to the first result.
    first: f64,
}

struct Infer<'a>(&'a Args);

impl Job for Infer<'_> {
    type Output = Inferred;

    fn run<T: Target>(self, device: Device<T>) -> Result<Inferred> {
        let Args { arch, checkpoint, batch, size, runs, .. } = self.0;
        let begun = Instant::now();
        let model = match checkpoint {
            Some(path) => {
                let bytes = files::read(path)?;
                let checkpoint = Checkpoint::from_bytes(&bytes).with_context(|| path.display().to_string())?;
                T::check_plan(&checkpoint.spec().model)?;
                Model::<T::Backend>::load(&checkpoint, &device)?
            }
            None => {
                let encoder = arch.plan();
                let projector = mlp(encoder.output_dim(), &[1])?;
                let plan = ModelPlan::new(encoder, projector)?;
                T::check_plan(&plan)?;
                Model::<T::Backend>::init(&plan, 0, &device)
            }
        };
        if model.encoder().plan().multiply_accumulates([*size; 2]).is_none() {
            bail!("--size: expected patches that the encoder's windows fit into, got {size} pixels");
        }
        let dims = [*batch, 3, *size, *size];
        let values: Vec<f32> = (0..dims.iter().product()).map(|i| (i % 23) as f32 / 11.5 - 1.0).collect();
        let input = Tensor::<T::Backend, 4>::from_data(TensorData::new(values, dims), &device);
        let pass = || model.features::<T::Kernels>(input.clone(), &[Tap::Embedding]).remove(0);
        let wait = |output: Tensor<T::Backend, 2>| -> Result<()> {
            output.slice([0..1, 0..1]).into_data();
            <T::Kernels as Kernels<T::Backend>>::check().map_err(anyhow::Error::msg)
        };
        wait(pass())?;
        let first = begun.elapsed().as_secs_f64();
        let mut seconds = Vec::with_capacity(*runs);
        for run in 0..*runs + 2 {
            let begun = Instant::now();
            (1..TOGETHER).for_each(|_| drop(pass()));
            wait(pass())?;
            // The first two find memory that the others use again.
            if run >= 2 {
                seconds.push(begun.elapsed().as_secs_f64() / TOGETHER as f64);
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Inferred { seconds: seconds[seconds.len() / 2], first })
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if args.set.is_some() || args.exact || args.dense || args.threads != 0 {
        bail!("--set, --exact, --dense, --threads: expected --backend ndarray, got {}", args.backend.text());
    }
    let Inferred { seconds, first } = backend::on(args.backend, Infer(args))?;
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
        "{rate:.1} patches/s on {} (median of {} times {TOGETHER}), {:.2} ms for {} at a time; first result after {:.0} ms",
        args.backend.text(),
        args.runs,
        1e3 * seconds,
        args.batch,
        1e3 * first
    );
    Ok(ExitCode::SUCCESS)
}
