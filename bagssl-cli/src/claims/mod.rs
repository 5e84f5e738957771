//! The claims of the paper, each a command of `bagssl eval` that answers one question about any checkpoints.

mod aggregation;
mod compare;
mod convergence;
mod cooccurrence;
mod locality;
pub(crate) mod map;
mod page;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::{Checkpoint, Spec};
use bagssl_core::colour::Colour;
use bagssl_core::embed::{Embed, Tap};
use bagssl_data::dataset::{Dataset, Split};
use bagssl_eval::features::Features;
use bagssl_eval::protocol::{Origin, Protocol as How, fnv1a};
use clap::Subcommand;
use indicatif::ProgressBar;

use crate::backend::{self, CpuArgs, Device, Job, Name, Target};
use crate::bag::BagArgs;
use crate::extraction::{Extraction, FeatureArgs, Kept};
use crate::files;
use crate::groups::Groups;
use crate::score::{Halves, Input, Protocol};
use crate::source::{BadImageArgs, DataArgs};
use crate::work;
pub(crate) use page::PageArgs;

/// One claim.
#[derive(Debug, Subcommand)]
pub(crate) enum Claim {
    Aggregation(aggregation::Args),
    Convergence(convergence::Args),
    Locality(locality::Args),
    Cooccurrence(cooccurrence::Args),
    Compare(compare::Args),
}

pub(crate) fn run(claim: &Claim) -> Result<ExitCode> {
    match claim {
        Claim::Aggregation(args) => aggregation::run(args),
        Claim::Convergence(args) => convergence::run(args),
        Claim::Locality(args) => locality::run(args),
        Claim::Cooccurrence(args) => cooccurrence::run(args),
        Claim::Compare(args) => compare::run(args),
    }
}

/// What all claims about checkpoints are told.
#[derive(Debug, clap::Args)]
struct ClaimArgs {
    /// The checkpoints
    #[arg(required = true)]
    checkpoints: Vec<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    /// Look at greyed images, where colour is no short cut
    #[arg(long)]
    grey: bool,
    /// Seed of random bags, of orders and of the intervals' draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Images that an interval draws as one
    #[arg(long, value_enum, default_value_t)]
    groups: Groups,
    /// Where the network runs
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    page: PageArgs,
}

/// What a number depends on.
pub(crate) fn origin(how: &How, checkpoint: &[u8], halves: &Halves, seed: u64) -> Origin {
    Origin {
        protocol: how.name.into(),
        protocol_hash: how.hash(),
        checkpoint_hash: fnv1a(checkpoint),
        data: [halves.train.fingerprint(), halves.test.fingerprint()],
        seed,
    }
}

/// A checkpoint that a claim is checked on.
struct Subject<'a> {
    /// What the reader calls it: the file's folder, or its name where it stands alone.
    name: String,
    checkpoint: &'a Checkpoint<'a>,
    origin: Origin,
    network: &'a dyn Embed,
    kept: Option<Kept>,
    claim: &'a ClaimArgs,
    halves: &'a Halves,
    protocol: Protocol,
    bar: &'a ProgressBar,
}

impl Subject<'_> {
    fn spec(&self) -> &Spec {
        self.checkpoint.spec()
    }

    /// The features of a bag of each image of a half, at each tap.
    fn features(&self, dataset: &Arc<Dataset>, bag: Bag, taps: &[Tap]) -> Result<Vec<Features>> {
        self.bar.inc_length(dataset.len() as u64);
        let extraction = Extraction {
            network: self.network,
            plan: &self.spec().model,
            input: self.input(),
            protocol: self.protocol,
            kept: self.kept.clone(),
            progress: &|images| self.bar.inc(images),
        };
        extraction.features(dataset, bag, self.colour(), taps)
    }

    fn input(&self) -> Input {
        Input::of(self.spec())
    }

    fn colour(&self) -> Colour {
        if self.claim.grey { Colour::Grey } else { Colour::Rgb }
    }

    /// The same for both halves, training first.
    fn both(&self, bag: Bag, taps: &[Tap]) -> Result<[Vec<Features>; 2]> {
        Ok([self.features(&self.halves.train, bag, taps)?, self.features(&self.halves.test, bag, taps)?])
    }

    /// The groups of test images that features are of.
    fn groups(&self, features: &Features) -> Result<Vec<u32>> {
        let (groups, _) = self.claim.groups.of(&self.halves.test)?;
        Ok(features.images().iter().map(|&image| groups[image as usize]).collect())
    }
}

