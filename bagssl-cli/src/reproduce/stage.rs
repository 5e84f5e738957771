//! Stages: the steps of a reproduction, each done once.
//!
//! A finished stage leaves a stamp with a hash of everything it depends on. If the hash still
//! matches, the stage is skipped; otherwise it is repeated.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use bagssl::{
    Baselines, EvalOptions, Evaluation, Event, Model, Splits, evaluate, evaluate_baselines, evaluated_layers,
};
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::{Checkpoint, FORMAT_VERSION, Provenance, Spec};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::observe::Observer;
use bagssl_eval::report::Method;
use bagssl_eval::{Protocol, fnv1a};
use bagssl_train::config::flatten;
use bagssl_train::run_state::{CHECKPOINT, CONFIG, METRICS, OLD_STATE, Retention, STATES};

use super::output_folder;
use super::stamp::{self, Settings, StageStamp, TrainingStamp};
use crate::backend::Name;
use crate::commands::train::{self, Training};
use crate::config::RunConfig;
use crate::embedding::by_flag;
use crate::input::features::FeatureArgs;
use crate::input::files;
use crate::input::source::fingerprint;

/// A method with a seed, or the baselines.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) model: Method,
    pub(crate) seed: u64,
    pub(crate) folder: PathBuf,
    /// The settings. For random weights, the settings of the network.
    pub(crate) config: RunConfig,
}

/// Data and settings that all stages share.
pub(crate) struct Shared<'a> {
    pub(crate) splits: &'a Splits,
    /// The patches that represent an image.
    pub(crate) bag: Bag,
    /// The options of the evaluation, without a listener.
    pub(crate) options: EvalOptions<'a>,
    pub(crate) backend: Name,
    pub(crate) features: &'a FeatureArgs,
}

const EVALUATION_FILE: &str = "measured.json";

impl Stage {
    pub(crate) fn label(&self) -> String {
        match self.model {
            Method::Pixels | Method::Histogram => "pixels and histogram".into(),
            model => format!("{} seed {}", model.name(), self.seed),
        }
    }

    /// Returns the layers to measure, which include the layer that the recipe names.
    pub(crate) fn layers(&self) -> Vec<FeatureLayer> {
        evaluated_layers(self.config.train.model.layer, &Protocol::default())
    }

    pub(crate) fn is_trained(&self) -> bool {
        Method::TRAINED.contains(&self.model)
    }

    /// Checks that no files from another source would be overwritten, such as a run of `bagssl
    /// train` with other settings.
    pub(crate) fn check_output(&self) -> Result<()> {
        let names = [EVALUATION_FILE, CONFIG, METRICS, CHECKPOINT, STATES, OLD_STATE];
        let names = if self.is_trained() { &names[..] } else { &names[..1] };
        let config = self.config.to_toml()?;
        let is_own = std::fs::read(self.folder.join(CONFIG)).is_ok_and(|bytes| bytes == config.as_bytes());
        output_folder::check(&self.folder, names, is_own)
    }

    /// Returns everything that the weights depend on.
    fn training_settings(&self, shared: &Shared<'_>) -> Settings {
        let Shared { splits, backend, .. } = shared;
        let of_run = [
            ("program", env!("CARGO_PKG_VERSION").to_string()),
            ("model", format!("{:?}", self.model)),
            ("training images", fingerprint(&splits.train)),
            ("backend", backend.text().into()),
        ];
        of_run.map(|(name, value)| (name.into(), value)).into_iter().chain(flatten(&self.config)).collect()
    }

    /// Returns everything that the stage's results depend on, except the weights.
    fn settings(&self, shared: &Shared<'_>) -> Settings {
        let Shared { splits, bag, options, .. } = shared;
        let of_measure = [
            ("test images", fingerprint(&splits.test)),
            ("bag", format!("{bag:?}")),
            ("protocol", options.protocol.hash()),
            ("protocol seed", options.seed.to_string()),
        ];
        let of_measure = of_measure.map(|(name, value)| (name.into(), value));
        self.training_settings(shared).into_iter().chain(of_measure).collect()
    }

