//! The output of a run: states to resume from, and the final checkpoint.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use bagssl_core::checkpoint::{
    FORMAT_VERSION, NamedTensor, OPTIMIZER_PREFIX, Provenance, SettingChange, Spec, Training, check_values, to_bytes,
};
use bagssl_core::model::{Kernels, Model};
use bagssl_core::plan::Role;
use burn::tensor::backend::AutodiffBackend;
use fnv::FnvHasher;

use super::epoch_reporter::Means;
use super::{RunInfo, Trainer};
use crate::config::{CheckedConfig, OnNotFinite, TrainConfig, flatten};
use crate::error::{Error, Result};
use crate::loss::LinAlg;
use crate::run_state::{Position, parse_state};

impl<B: AutodiffBackend, K: Kernels<B> + LinAlg<B::InnerBackend>> Trainer<B, K> {
    /// Resumes from a state that was passed to the run's
    /// [`StateStore`](crate::run_state::StateStore). Differences in [`RunInfo::circumstances`] are
    /// recorded as changes. If [`RunInfo::may_change`] is set, so are differences in the learning
    /// rate, the number of epochs, and the policy for non-finite steps.
    ///
    /// # Errors
    /// [`Error::Core`] if the bytes are not a valid state, or a value is not finite;
    /// [`Error::OtherRun`] (with an empty path) if the state belongs to a run with other settings.
    pub fn resume(config: CheckedConfig, info: RunInfo, device: B::Device, bytes: &[u8]) -> Result<Self> {
        let checkpoint = parse_state(bytes)?;
        let mut trainer = Trainer::new(config, info, device)?;
        let training = checkpoint.spec().training.clone().expect("a state says where its run stands");
        let other = |is_fixed, changed| Error::OtherRun { path: Default::default(), is_fixed, changed };
        let fixed = trainer.fixed();
        if training.config != hash(&fixed) {
            return Err(other(true, differences(&training.fixed, &fixed, training.step)));
        }
        let changed = trainer.changed(&training);
        let of_config: Vec<SettingChange> =
            changed.iter().filter(|change| !trainer.is_circumstance(&change.setting)).cloned().collect();
        if !trainer.info.may_change && !of_config.is_empty() {
            return Err(other(false, of_config));
        }
        trainer.model = Model::load(&checkpoint, &trainer.device)?;
        let names = checkpoint.names().into_iter().filter(|name| name.starts_with(OPTIMIZER_PREFIX));
        let tensors = names
            .map(|name| Ok((name.to_string(), checkpoint.values(name)?)))
            .collect::<bagssl_core::Result<Vec<_>>>()?;
        let parameters = trainer.config.plan().parameters();
        // Skipped steps do not count as optimizer steps.
        let updates = training.step.saturating_sub(training.skipped);
        trainer.optimizer.restore(updates, &parameters, tensors, &trainer.device)?;
        trainer.means = Means::restored(&training.sums, training.summed);
        (trainer.step, trainer.skipped, trainer.saved) = (training.step, training.skipped, Some(training.step));
        (trainer.unreported, trainer.changes) = (changed.clone(), [training.changes, changed].concat());
        Ok(trainer)
    }

    /// Serializes the model as a checkpoint after the end of the schedule. It has what inference
    /// needs, without the training state.
    ///
    /// # Errors
    /// [`Error::Unusable`] if a value is not finite, [`Error::Kernels`] if a queued kernel has
    /// failed, [`Error::Core`] if the checkpoint cannot be serialized.
    pub fn checkpoint(&self) -> Result<Vec<u8>> {
        let tensors = self.model.tensors();
        K::check().map_err(Error::Kernels)?;
        self.check_values(&tensors)?;
        Ok(to_bytes(&self.spec(self.config.config().schedule.epochs, None), &tensors)?)
    }

    /// Serializes the checkpoint together with the training state that resuming needs.
    pub(super) fn state(&self, position: Position) -> Result<Vec<u8>> {
        let fixed = self.fixed();
        let training = Training {
            epoch: position.epoch,
            batch: position.batch,
            step: position.step,
            skipped: self.skipped,
            summed: self.means.count(),
            sums: self.means.bits(),
            config: hash(&fixed),
            fixed,
            settings: self.settings(),
            changes: self.changes.clone(),
        };
        let tensors = [self.model.tensors(), self.optimizer.tensors()].concat();
        K::check().map_err(Error::Kernels)?;
        self.check_values(&tensors)?;
        Ok(to_bytes(&self.spec(position.epoch, Some(training)), &tensors)?)
    }