struct OnSubject<'a, F> {
    claim: &'a ClaimArgs,
    how: How,
    bag: &'a BagArgs,
    taps: &'a [Tap],
    look: F,
}

impl<R, F: FnMut(&Subject<'_>) -> Result<R>> Job for OnSubject<'_, F> {
    type Output = Vec<R>;

    fn run<T: Target>(mut self, device: Device<T>) -> Result<Vec<R>> {
        let OnSubject { claim, how, .. } = self;
        let halves = Halves { train: claim.data.open(Split::Train)?, test: claim.data.open(Split::Validation)? };
        let mut found = Vec::new();
        // All are checked before the first is looked at.
        let mut files = Vec::new();
        for path in &claim.checkpoints {
            let bytes = files::read(path)?;
            Checkpoint::from_bytes(&bytes).context(path.display().to_string())?;
            files.push((path, bytes));
        }
        for (path, bytes) in &files {
            let checkpoint = Checkpoint::from_bytes(bytes).context(path.display().to_string())?;
            let network = T::trained(&checkpoint, self.taps, claim.cpu, &device)?;
            let protocol = Protocol {
                bag: self.bag.of(&checkpoint.spec().patch, &halves.test)?,
                how,
                groups: claim.groups,
                seed: claim.seed,
                on_bad_image: claim.bad.on_bad_image.into(),
                threads: claim.data.threads,
            };
            let name = name_of(path);
            let bar = if claim.page.json { ProgressBar::hidden() } else { work::bar(&name, 0) };
            let subject = Subject {
                name,
                checkpoint: &checkpoint,
                origin: origin(&how, bytes, &halves, claim.seed),
                network: &*network,
                kept: claim.features.of(bytes, claim.backend, claim.cpu),
                claim,
                halves: &halves,
                protocol,
                bar: &bar,
            };
            let result = (self.look)(&subject).context(path.display().to_string());
            bar.finish_and_clear();
            found.push(result?);
        }
        Ok(found)
    }
}

/// Looks at each checkpoint in turn.
fn on_each<R>(
    claim: &ClaimArgs,
    how: How,
    bag: &BagArgs,
    taps: &[Tap],
    look: impl FnMut(&Subject<'_>) -> Result<R>,
) -> Result<Vec<R>> {
    claim.page.check()?;
    claim.features.check()?;
    if claim.checkpoints.len() > 1000 {
        bail!("checkpoints: expected at most 1000, got {}", claim.checkpoints.len());
    }
    backend::on(claim.backend, OnSubject { claim, how, bag, taps, look })
}

/// A run's checkpoint is called by its folder, any other by its own name.
fn name_of(path: &std::path::Path) -> String {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let is_run = path.file_name().is_some_and(|name| name == crate::train::CHECKPOINT);
    let folder = path.parent().and_then(|folder| part(folder.file_name())).filter(|_| is_run);
    folder.or_else(|| part(path.file_stem())).unwrap_or_else(|| path.display().to_string())
}

/// "12.3 (10.1 to 14.2)".
fn with_interval(value: f64, low: f64, high: f64) -> String {
    format!("{value:.1} ({low:.1} to {high:.1})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn runs_are_called_by_their_folders() {
        assert_eq!(name_of(Path::new("runs/bagssl-seed0/checkpoint.safetensors")), "bagssl-seed0");
        assert_eq!(name_of(Path::new("pretrained.safetensors")), "pretrained");
        assert_eq!(name_of(Path::new("checkpoint.safetensors")), "checkpoint");
    }
}