    /// Returns the hash that a stamp stores. For trained stages it includes a hash of the weights, to
    /// detect replaced weights.
    fn stamped(&self, hash: String) -> Result<String> {
        if !self.is_trained() {
            return Ok(hash);
        }
        Ok(format!("{hash} {}", fnv1a(&files::read(&self.folder.join(CHECKPOINT))?)))
    }

    /// Returns the duration of the training in seconds, or `None` if it is unfinished or outdated.
    /// Evaluation settings do not matter.
    pub(crate) fn trained(&self, shared: &Shared<'_>) -> Result<Option<f64>> {
        let Some(training) = StageStamp::read(&self.folder).and_then(|stamp| stamp.training) else { return Ok(None) };
        let is_same =
            self.has_training() && training.hash == self.stamped(stamp::hash(&self.training_settings(shared)))?;
        Ok(is_same.then_some(training.seconds))
    }

    /// Returns whether the stage still needs training.
    pub(crate) fn needs_training(&self, shared: &Shared<'_>) -> Result<bool> {
        Ok(self.is_trained() && self.trained(shared)?.is_none())
    }

    /// Returns the duration in seconds, or `None` if the stage is unfinished or outdated.
    pub(crate) fn done(&self, shared: &Shared<'_>) -> Result<Option<f64>> {
        let Some(stamp) = StageStamp::read(&self.folder) else { return Ok(None) };
        let is_same = self.is_complete() && stamp.hash == self.stamped(stamp::hash(&self.settings(shared)))?;
        Ok(is_same.then_some(stamp.seconds))
    }

    /// Returns whether all results of the stage exist and are readable.
    fn is_complete(&self) -> bool {
        let measured = match self.model {
            Method::Pixels | Method::Histogram => self.measured_baselines().is_ok(),
            _ => self.measured().is_ok(),
        };
        measured && (!self.is_trained() || self.has_training())
    }

    /// Returns whether all files of the training exist and are readable.
    fn has_training(&self) -> bool {
        let read = |name: &str| std::fs::read(self.folder.join(name)).ok();
        read(CHECKPOINT).is_some_and(|bytes| Checkpoint::from_bytes(&bytes).is_ok())
            && read(METRICS).is_some_and(|bytes| bytes.ends_with(b"\n"))
    }

    /// Returns why a finished stage must be repeated: its settings or images changed, or its files
    /// are damaged.
    pub(crate) fn outdated(&self, shared: &Shared<'_>) -> Result<Option<String>> {
        Ok(match self.done(shared)? {
            Some(_) => None,
            None => StageStamp::describe_changes(&self.folder, &self.settings(shared)),
        })
    }

