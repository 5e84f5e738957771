//! `bagssl train`.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use bagssl_core::observe::Observer;
use bagssl_data::bad::OnBadImage;
use bagssl_data::dataset::{Dataset, Split};
use bagssl_data::loader::{Loader, LoaderConfig};
use bagssl_train::Error;
use bagssl_train::config::CheckedConfig;
use bagssl_train::memory::Estimate;
use bagssl_train::progress::{Bar, Metrics};
use bagssl_train::store::{FileStore, Nowhere, Store};
use bagssl_train::tensorboard::TensorBoard;
use bagssl_train::trainer::{Ended, RunInfo, Trainer};
use bagssl_train::workers::Exchange;
use burn::backend::Autodiff;

use crate::backend::{self, Device, Job, Name, Target, Worker};
use crate::config::{ConfigArgs, RunConfig};
use crate::files;
use crate::memory;
use crate::output::say;
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
    let observers: Vec<Box<dyn Observer>> = if args.json { vec![] } else { vec![Box::new(Bar::new("train"))] };
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
    if args.json {
        let Outcome { steps, resumed, seconds } = outcome;
        let done = serde_json::json!({
            "checkpoint": checkpoint, "steps": steps, "resumed_at_step": resumed, "seconds": seconds,
        });
        say!("{done}");
    } else {
        say!("{} steps done, in {:.1} s; the model is {}", outcome.steps, outcome.seconds, checkpoint.display());
    }
    Ok(ExitCode::SUCCESS)
}

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
pub(crate) fn training(training: Training<'_>, observers: Vec<Box<dyn Observer>>) -> Result<Outcome> {
    backend::on(training.backend, Observed(training, observers))
}

/// A run and those who watch it.
struct Observed<'a>(Training<'a>, Vec<Box<dyn Observer>>);

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

/// Training on a target.
pub(crate) type Run<T> = Trainer<Autodiff<<T as Target>::Backend>, <T as Target>::Training>;

impl Job for Observed<'_> {
    type Output = Outcome;

    fn run<T: Target>(self, device: Device<T>) -> Result<Outcome> {
        let started = std::time::Instant::now();
        let Observed(run, others) = self;
        let checked = run.config.train.clone().check()?;
        run.check_devices()?;
        run.check_memory::<T>(&checked)?;
        let loader = loader(run.config, run.dataset.clone(), run.threads, run.on_bad_image)?;
        files::make_folder(run.out)?;
        let mut trainer = run.begin::<T>(&checked, device)?;
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
            _ => run.together::<T>(&checked, &mut trainer, &loader, &mut observers, &mut store),
        };
        let ended = ended.map_err(|error| with_names(error, &run.dataset))?;
        tell_skipped(&loader.skipped());
        if ended == Ended::Stopped {
            bail!("stopped at step {}; the same command goes on from there", trainer.step());
        }
        files::write(&run.out.join(CHECKPOINT), &trainer.checkpoint()?)?;
        Ok(Outcome { steps: trainer.step(), resumed, seconds: started.elapsed().as_secs_f64() })
    }
}

impl Training<'_> {
    /// Trains on several devices. `first` is the trainer of the first, on this thread, which alone is watched and saves.
    fn together<T: Target>(
        &self,
        checked: &CheckedConfig,
        first: &mut Run<T>,
        loader: &Loader,
        observers: &mut dyn Observer,
        store: &mut FileStore,
    ) -> Result<Ended> {
        let mut workers = T::workers(self.devices)?.into_iter();
        let own = workers.next().expect("there are at least two").exchange;
        let work = |trainer: &mut Run<T>,
                    exchange: Arc<dyn Exchange<T::Backend>>,
                    observer: &mut dyn Observer,
                    store: &mut dyn Store| {
            let part = loader.part(exchange.rank().share(checked.config().batch.images)?);
            trainer.set_workers(exchange)?;
            Ok(trainer.run(&part, observer, store)?)
        };
        std::thread::scope(|scope| {
            let begin = |Worker { device, exchange }: Worker<T>| -> Result<Ended> {
                let mut trainer = self.begin::<T>(checked, device)?;
                work(&mut trainer, exchange, &mut Vec::new(), &mut Nowhere)
            };
            let others: Vec<_> = workers.map(|worker| scope.spawn(move || begin(worker))).collect();
            let ended = work(first, own, observers, store);
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
    fn check_memory<T: Target>(&self, config: &CheckedConfig) -> Result<()> {
        let batch = config.config().batch;
        let estimate = Estimate::of(config, T::MAP_VALUE);
        let images = batch.images / self.devices;
        let needed = estimate.bytes((images as u64).saturating_mul(batch.together() as u64));
        let Some(free) = T::free_memory(self.devices) else { return Ok(()) };
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

    /// A run from its beginning, or from where it was stopped.
    fn begin<T: Target>(&self, config: &CheckedConfig, device: Device<T>) -> Result<Run<T>> {
        let path = self.out.join(STATE);
        let config = config.clone();
        let info = RunInfo {
            preset: self.config.name.clone(),
            data: self.dataset.fingerprint(),
            settings: format!("{}{}", toml::to_string(&self.config.augment)?, self.backend.text()),
        };
        let mut trainer = if self.force || !path.exists() {
            Trainer::new(config, info, device)?
        } else {
            let bytes = files::read(&path)?;
            Trainer::resume(config, info, device, &bytes).map_err(|error| match error {
                Error::OtherRun { .. } => Error::OtherRun { path: path.clone() }.into(),
                other => anyhow::Error::new(other).context(path.display().to_string()),
            })?
        };
        T::prepare(&mut trainer);
        Ok(trainer)
    }
}
