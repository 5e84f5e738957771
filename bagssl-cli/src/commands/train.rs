//! `bagssl train`.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl_backend::{AnyTrainer, Backend, CpuOptions, Worker};
use bagssl_core::batch::{BatchShape, PatchBatch, PatchSource, SourceError};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::embed::FeatureLayer;
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_data::{Dataset, Loader, LoaderConfig, OnBadImage, Split};
use bagssl_files::check_regular;
use bagssl_train::Error;
use bagssl_train::config::{CheckedConfig, OnNotFinite, flatten};
use bagssl_train::memory::MemoryEstimate;
use bagssl_train::metrics::Metrics;
use bagssl_train::metrics::tensorboard::TensorBoard;
use bagssl_train::run_state::{
    CHECKPOINT, CONFIG, METRICS, Nowhere, OLD_STATE, Retention, RunFolder, STATES, SaveInterval, SavedState, States,
};
use bagssl_train::trainer::{Ended, RunInfo};

use crate::backend::Name;
use crate::config::{ConfigArgs, RunConfig};
use crate::input::files;
use crate::input::source::{BadImageArgs, DataArgs, fingerprint, report_skipped};
use crate::memory;
use crate::run_output::{check_output, write_resumed};
use crate::terminal::health_monitor::{HealthMonitor, LastHealth};
use crate::terminal::output::{note, one_line, say};
use crate::terminal::profile::{Profile, Window};
use crate::terminal::progress::Steps;
use crate::terminal::signals::{Stopped, Waiting};

/// Train an encoder on images
///
/// Writes to the run folder: config.toml with all settings; metrics.jsonl with one line per step,
/// and after each epoch a verdict on the projections (collapsed, suspect or healthy); the folder
/// states with the saved training states; and, at the end, checkpoint.safetensors.
///
/// Running the command again with the same settings resumes from the newest state. The result is
/// the same as without the interruption.
///
/// SIGINT (Ctrl-C), SIGTERM and SIGHUP finish the current step, save the state, and exit with code
/// 130, 143 or 129. A second signal aborts at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    /// Run folder [default: runs/PRESET-seedN]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Remove the existing run in the folder and start over
    #[arg(long)]
    force: bool,
    /// Interval between saved states, in steps (500) or time (90s, 10m, 2h)
    #[arg(long, value_name = "STEPS|TIME", default_value = "10m")]
    save_every: SaveInterval,
    /// Number of recent states to keep
    ///
    /// If the newest state is damaged, training resumes from the one before it.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// Also save the state after every Nth epoch, and keep it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    milestones: Option<u32>,
    /// Resume from the state of this step, or from the `last` state
    ///
    /// The learning rate, the number of epochs and --on-not-finite may then differ from the saved
    /// run. The changes are recorded. Later states are removed.
    #[arg(long, value_name = "STEP|last", conflicts_with = "force")]
    resume_from: Option<ResumePoint>,
    /// Backend that runs the network
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    /// Number of devices that split each batch
    ///
    /// The number of images per batch must be a multiple of N. GPUs are used from the first one on,
    /// and need NCCL. With a CPU backend, the devices are workers that share the CPU, which is no
    /// faster. The steps equal those of a single device, up to rounding.
    #[arg(long, value_name = "N", default_value_t = 1)]
    devices: usize,
    /// Also write the metrics of each step as a TensorBoard event file (`tensorboard --logdir DIR`)
    #[arg(long)]
    tensorboard: bool,
    /// Write a Chrome trace of about 50 steps, and print where their time goes
    ///
    /// Open the trace in ui.perfetto.dev or chrome://tracing. On a GPU, the counts are those of
    /// this program's kernels, plans, products and copies. Burn's own kernels, and the small
    /// uploads for them, are not counted.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Print the settings as TOML and exit
    #[arg(long)]
    print_config: bool,
    /// Print the result as JSON, without progress
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let config = args.config.resolve()?;
    config.train.clone().check()?;
    if args.print_config {
        crate::terminal::output::write(format_args!("{}", config.to_toml()?));
        return Ok(ExitCode::SUCCESS);
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(format!("{}-seed{}", config.name, config.train.seed)));
    let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(Steps::new("train", args.json))];
    if args.profile.is_some() && args.devices > 1 {
        bail!("--profile: expected one device, got --devices {}", args.devices);
    }
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
        resume_from: args.resume_from,
        keeping: Retention { interval: args.save_every, last: args.keep as usize, milestones: args.milestones },
        data_location: args.data.location(),
        backend: args.backend,
        devices: args.devices,
        tensorboard: args.tensorboard,
    };
    let outcome = training(run, observers);
    // The profile is also finished if the run was stopped or has failed.
    let profile = profile.map(Profile::finish).transpose();
    let (outcome, profile) = (outcome?, profile?.flatten());
    let checkpoint = out.join(CHECKPOINT);
    if args.json {
        let Outcome { steps, skipped, resumed, seconds, health } = outcome;
        let mut done = serde_json::json!({
            "checkpoint": checkpoint, "steps": steps, "skipped": skipped, "resumed_at_step": resumed, "seconds": seconds,
            "health": health,
        });
        if let Some((_, profile)) = profile {
            done["profile"] = profile;
        }
        say!("{done}");
    } else {
        if let Some((table, _)) = profile {
            say!("{}", table.trim_end());
        }
        say!("{} steps in {:.1} s; model written to {}", outcome.steps, outcome.seconds, checkpoint.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The maximum number of steps in a profile.
const PROFILED: usize = 50;

/// The state to resume from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResumePoint {
    /// The newest undamaged state.
    Last,
    /// The state after this number of steps.
    Step(u64),
}

impl FromStr for ResumePoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("last", _) => Ok(ResumePoint::Last),
            (_, Ok(step)) => Ok(ResumePoint::Step(step)),
            _ => Err(format!("expected a step or last, got {text:?}")),
        }
    }
}