    /// Runs the stage. `observer` receives the training's events, `on_event` those of the evaluation.
    pub(crate) fn run(
        &self,
        shared: &Shared<'_>,
        observer: Box<dyn Observer + Send>,
        on_event: &(dyn Fn(Event<'_>) + Sync),
    ) -> Result<()> {
        output_folder::begin(&self.folder)?;
        let (outdated, trained) = (self.outdated(shared)?.is_some(), self.trained(shared)?);
        if outdated {
            StageStamp::remove(&self.folder)?;
        }
        let started = Instant::now();
        let training = match trained {
            _ if !self.is_trained() => None,
            Some(seconds) => Some(seconds),
            None => {
                self.train(shared, observer, outdated)?;
                Some(started.elapsed().as_secs_f64())
            }
        };
        let started = Instant::now();
        let measured = match self.model {
            Method::Pixels | Method::Histogram => {
                let Baselines { pixels, histogram } =
                    evaluate_baselines(shared.splits, &shared.options).map_err(by_flag)?;
                let whole = |accuracies| Evaluation { accuracies, ..Evaluation::default() };
                serde_json::to_vec(&[pixels, histogram].map(whole))?
            }
            _ => serde_json::to_vec(&self.evaluate(shared, on_event)?)?,
        };
        files::write(&self.folder.join(EVALUATION_FILE), &measured)?;
        let seconds = started.elapsed().as_secs_f64() + training.unwrap_or(0.0);
        let training = match training {
            Some(seconds) => {
                Some(TrainingStamp { hash: self.stamped(stamp::hash(&self.training_settings(shared)))?, seconds })
            }
            None => None,
        };
        let settings = self.settings(shared);
        StageStamp { hash: self.stamped(stamp::hash(&settings))?, settings, seconds, training }.write(&self.folder)
    }

    fn train(&self, shared: &Shared<'_>, mut observer: Box<dyn Observer + Send>, force: bool) -> Result<()> {
        let again = |force| Training {
            config: &self.config,
            dataset: shared.splits.train.clone(),
            threads: shared.options.threads,
            on_bad_image: shared.options.on_bad_image,
            out: &self.folder,
            force,
            resume_from: None,
            keeping: Retention::default(),
            data_location: String::new(),
            backend: shared.backend,
            devices: 1,
            tensorboard: false,
        };
        match train::training(again(force), vec![Box::new(&mut *observer)]) {
            // A stopped run with other settings, which has no stamp yet.
            Err(error) if is_other_run(&error) => train::training(again(true), vec![observer]).map(|_| ()),
            result => result.map(|_| ()),
        }
    }

    /// Evaluates the trained network, or one with random weights.
    fn evaluate(&self, shared: &Shared<'_>, on_event: &(dyn Fn(Event<'_>) + Sync)) -> Result<Evaluation> {
        let Shared { splits, options, backend: name, .. } = *shared;
        let (backend, layers, train) = (name.open()?, self.layers(), &self.config.train);
        let options = EvalOptions { on_event: Some(on_event), ..options };
        if self.is_trained() {
            let bytes = files::read(&self.folder.join(CHECKPOINT))?;
            let checkpoint = Checkpoint::from_bytes(&bytes)?;
            let network = backend.trained(&checkpoint, &layers)?;
            let model = Model::new(self.label(), &checkpoint, &bytes, &*network, name.text());
            return evaluate(&model, splits, &layers, &options).map_err(by_flag);
        }
        let plan = train.clone().check()?.plan().clone();
        let network = backend.random(&plan, self.seed, train.patch.input(), &layers)?;
        let hash = fnv1a(format!("{plan:?}").as_bytes());
        let spec = Spec {
            format_version: FORMAT_VERSION,
            model: plan,
            patch: train.patch,
            filter: train.filter,
            normalization: train.normalization,
            layer: train.model.layer,
            views: train.views,
            provenance: Provenance::default(),
            training: None,
        };
        let model = Model {
            name: self.label(),
            network: &*network,
            spec: &spec,
            has_projector: true,
            checkpoint_hash: String::new(),
            cache_name: format!("random weights of plan {hash}, seed {}, backend {}", self.seed, name.text()),
        };
        evaluate(&model, splits, &layers, &options).map_err(by_flag)
    }

    /// Reads the measurements of a network.
    pub(crate) fn measured(&self) -> Result<Evaluation> {
        read_json(&self.folder.join(EVALUATION_FILE))
    }

    /// Reads the measurements of the pixel and histogram baselines.
    pub(crate) fn measured_baselines(&self) -> Result<[Evaluation; 2]> {
        read_json(&self.folder.join(EVALUATION_FILE))
    }
}

/// Returns whether the folder has another run, or one that cannot be resumed.
fn is_other_run(error: &anyhow::Error) -> bool {
    use bagssl_train::Error::{NoState, OtherRun};
    matches!(error.downcast_ref(), Some(OtherRun { .. } | NoState { .. }))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&files::read(path)?).with_context(|| path.display().to_string())
}
