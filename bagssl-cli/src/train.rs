//! `bagssl train`.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use bagssl_backend::{AnyTrainer, Backend, Worker};
use bagssl_core::observe::Observer;
use bagssl_data::bad::OnBadImage;
use bagssl_data::dataset::{Dataset, Split};
use bagssl_data::loader::{Loader, LoaderConfig};
use bagssl_train::Error;
use bagssl_train::config::CheckedConfig;
use bagssl_train::memory::Estimate;
use bagssl_train::progress::{Bar, Metrics};
use bagssl_train::store::{FileStore, Nowhere};
use bagssl_train::tensorboard::TensorBoard;
use bagssl_train::trainer::{Ended, RunInfo};

use crate::backend::Name;
use crate::config::{ConfigArgs, RunConfig};
use crate::files;
use crate::memory;
use crate::output::say;
use crate::profile::{Profile, Window};
use crate::source::{BadImageArgs, DataArgs, tell_skipped};
use crate::watch::Watch;

/// Train an encoder on a set of images
///
/// Writes into the run's folder: config.toml (all settings), metrics.jsonl (a line for each step, and after
/// each epoch the health of its projections: collapsed, suspect or healthy), state.safetensors (to
/// resume from) and, at the end, checkpoint.safetensors. Called again with the same settings it goes on where it was
/// stopped, with the same result as if it had not been.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    /// Folder of the run [default: runs/PRESET-seedN]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Begin anew in a folder that holds another run
    #[arg(long)]
    force: bool,
    /// Where the network runs
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    /// Devices that share each batch, whose images must be a multiple of them: GPUs, from the first on (needs NCCL), or
    /// workers on one CPU, which is no faster. The steps are those of one device, but for rounding
    #[arg(long, value_name = "N", default_value_t = 1)]
    devices: usize,
    /// Also write the figures of each step as an event file for TensorBoard (`tensorboard --logdir DIR`)
    #[arg(long)]
    tensorboard: bool,
    /// Write a Chrome trace of some 50 steps to a file (for ui.perfetto.dev or chrome://tracing), and print where their time goes
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Print the settings as TOML, and do nothing else
    #[arg(long)]
    print_config: bool,
    /// Print the result as JSON, and no progress
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let config = args.config.resolve()?;
    config.train.clone().check()?;
    if args.print_config {
        crate::output::write(format_args!("{}", config.to_toml()?));
        return Ok(ExitCode::SUCCESS);
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(format!("{}-seed{}", config.name, config.train.seed)));
    let mut observers: Vec<Box<dyn Observer>> = if args.json { vec![] } else { vec![Box::new(Bar::new("train"))] };
    let profile = args.profile.as_deref().map(Profile::prepare).transpose()?;
    if let Some(profile) = profile {
        observers.push(Box::new(Window::new(profile, PROFILED)));
    }
    let run = Training {
        config: &config,
        dataset: args.data.open(Split::Train)?,
        threads: args.data.threads,
        on_bad_image: args.bad.on_bad_image.into(),
        out: &out,
        force: args.force,
        backend: args.backend,
        devices: args.devices,
        tensorboard: args.tensorboard,
    };
    let outcome = training(run, observers)?;
    let checkpoint = out.join(CHECKPOINT);
    let profile = profile.map(Profile::finish).transpose()?;
    if args.json {
        let Outcome { steps, resumed, seconds } = outcome;
        let mut done = serde_json::json!({
            "checkpoint": checkpoint, "steps": steps, "resumed_at_step": resumed, "seconds": seconds,
        });
        if let Some((_, profile)) = profile {
            done["profile"] = profile;
        }
        say!("{done}");
    } else {
        if let Some((table, _)) = profile {
            say!("{}", table.trim_end());
        }
        say!("{} steps done, in {:.1} s; the model is {}", outcome.steps, outcome.seconds, checkpoint.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The most steps of a profile.
const PROFILED: usize = 50;

/// The file that a run leaves for use.
pub(crate) const CHECKPOINT: &str = "checkpoint.safetensors";
/// The file that a run is resumed from.
pub(crate) const STATE: &str = "state.safetensors";
/// The lines of a run's steps.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// A run that is to be done.
pub(crate) struct Training<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) threads: usize,
    pub(crate) on_bad_image: OnBadImage,
    pub(crate) out: &'a Path,
    pub(crate) force: bool,
    pub(crate) backend: Name,
    /// How many devices share each batch.
    pub(crate) devices: usize,
    /// Whether TensorBoard's file is written.
    pub(crate) tensorboard: bool,
}

