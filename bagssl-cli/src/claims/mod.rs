//! The claims of the paper. Each is a command of `bagssl eval` that answers one question about a
//! set of checkpoints.

mod analysis;
mod page;
pub(crate) mod aggregation;
pub(crate) mod convergence;
pub(crate) mod locality;
pub(crate) mod cooccurrence;
pub(crate) mod compare;
pub(crate) mod map;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::{Checkpoint, Spec};
use bagssl_core::color::Color;
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_data::Dataset;
use bagssl_eval::classify::protocol::{Origin, Protocol as How, fnv1a};
use bagssl_eval::features::Features;
use bagssl_eval::stats::Interval;
use clap::Subcommand;

use crate::backend::{CpuArgs, Name};
use crate::eval_settings::{EvalSettings, Input};
use crate::extraction::{CacheKey, Extraction, FeatureArgs};
use crate::input::bag::BagArgs;
use crate::input::files;
use crate::input::groups::Groups;
use crate::input::source::{BadImageArgs, DataArgs, fingerprint};
use crate::input::splits::Splits;
use crate::terminal::progress::Progress;
pub(crate) use analysis::{Analysis, Bars};
pub(crate) use page::PageArgs;

/// A claim.
#[derive(Debug, Subcommand)]
pub(crate) enum Claim {
    Aggregation(aggregation::Args),
    Convergence(convergence::Args),
    Locality(locality::Args),
    Cooccurrence(cooccurrence::Args),
    Compare(compare::Args),
}

impl Claim {
    /// Returns the analysis that answers the claim.
    pub(crate) fn question(&self) -> &dyn Analysis {
        match self {
            Claim::Aggregation(args) => args,
            Claim::Convergence(args) => args,
            Claim::Locality(args) => args,
            Claim::Cooccurrence(args) => args,
            Claim::Compare(args) => args,
        }
    }
}

pub(crate) fn run(claim: &Claim) -> Result<ExitCode> {
    analysis::answer(claim.question())
}

/// Arguments that all claims about checkpoints share.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClaimArgs {
    /// Checkpoints to analyze
    #[arg(required = true)]
    pub(crate) checkpoints: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) bad: BadImageArgs,
    /// Convert images to grey, so that color is no shortcut
    #[arg(long)]
    pub(crate) grey: bool,
    /// Seed of random bags, patch orders and bootstrap resamples
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Groups of images that the bootstrap resamples
    #[arg(long, value_enum, default_value_t)]
    pub(crate) groups: Groups,
    /// Backend to run the network on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) backend: Name,
    #[command(flatten)]
    pub(crate) cpu: CpuArgs,
    #[command(flatten)]
    pub(crate) features: FeatureArgs,
    #[command(flatten)]
    pub(crate) page: PageArgs,
}

impl ClaimArgs {
    /// Returns the color mode of the images.
    fn color(&self) -> Color {
        if self.grey { Color::Grey } else { Color::Rgb }
    }

    /// Reads all checkpoints and checks them before the first one is analyzed. Refuses duplicates,
    /// because they would pass for two seeds.
    fn read(&self) -> Result<Vec<(&PathBuf, Vec<u8>)>> {
        let mut files: Vec<(&PathBuf, Vec<u8>)> = Vec::new();
        for path in &self.checkpoints {
            let bytes = files::read_checkpoint(path)?;
            Checkpoint::from_bytes(&bytes).context(path.display().to_string())?;
            if let Some((same, _)) = files.iter().find(|(_, other)| *other == bytes) {
                let [same, path] = [same, path].map(|path| path.display().to_string());
                bail!("checkpoints: expected each once, got {same} and {path}, which are the same");
            }
            files.push((path, bytes));
        }
        Ok(files)
    }
}

/// Returns the origin of a result: protocol, checkpoint, data and seed.
pub(crate) fn origin(how: &How, checkpoint: &[u8], halves: &Splits, seed: u64) -> Origin {
    Origin {
        protocol: how.name.into(),
        protocol_hash: how.hash(),
        checkpoint_hash: fnv1a(checkpoint),
        data: [fingerprint(&halves.train), fingerprint(&halves.test)],
        seed,
    }
}

/// A checkpoint to analyze.
struct Subject<'a> {
    /// The display name, see [`names_of`].
    name: String,
    checkpoint: &'a Checkpoint<'a>,
    origin: Origin,
    network: &'a dyn Embed,
    kept: Option<CacheKey>,
    claim: &'a ClaimArgs,
    halves: &'a Splits,
    protocol: EvalSettings,
    bar: &'a Progress,
}