/// The settings of a training run.
pub(crate) struct Training<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) threads: usize,
    pub(crate) on_bad_image: OnBadImage,
    pub(crate) out: &'a Path,
    /// Whether to remove an existing run.
    pub(crate) force: bool,
    /// The state to resume from. `None` resumes from the newest one, if there is one, and requires
    /// the same settings.
    pub(crate) resume_from: Option<ResumePoint>,
    pub(crate) keeping: Retention,
    /// The location of the images, which is recorded in the run.
    pub(crate) data_location: String,
    pub(crate) backend: Name,
    /// The number of devices that split each batch.
    pub(crate) devices: usize,
    /// Whether to write a TensorBoard event file.
    pub(crate) tensorboard: bool,
}

/// The result of a run.
pub(crate) struct Outcome {
    pub(crate) steps: u64,
    /// The number of steps that were skipped.
    pub(crate) skipped: u64,
    pub(crate) resumed: u64,
    pub(crate) seconds: f64,
    /// The verdict on the last complete epoch, or `None` if no epoch was completed.
    pub(crate) health: Option<String>,
}

/// Starts or resumes a run, and trains until it is finished or stopped.
pub(crate) fn training(run: Training<'_>, others: Vec<Box<dyn Observer + '_>>) -> Result<Outcome> {
    let started = std::time::Instant::now();
    let backend = run.backend.open()?;
    let checked = run.config.train.clone().check()?;
    run.check_devices()?;
    check_output(run.out, &run.dataset)?;
    run.check_memory(&*backend, &checked)?;
    let loader = loader(run.config, run.dataset.clone(), run.threads, run.on_bad_image)?;
    let folder = RunFolder::open(run.out)?;
    if !folder.is_locked() {
        note!("warning: {}: no file locks; do not train there from two processes at once", run.out.display());
    }
    let mut states = States::new(folder.join(STATES), run.keeping);
    let mut found = run.find(&folder, &states)?;
    let mut workers = if run.devices > 1 { backend.workers(run.devices)? } else { Vec::new() };
    let rest = workers.split_off(workers.len().min(1));
    // Shared by the workers, and freed once the last one has started.
    let state = found.as_mut().map(|found| Arc::new(std::mem::take(&mut found.bytes)));
    let begin = TrainerSetup { run: &run, checked: &checked, path: found.as_ref().map(|found| found.path.clone()) };
    let mut trainer = match workers.pop() {
        None => begin.single_device(&*backend, state.as_deref())?,
        Some(first) => begin.shared(first, state.as_deref())?,
    };
    let rest: Vec<_> = rest.into_iter().map(|worker| (worker, state.clone())).collect();
    drop(state);
    let resumed = trainer.step();
    // All checks come before the first change, so that a refused command changes nothing.
    match run.devices {
        1 => trainer.check(&loader)?,
        devices => trainer.check(&loader.part(0..run.config.train.batch.images / devices))?,
    }
    let metrics = folder.join(METRICS);
    check_regular(&metrics).with_context(|| metrics.display().to_string())?;
    let config = folder.join(CONFIG);
    match &found {
        Some(found) => {
            write_resumed(&config, run.config, run.resume_from.is_some())?;
            states.rewind_to(found)?;
        }
        None => {
            // This also removes the files of a run that was killed before its first save.
            folder.clear()?;
            files::write(&config, run.config.to_toml()?.as_bytes())?;
        }
    }
    let lost = Box::new(|text: &str| note!("warning: {text}"));
    let waiting = Waiting::begin()?;
    let metrics = Metrics::create(&metrics, resumed, lost)?;
    let mut health = LastHealth::default();
    // `FolderGuard` comes first: if the lock is lost, no later observer writes to the folder.
    let mut observers: Vec<Box<dyn Observer + '_>> =
        vec![Box::new(FolderGuard(&folder)), Box::new(metrics), Box::new(&waiting)];
    if run.tensorboard {
        observers.push(Box::new(TensorBoard::create(run.out, resumed)?));
    }
    observers.push(Box::new(&mut health));
    observers.extend(others);
    let mut observers = HealthMonitor(observers);
    let ended = match run.devices {
        1 => trainer.run(&loader, &mut observers, &mut states).map_err(Into::into),
        _ => data_parallel(&begin, &mut *trainer, rest, &loader, &mut observers, &mut states),
    };
    drop(observers);
    report_skipped(&loader.skipped());
    let (steps, skipped) = (trainer.step(), trainer.skipped());
    let ended = ended.and_then(|ended| {
        if ended == Ended::Finished {
            let checkpoint = trainer.checkpoint()?;
            check_use(&checkpoint, &loader)?;
            folder.verify_lock()?;
            files::write(&folder.join(CHECKPOINT), &checkpoint)?;
        }
        Ok(ended)
    });
    if ended.map_err(|error| run.advised(error, &states))? == Ended::Stopped {
        return Err(Stopped { signal: waiting.caught(), step: steps }.into());
    }
    if skipped > 0 {
        note!("{skipped} of {steps} steps were skipped because their loss or gradient was not finite");
    }
    if let Some(warning) = health.warning() {
        note!("{}", one_line(&warning));
    }
    let health = health.verdict().map(Into::into);
    Ok(Outcome { steps, skipped, resumed, seconds: started.elapsed().as_secs_f64(), health })
}