/// How a run went.
pub(crate) struct Outcome {
    pub(crate) steps: u64,
    pub(crate) resumed: u64,
    pub(crate) seconds: f64,
}

/// Begins or resumes a run, and brings it to its end.
pub(crate) fn training(run: Training<'_>, others: Vec<Box<dyn Observer>>) -> Result<Outcome> {
    let started = std::time::Instant::now();
    let backend = run.backend.open()?;
    let checked = run.config.train.clone().check()?;
    run.check_devices()?;
    run.check_memory(&*backend, &checked)?;
    let loader = loader(run.config, run.dataset.clone(), run.threads, run.on_bad_image)?;
    files::make_folder(run.out)?;
    let mut workers = if run.devices > 1 { backend.workers(run.devices)? } else { Vec::new() };
    let rest = workers.split_off(workers.len().min(1));
    // Held until the last worker has begun.
    let state = run.state()?.map(Arc::new);
    let begin = Begin { run: &run, checked: &checked };
    let mut trainer = match workers.pop() {
        None => begin.alone(&*backend, state.as_deref())?,
        Some(first) => begin.shared(first, state.as_deref())?,
    };
    let rest: Vec<_> = rest.into_iter().map(|worker| (worker, state.clone())).collect();
    drop(state);
    let resumed = trainer.step();
    files::write(&run.out.join("config.toml"), run.config.to_toml()?.as_bytes())?;
    let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(Metrics::create(&run.out.join(METRICS), resumed)?)];
    if run.tensorboard {
        observers.push(Box::new(TensorBoard::create(run.out, resumed)?));
    }
    observers.extend(others);
    let mut observers = Watch(observers);
    let mut store = FileStore::new(run.out.join(STATE));
    let ended = match run.devices {
        1 => trainer.run(&loader, &mut observers, &mut store).map_err(Into::into),
        _ => together(&begin, &mut *trainer, rest, &loader, &mut observers, &mut store),
    };
    let ended = ended.map_err(|error| with_names(error, &run.dataset))?;
    if ended == Ended::Finished {
        files::write(&run.out.join(CHECKPOINT), &trainer.checkpoint()?)?;
    }
    tell_skipped(&loader.skipped());
    if ended == Ended::Stopped {
        bail!("stopped at step {}; the same command goes on from there", trainer.step());
    }
    Ok(Outcome { steps: trainer.step(), resumed, seconds: started.elapsed().as_secs_f64() })
}

/// The loader of a run's batches.
pub(crate) fn loader(
    config: &RunConfig,
    dataset: Arc<Dataset>,
    threads: usize,
    on_bad_image: OnBadImage,
) -> Result<Loader> {
    let train = &config.train;
    Ok(Loader::new(
        dataset,
        LoaderConfig {
            views: train.views,
            patches: train.batch.patches,
            batch: train.batch.images,
            seed: train.seed,
            threads,
            on_bad_image,
            augment: config.augment,
            normalisation: train.normalisation,
            filter: train.filter,
            ..LoaderConfig::default()
        },
    )?)
}

/// A worker that has yet to begin, with what an earlier call saved.
type Waiting = (Box<dyn Worker>, Option<Arc<Vec<u8>>>);

/// Trains on several devices. `first` is the trainer of the first, on this thread, which alone is watched and saves.
fn together(
    begin: &Begin<'_>,
    first: &mut dyn AnyTrainer,
    rest: Vec<Waiting>,
    loader: &Loader,
    observers: &mut dyn Observer,
    store: &mut FileStore,
) -> Result<Ended> {
    let images = begin.checked.config().batch.images;
    std::thread::scope(|scope| {
        let work = |(worker, state): Waiting| -> Result<Ended> {
            let part = loader.part(worker.share(images)?);
            let mut trainer = begin.shared(worker, state.as_deref())?;
            drop(state);
            Ok(trainer.run(&part, &mut Vec::new(), &mut Nowhere)?)
        };
        let others: Vec<_> = rest.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
        let part = loader.part(0..images / begin.run.devices);
        let ended = first.run(&part, observers, store).map_err(anyhow::Error::new);
        // Whoever waits for this worker is told that it has ended.
        first.leave_workers();
        let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        // Of the errors that one which is not another's.
        let is_others = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Error::Workers(_)));
        others.fold(ended, |first, other| match (first, other) {
            (Err(first), Err(other)) if is_others(&first) => Err(other),
            (Ok(_), Err(other)) => Err(other),
            (first, _) => first,
        })
    })
}