impl Subject<'_> {
    fn spec(&self) -> &Spec {
        self.checkpoint.spec()
    }

    /// Returns the features of each image's bag in one split, for each layer.
    fn features(&self, dataset: &Arc<Dataset>, bag: Bag, taps: &[FeatureLayer]) -> Result<Vec<Features>> {
        self.bar.inc_length(dataset.len() as u64);
        let extraction = Extraction {
            network: self.network,
            plan: &self.spec().model,
            input: self.input(),
            protocol: self.protocol,
            kept: self.kept.clone(),
            progress: &|images| self.bar.inc(images),
        };
        extraction.features(dataset, bag, self.color(), taps)
    }

    fn input(&self) -> Input {
        Input::from_spec(self.spec())
    }

    fn color(&self) -> Color {
        self.claim.color()
    }

    /// Returns the layers that are meaningful for this model. Without its own projector, this is
    /// only the embedding.
    fn taps(&self, taps: &[FeatureLayer]) -> Vec<FeatureLayer> {
        let own = self.checkpoint.has_projector();
        taps.iter().copied().filter(|&tap| own || tap == FeatureLayer::Embedding).collect()
    }

    /// Returns the features of both splits, training first.
    fn both(&self, bag: Bag, taps: &[FeatureLayer]) -> Result<[Vec<Features>; 2]> {
        Ok([self.features(&self.halves.train, bag, taps)?, self.features(&self.halves.test, bag, taps)?])
    }

    /// Returns the groups of the test images in `features`.
    fn groups(&self, features: &Features) -> Result<Vec<u32>> {
        let (groups, _) = self.claim.groups.group_ids(&self.halves.test)?;
        Ok(features.images().iter().map(|&image| groups[image as usize]).collect())
    }
}

/// The maximum number of checkpoints per claim.
pub(crate) const MOST_CHECKPOINTS: usize = 1000;

/// Analyzes each checkpoint in turn.
fn on_each<R>(
    claim: &ClaimArgs,
    how: How,
    bag: &BagArgs,
    taps: &[FeatureLayer],
    bars: Bars<'_>,
    mut look: impl FnMut(&Subject<'_>) -> Result<R>,
) -> Result<Vec<R>> {
    claim.features.check()?;
    if claim.checkpoints.len() > MOST_CHECKPOINTS {
        bail!("checkpoints: expected at most {MOST_CHECKPOINTS}, got {}", claim.checkpoints.len());
    }
    let backend = claim.backend.open_with(claim.cpu)?;
    let halves = Splits::open(&claim.data)?;
    let mut found = Vec::new();
    let files = claim.read()?;
    for ((path, bytes), name) in files.iter().zip(names_of(&claim.checkpoints)) {
        let checkpoint = Checkpoint::from_bytes(bytes).context(path.display().to_string())?;
        let network = backend.trained(&checkpoint, taps).with_context(|| path.display().to_string())?;
        let protocol = EvalSettings {
            bag: bag.of(&checkpoint.spec().patch, &halves.test)?,
            how,
            groups: claim.groups,
            seed: claim.seed,
            on_bad_image: claim.bad.on_bad_image.into(),
            threads: claim.data.threads,
        };
        let bar = bars(&name);
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
        let result = look(&subject).context(path.display().to_string());
        bar.finish();
        found.push(result?);
    }
    Ok(found)
}

/// The note about a model without its own projector.
pub(crate) const NO_PROJECTOR: &str = "it has no projector of its own (the identity stands for one), so that the projector's features \
                                       would repeat the embedding; they are left out";

/// Returns the checkpoints' display names: [`name_of`] if that is unique, the path otherwise.
fn names_of(paths: &[PathBuf]) -> Vec<String> {
    let names: Vec<String> = paths.iter().map(|path| name_of(path)).collect();
    let name = |(path, name): (&PathBuf, &String)| {
        let is_shared = paths.iter().zip(&names).any(|(other, same)| other != path && same == name);
        if is_shared { path.display().to_string() } else { name.clone() }
    };
    paths.iter().zip(&names).map(name).collect()
}

/// Returns a checkpoint's display name: the folder's name for a run, the file's stem otherwise.
fn name_of(path: &Path) -> String {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let is_run = path.file_name().is_some_and(|name| name == bagssl_train::run_state::CHECKPOINT);
    let folder = path.parent().and_then(|folder| part(folder.file_name())).filter(|_| is_run);
    folder.or_else(|| part(path.file_stem())).unwrap_or_else(|| path.display().to_string())
}

/// Formats a value with its interval, as in "12.3 (10.1 to 14.2)".
fn with_interval(value: f64, interval: Option<Interval>) -> String {
    let interval = interval.map_or(String::new(), |it| format!(" ({:.1} to {:.1})", it.low, it.high));
    format!("{value:.1}{interval}")
}

/// Returns a placeholder for tests of pages, which only pass it on.
#[cfg(test)]
fn some_origin() -> Origin {
    Origin {
        protocol: "p".into(),
        protocol_hash: "h".into(),
        checkpoint_hash: "c".into(),
        data: ["a".into(), "b".into()],
        seed: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_called_by_their_folders() {
        assert_eq!(name_of(Path::new("runs/bagssl-seed0/checkpoint.safetensors")), "bagssl-seed0");
        assert_eq!(name_of(Path::new("pretrained.safetensors")), "pretrained");
        assert_eq!(name_of(Path::new("checkpoint.safetensors")), "checkpoint");
        let paths = ["a/x.safetensors", "b/x.safetensors", "c/y.safetensors"].map(PathBuf::from);
        assert_eq!(names_of(&paths), ["a/x.safetensors", "b/x.safetensors", "y"]);
    }
}