/// Aborts the run before a save if its folder has been moved or replaced.
struct FolderGuard<'a>(&'a RunFolder);

impl Observer for FolderGuard<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<Verdict, SourceError> {
        if let Event::Saving { .. } = event {
            self.0.verify_lock()?;
        }
        Ok(Verdict::Continue)
    }
}

/// Returns the loader of a run's batches.
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
            normalization: train.normalization,
            filter: train.filter,
            ..LoaderConfig::default()
        },
    )?)
}

/// A worker that has not started yet, and the state that it resumes from.
type PendingWorker = (Box<dyn Worker>, Option<Arc<Vec<u8>>>);

/// Trains on several devices. `first` is the trainer of the first device and runs on this thread.
/// Only this trainer reports to the observers and saves states.
fn data_parallel(
    begin: &TrainerSetup<'_>,
    first: &mut dyn AnyTrainer,
    rest: Vec<PendingWorker>,
    loader: &Loader,
    observers: &mut dyn Observer,
    store: &mut States,
) -> Result<Ended> {
    let images = begin.checked.config().batch.images;
    std::thread::scope(|scope| {
        let work = |(worker, state): PendingWorker| -> Result<Ended> {
            let part = loader.part(worker.share(images)?);
            let mut trainer = begin.shared(worker, state.as_deref())?;
            drop(state);
            Ok(trainer.run(&part, &mut Vec::new(), &mut Nowhere)?)
        };
        let others: Vec<_> = rest.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
        let part = loader.part(0..images / begin.run.devices);
        let ended = first.run(&part, observers, store).map_err(anyhow::Error::new);
        // Workers that wait for this one get an error instead of blocking forever.
        first.leave_workers();
        let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        // Prefers the error that caused the failure to `Error::Workers`, which reports the failure
        // of another worker.
        let is_others = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Error::Workers(_)));
        others.fold(ended, |first, other| match (first, other) {
            (Err(first), Err(other)) if is_others(&first) => Err(other),
            (Ok(_), Err(other)) => Err(other),
            (first, _) => first,
        })
    })
}

