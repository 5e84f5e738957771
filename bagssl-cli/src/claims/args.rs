//! Arguments that all claims about checkpoints share, and the loop over the checkpoints.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bagssl::{EvalOptions, Event, Model, Splits};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_eval::Protocol;

use super::analysis::Bars;
use super::page::PageArgs;
use crate::backend::{CpuArgs, Name};
use crate::events;
use crate::input::bag::BagArgs;
use crate::input::features::FeatureArgs;
use crate::input::files;
use crate::input::groups::GroupsChoice;
use crate::input::source::{BadImageArgs, DataArgs, fingerprint};
use crate::input::splits;

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
    pub(crate) groups: GroupsChoice,
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
    pub(crate) fn color(&self) -> Color {
        if self.grey { Color::Grey } else { Color::Rgb }
    }

    /// Returns the options of the evaluation, without a listener.
    pub(super) fn options(&self, protocol: Protocol, bag: &BagArgs) -> Result<EvalOptions<'_>> {
        Ok(EvalOptions {
            patches: Some(bag.patches()?),
            protocol,
            groups: self.groups.into(),
            seed: self.seed,
            on_bad_image: self.bad.on_bad_image.into(),
            threads: self.data.threads,
            feature_cache: self.features.folder(),
            on_event: None,
        })
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

    /// Returns the path of the checkpoint with a display name.
    pub(super) fn path_of(&self, name: &str) -> String {
        let names = names_of(&self.checkpoints);
        let path = self.checkpoints.iter().zip(names).find(|(_, other)| other == name);
        path.map_or_else(|| name.into(), |(path, _)| path.display().to_string())
    }
}

/// The maximum number of checkpoints per claim.
pub(crate) const MAX_CHECKPOINTS: usize = 1000;

/// Loads each checkpoint in turn and measures it, with a network that can read `layers`.
pub(crate) fn for_each_checkpoint<R>(
    claim: &ClaimArgs,
    protocol: Protocol,
    bag: &BagArgs,
    layers: &[FeatureLayer],
    bars: Bars<'_>,
    mut measure: impl FnMut(&Model<'_>, &Splits, &EvalOptions<'_>) -> Result<R>,
) -> Result<Vec<R>> {
    claim.features.check()?;
    if claim.checkpoints.len() > MAX_CHECKPOINTS {
        bail!("checkpoints: expected at most {MAX_CHECKPOINTS}, got {}", claim.checkpoints.len());
    }
    let backend = claim.backend.open_with(claim.cpu)?;
    let splits = splits::open(&claim.data)?;
    let mut measured = Vec::new();
    let files = claim.read()?;
    for ((path, bytes), name) in files.iter().zip(names_of(&claim.checkpoints)) {
        let checkpoint = Checkpoint::from_bytes(bytes).context(path.display().to_string())?;
        let network = backend.trained(&checkpoint, layers).with_context(|| path.display().to_string())?;
        // Reports patches that the images do not have, before the work begins.
        bag.of(&checkpoint.spec().patch, &splits.test)?;
        let bar = bars(&name);
        // Shows the progress of reading the images, the first time.
        for split in [&splits.train, &splits.test] {
            fingerprint(split);
        }
        let model = Model::new(name, &checkpoint, bytes, &*network, &claim.backend.text_with(claim.cpu));
        let show = |event: Event<'_>| events::show(event, &bar);
        let options = EvalOptions { on_event: Some(&show), ..claim.options(protocol, bag)? };
        let result = measure(&model, &splits, &options).context(path.display().to_string());
        bar.finish();
        measured.push(result?);
    }
    Ok(measured)
}

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