/// What a run begins with; what an earlier call saved comes beside it.
struct Begin<'a> {
    run: &'a Training<'a>,
    checked: &'a CheckedConfig,
}

impl Begin<'_> {
    /// A trainer that has the batch to itself.
    fn alone(&self, backend: &dyn Backend, state: Option<&Vec<u8>>) -> Result<Box<dyn AnyTrainer>> {
        self.told(backend.trainer(self.checked.clone(), self.info()?, state.map(Vec::as_slice)), state)
    }

    /// The trainer of one of several workers.
    fn shared(&self, worker: Box<dyn Worker>, state: Option<&Vec<u8>>) -> Result<Box<dyn AnyTrainer>> {
        self.told(worker.trainer(self.checked.clone(), self.info()?, state.map(Vec::as_slice)), state)
    }

    fn info(&self) -> Result<RunInfo> {
        let Training { config, dataset, backend, .. } = self.run;
        Ok(RunInfo {
            preset: config.name.clone(),
            data: dataset.fingerprint(),
            settings: format!("{}{}", toml::to_string(&config.augment)?, backend.text()),
        })
    }

    /// The errors of a state with its file.
    fn told<T>(&self, result: bagssl_train::Result<T>, state: Option<&Vec<u8>>) -> Result<T> {
        let path = self.run.out.join(STATE);
        result.map_err(|error| match error {
            Error::OtherRun { .. } => Error::OtherRun { path }.into(),
            other if state.is_some() => anyhow::Error::new(other).context(path.display().to_string()),
            other => other.into(),
        })
    }
}

/// An error with the names of the first images that it is about.
fn with_names(error: anyhow::Error, dataset: &Dataset) -> anyhow::Error {
    const SHOWN: usize = 3;
    let names: Vec<&str> = match error.downcast_ref() {
        Some(Error::NotFinite { images, .. }) => {
            images.iter().take(SHOWN).map(|&image| dataset.name(image as usize)).collect()
        }
        _ => Vec::new(),
    };
    match names.is_empty() {
        true => error,
        false => anyhow::anyhow!("{error} ({}, ..); --on-not-finite skip goes on without such steps", names.join(", ")),
    }
}

impl Training<'_> {
    /// Refuses a batch that the devices cannot divide.
    fn check_devices(&self) -> Result<()> {
        let images = self.config.train.batch.images;
        match self.devices {
            0 => bail!("--devices: expected at least 1, got 0"),
            devices if !images.is_multiple_of(devices) => {
                bail!("--devices: expected a divisor of the {images} images of a batch, got {devices}")
            }
            _ => Ok(()),
        }
    }

    /// Refuses a step that takes more memory than there is, and says what would fit.
    fn check_memory(&self, backend: &dyn Backend, config: &CheckedConfig) -> Result<()> {
        let batch = config.config().batch;
        let estimate = Estimate::of(config, backend.map_value_bytes());
        let images = batch.images / self.devices;
        let needed = estimate.bytes((images as u64).saturating_mul(batch.together() as u64));
        let Some(free) = backend.free_memory(self.devices) else { return Ok(()) };
        if needed <= free {
            return Ok(());
        }
        let (needed, free_mib) = (needed / memory::MIB, free / memory::MIB);
        let advice = match estimate.fitting(free, images, batch.patches) {
            Some(together) => format!("--micro {together} would fit"),
            None => "smaller --images, --projector or --arch would".into(),
        };
        bail!("a step: expected at most the {free_mib} MiB of memory that are free, got about {needed} MiB; {advice}")
    }

    /// What an earlier call saved, if this one is to go on with it.
    fn state(&self) -> Result<Option<Vec<u8>>> {
        let path = self.out.join(STATE);
        if self.force || !path.exists() { Ok(None) } else { files::read(&path).map(Some) }
    }
}