/// Creates the trainers of a run. The saved state to resume from is passed separately.
struct TrainerSetup<'a> {
    run: &'a Training<'a>,
    checked: &'a CheckedConfig,
    /// The file of the saved state.
    path: Option<PathBuf>,
}

impl TrainerSetup<'_> {
    /// Creates a trainer that processes entire batches on its own.
    fn single_device(&self, backend: &dyn Backend, state: Option<&Vec<u8>>) -> Result<Box<dyn AnyTrainer>> {
        self.with_advice(backend.trainer(self.checked.clone(), self.info()?, state.map(Vec::as_slice)), state)
    }

    /// Creates the trainer of one of several workers.
    fn shared(&self, worker: Box<dyn Worker>, state: Option<&Vec<u8>>) -> Result<Box<dyn AnyTrainer>> {
        self.with_advice(worker.trainer(self.checked.clone(), self.info()?, state.map(Vec::as_slice)), state)
    }

    fn info(&self) -> Result<RunInfo> {
        let Training { config, dataset, backend, devices, data_location, .. } = self.run;
        let augment = flatten(&config.augment).into_iter().map(|(name, value)| (format!("augment.{name}"), value));
        let settings = augment.chain([("backend".into(), backend.text().into())]).collect();
        Ok(RunInfo {
            preset: config.name.clone(),
            data: fingerprint(dataset),
            settings,
            circumstances: vec![("devices".into(), devices.to_string()), ("data".into(), data_location.clone())],
            may_change: self.run.resume_from.is_some(),
        })
    }

    /// Adds the path of the saved state to errors.
    fn with_advice<T>(&self, result: bagssl_train::Result<T>, state: Option<&Vec<u8>>) -> Result<T> {
        let path = self.path.clone().unwrap_or_default();
        result.map_err(|error| match error {
            Error::OtherRun { is_fixed, changed, .. } => Error::OtherRun { path, is_fixed, changed }.into(),
            other if state.is_some() => anyhow::Error::new(other).context(path.display().to_string()),
            other => other.into(),
        })
    }
}

/// Returns an error if the model computes non-finite values on patches that it was trained on. This
/// can happen even if all of its weights are finite, when they are very large.
fn check_use(checkpoint: &[u8], loader: &Loader) -> Result<()> {
    /// The approximate number of patches to check.
    const PATCHES: usize = 256;
    let Some(Ok(batch)) = loader.epoch(0, 0).next() else { return Ok(()) };
    let shape = batch.shape();
    let images = (PATCHES / shape.patches).clamp(1, shape.images);
    let (numbers, labels) = (batch.images()[..images].to_vec(), batch.labels()[..images].to_vec());
    let values = batch.data()[..images * shape.patches * shape.patch_len()].to_vec();
    let batch = PatchBatch::new(BatchShape { images, ..shape }, values, numbers, labels)?;
    let taps = [FeatureLayer::Embedding, FeatureLayer::Projection];
    let network =
        bagssl_backend::ndarray(CpuOptions::default()).trained(&Checkpoint::from_bytes(checkpoint)?, &taps)?;
    let rows = network.embed(&batch, &taps).map_err(anyhow::Error::from_boxed)?;
    for (tap, rows) in taps.into_iter().zip(rows) {
        if let Some(value) = rows.values.iter().find(|value| !value.is_finite()) {
            bail!("the model is unusable: {}: expected finite values, got {value}; a lower --lr may help", tap.name());
        }
    }
    Ok(())
}