    /// Checks that all values can be computed with.
    fn check_values(&self, tensors: &[NamedTensor]) -> Result<()> {
        let roles: BTreeMap<String, Role> =
            self.config.plan().parameters().into_iter().map(|parameter| (parameter.name, parameter.role)).collect();
        tensors.iter().try_for_each(|(name, _, values)| {
            let role = roles.get(name).copied().unwrap_or(Role::Weight);
            check_values(name, role, values).map_err(|error| Error::Unusable { step: self.step, error })
        })
    }

    /// Returns the settings that must not change during a run, including the fingerprint of the
    /// training images.
    fn fixed(&self) -> Vec<(String, String)> {
        let config = self.config.config();
        // Settings that may change are set to constants.
        let config = TrainConfig {
            optimizer: config.optimizer.with_learning_rate(0.0),
            schedule: crate::schedule::Schedule { epochs: 0, ..config.schedule },
            on_not_finite: OnNotFinite::Stop,
            ..config.clone()
        };
        let images = [("images".to_string(), self.info.data.clone())];
        images.into_iter().chain(flatten(&config)).chain(self.info.settings.iter().cloned()).collect()
    }

    /// Returns the settings that may change, by name.
    fn settings(&self) -> Vec<(String, String)> {
        let config = self.config.config();
        let policy = if config.on_not_finite == OnNotFinite::Skip { "skip" } else { "stop" };
        let of_config = [
            ("optimizer.learning_rate", config.optimizer.learning_rate().to_string()),
            ("schedule.epochs", config.schedule.epochs.to_string()),
            ("on_not_finite", policy.to_string()),
        ];
        let of_config = of_config.into_iter().map(|(name, value)| (name.to_string(), value));
        of_config.chain(self.info.circumstances.iter().cloned()).collect()
    }

    fn is_circumstance(&self, setting: &str) -> bool {
        self.info.circumstances.iter().any(|(name, _)| name == setting)
    }

    /// Returns the settings that differ from those of a state.
    fn changed(&self, training: &Training) -> Vec<SettingChange> {
        let now = self.settings();
        let change = |(setting, from): &(String, String)| {
            let (_, to) = now.iter().find(|(name, to)| name == setting && to != from)?;
            Some(SettingChange { step: training.step, setting: setting.clone(), from: from.clone(), to: to.clone() })
        };
        training.settings.iter().filter_map(change).collect()
    }

    fn spec(&self, epochs_done: u32, training: Option<Training>) -> Spec {
        let config = self.config.config();
        // Paths and similar circumstances are of no use to users of the weights.
        let changes = self.changes.iter().filter(|change| !self.is_circumstance(&change.setting));
        Spec {
            format_version: FORMAT_VERSION,
            model: self.config.plan().clone(),
            patch: config.patch,
            filter: config.filter,
            normalization: config.normalization,
            layer: config.model.layer,
            views: config.views,
            provenance: Provenance {
                created_by: format!("bagssl {}", env!("CARGO_PKG_VERSION")),
                preset: self.info.preset.clone(),
                data: self.info.data.clone(),
                seed: config.seed,
                epochs: epochs_done,
                steps: self.step,
                changes: changes.cloned().collect(),
            },
            training,
        }
    }
}

/// Returns the settings that differ, or are present on one side only.
fn differences(before: &[(String, String)], now: &[(String, String)], step: u64) -> Vec<SettingChange> {
    let value = |settings: &[(String, String)], name: &str| {
        settings.iter().find(|(other, _)| other == name).map_or("none".into(), |(_, value)| value.clone())
    };
    // States of earlier versions do not list their settings.
    let of_before = if before.is_empty() { &[] } else { now };
    let names = before.iter().chain(of_before.iter().filter(|(name, _)| before.iter().all(|(other, _)| name != other)));
    let change = |(setting, _): &(String, String)| {
        let [from, to] = [before, now].map(|settings| value(settings, setting));
        (from != to).then(|| SettingChange { step, setting: setting.clone(), from, to })
    };
    names.filter_map(change).collect()
}

/// Hashes settings with a hash that is stable across compilers (FNV-1a, Fowler, Noll, Vo).
fn hash(settings: &[(String, String)]) -> u64 {
    let mut hash = FnvHasher::default();
    settings.iter().flat_map(|(name, value)| [name, value]).for_each(|text| {
        hash.write(text.as_bytes());
        hash.write(&[0xff]);
    });
    hash.finish()
}
