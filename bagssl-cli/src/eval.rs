//! `bagssl eval`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Checkpoint;
use bagssl_data::dataset::Split;
use bagssl_eval::knn::Knn;
use bagssl_eval::probe::Linear;
use bagssl_eval::report::View;

use crate::backend::{self, CpuArgs, Device, Job, Name, Target};
use crate::bag::BagArgs;
use crate::files;
use crate::output::say;
use crate::score::{self, Halves, Input, Measured, Protocol};
use crate::source::{BadImageArgs, DataArgs};
use crate::work;

/// Say how good a checkpoint's representation is: nearest-neighbour and linear accuracy on held-out images
///
/// Each image is represented by the mean of the features of some patches, in colour and in grey, and by one look at the
/// whole image. What is learned from is the training half of the data, what is tested is its validation half.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The checkpoint
    checkpoint: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    #[command(flatten)]
    bag: BagArgs,
    /// Neighbours that vote
    #[arg(long, value_name = "N", default_value_t = Knn::default().neighbours)]
    neighbours: usize,
    /// Temperature of their votes
    #[arg(long, value_name = "T", default_value_t = Knn::default().temperature)]
    temperature: f64,
    /// Linear probe: logistic (L-BFGS, needs no tuning), emp-ssl or vicreg (their SGD recipes)
    #[arg(long, value_name = "NAME", default_value = "logistic")]
    probe: String,
    /// Where the network runs
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    #[command(flatten)]
    cpu: CpuArgs,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let bytes = files::read(&args.checkpoint)?;
    let path = args.checkpoint.display().to_string();
    let checkpoint = Checkpoint::from_bytes(&bytes).context(path.clone())?;
    if args.neighbours == 0 {
        bail!("--neighbours: expected at least 1, got 0");
    }
    if args.temperature.is_nan() || args.temperature <= 0.0 {
        bail!("--temperature: expected more than 0, got {}", args.temperature);
    }
    let halves = Halves { train: args.data.open(Split::Train)?, test: args.data.open(Split::Validation)? };
    let protocol = Protocol {
        bag: args.bag.of(&checkpoint.spec().patch, &halves.train)?,
        knn: Knn { neighbours: args.neighbours, temperature: args.temperature },
        linear: Linear::preset(&args.probe)?,
        seed: 0,
        on_bad_image: args.bad.on_bad_image.into(),
        threads: args.data.threads,
    };
    let measured = backend::on(
        args.backend,
        Eval { checkpoint: &checkpoint, halves: &halves, protocol, cpu: args.cpu, quiet: args.json },
    )?;
    if args.json {
        let spec = checkpoint.spec();
        let all = serde_json::json!({
            "checkpoint": path,
            "data": args.data.name(),
            "fingerprint": {"train": halves.train.fingerprint(), "test": halves.test.fingerprint()},
            "protocol": {"bag": protocol.bag, "knn": protocol.knn.describe(), "linear": protocol.linear.describe()},
            "preset": spec.provenance.preset,
            "results": measured.scores,
            "convergence": measured.convergence,
            "health": measured.health,
        });
        say!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print(&measured, &halves, protocol, args);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(measured: &Measured, halves: &Halves, protocol: Protocol, args: &Args) {
    let classes = halves.train.classes().len();
    say!(
        "{}: {} training and {} test images of {classes} classes (chance {:.1} %)",
        args.data.name(),
        halves.train.len(),
        halves.test.len(),
        100.0 / classes as f64
    );
    say!("kNN     {}", protocol.knn.describe());
    say!("linear  {}\n", protocol.linear.describe());
    say!("{:<12} {:<6} {:<12} {:>7} {:>7}", "feature", "colour", "of", "kNN %", "linear %");
    for scored in &measured.scores {
        let view = match scored.view {
            View::Whole => "whole image".into(),
            View::Patches if scored.patches == 1 => "1 patch".into(),
            View::Patches => format!("{} patches", scored.patches),
        };
        let (space, colour) = (scored.space.name(), scored.colour.name());
        say!("{space:<12} {colour:<6} {view:<12} {:>7.1} {:>7.1}", scored.knn, scored.linear);
    }
    say!("");
    for (space, health) in &measured.health {
        let rank = format!("effective rank {:.1} of {}", health.effective_rank, health.rank_limit);
        let rate = format!("coding rate {:.0} % of its bound", 100.0 * health.coding_rate_share);
        say!("{:<12} {}: {rank}, {rate}", space.name(), health.verdict.name());
        health.reasons.iter().for_each(|reason| say!("             {reason}"));
    }
}

struct Eval<'a> {
    checkpoint: &'a Checkpoint<'a>,
    halves: &'a Halves,
    protocol: Protocol,
    cpu: CpuArgs,
    quiet: bool,
}

impl Job for Eval<'_> {
    type Output = Measured;

    fn run<T: Target>(self, device: Device<T>) -> Result<Measured> {
        let network = T::trained(self.checkpoint, &score::TAPS, self.cpu, &device)?;
        let total = score::images_to_embed(self.halves) as usize;
        let bar = if self.quiet { indicatif::ProgressBar::hidden() } else { work::bar("embed", total) };
        let input = Input::of(self.checkpoint.spec());
        let measured = score::measure(&*network, input, self.halves, self.protocol, &|images| bar.inc(images));
        bar.finish_and_clear();
        measured
    }
}

/// The bag as it is written in JSON.
pub(crate) fn describe(bag: Bag) -> String {
    match bag {
        Bag::Random { spec, patches } => format!("{patches} random patches, {:?}", spec.side()),
        Bag::Grid { spec, stride } => format!("all patches of a grid with stride {stride}, {:?}", spec.side()),
        Bag::Whole => "the whole image".into(),
        Bag::Centre => "the largest square in the middle".into(),
    }
}