impl Training<'_> {
    /// Returns an error if the images of a batch cannot be divided among the devices.
    fn check_devices(&self) -> Result<()> {
        let images = self.config.train.batch.images;
        match self.devices {
            0 => bail!("--devices: expected at least 1, got 0"),
            devices if !images.is_multiple_of(devices) => {
                bail!("--devices: expected a divisor of the {images} images per batch, got {devices}")
            }
            _ => Ok(()),
        }
    }

    /// Returns an error if a step needs more memory than is free. The message suggests settings
    /// that fit.
    fn check_memory(&self, backend: &dyn Backend, config: &CheckedConfig) -> Result<()> {
        let batch = config.config().batch;
        let estimate = MemoryEstimate::new(config, backend.map_value_bytes());
        let images = batch.images / self.devices;
        let needed = estimate.bytes((images as u64).saturating_mul(batch.micro_batch() as u64));
        let Some(free) = backend.free_memory(self.devices) else { return Ok(()) };
        if needed <= free {
            return Ok(());
        }
        let (needed, free_mib) = (needed / memory::MIB, free / memory::MIB);
        let advice = match estimate.max_micro_batch(free, images, batch.patches) {
            Some(together) => format!("--micro-batch {together} fits"),
            None => "reduce --images, --projector or --arch".into(),
        };
        bail!("a step: expected at most {free_mib} MiB (the free memory), got about {needed} MiB; {advice}")
    }

    /// Adds the names of the first affected images and a suggestion to an error.
    fn advised(&self, error: anyhow::Error, states: &States) -> anyhow::Error {
        const SHOWN: usize = 3;
        let names = match error.downcast_ref() {
            Some(Error::NotFinite { images, .. }) => {
                let names = images.iter().take(SHOWN).map(|&image| self.dataset.name(image as usize));
                let names = names.collect::<Vec<_>>().join(", ");
                if names.is_empty() { names } else { format!(" ({names}, ..)") }
            }
            Some(Error::Unusable { .. } | Error::NothingTrained { .. }) => String::new(),
            _ => return error,
        };
        let saved = match states.newest() {
            Ok(Some(found)) => format!("--resume-from last resumes from step {}, which is saved", found.step),
            _ => "no state was saved".into(),
        };
        let advice = match self.config.train.on_not_finite {
            OnNotFinite::Stop => "a lower --lr or --on-not-finite skip may help",
            OnNotFinite::Skip => "a lower --lr may help",
        };
        anyhow::anyhow!("{error}{names}; {advice}; {saved}")
    }

    /// Returns the saved state to resume from, or `None` to start a new run.
    fn find(&self, folder: &RunFolder, states: &States) -> Result<Option<SavedState>> {
        if self.force {
            return Ok(None);
        }
        let found = match self.resume_from {
            Some(ResumePoint::Step(step)) => Some(states.at(step)?),
            Some(ResumePoint::Last) | None => states.newest()?,
        };
        let Some(found) = found else {
            let path = folder.join(STATES);
            // Don't start a new run over other files: a run whose states were removed, a run of an
            // older version with a single state file, or files of the same names that another
            // program wrote. A config equal to this run's own is fine: a run that was killed early
            // leaves one.
            let config = std::fs::read(folder.join(CONFIG)).ok();
            let is_own = config.is_some_and(|config| self.config.to_toml().is_ok_and(|own| config == own.as_bytes()));
            let foreign = [CONFIG, METRICS].into_iter().filter(|_| !is_own);
            let mut names = [CHECKPOINT, OLD_STATE].into_iter().chain(foreign);
            let left = names.find(|name| folder.join(name).symlink_metadata().is_ok());
            let expected = match left {
                Some(left) => {
                    format!(
                        "the states that belong to {left}, or another --out (--force removes the old run and starts \
                         over)"
                    )
                }
                None if self.resume_from.is_some() => "a state to resume from".into(),
                None => return Ok(None),
            };
            return Err(Error::NoState { path, expected, got: "none".into() }.into());
        };
        for (path, why) in &found.damaged {
            note!("warning: {}: {}; resuming from step {}", path.display(), one_line(why), found.step);
        }
        Ok(Some(found))
    }
}
