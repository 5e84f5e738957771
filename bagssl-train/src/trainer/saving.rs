//! Saves a run's state during the training loop.

use bagssl_core::model::Kernels;
use bagssl_core::observe::{Event, Observer, Verdict};
use burn::tensor::backend::AutodiffBackend;

use super::{Epoch, Queued, Trainer};
use crate::error::{Error, Result};
use crate::loss::LinAlg;
use crate::run_state::{Position, StateStore};

impl<B: AutodiffBackend, K: Kernels<B> + LinAlg<B::InnerBackend>> Trainer<B, K> {
    pub(super) fn position(&self, per_epoch: u64) -> Position {
        Position { step: self.step, epoch: (self.step / per_epoch) as u32, batch: self.step % per_epoch }
    }

    /// Saves the state within an epoch, if the store requests it. (At the end of an epoch, the
    /// epoch is reported to the observer first.)
    pub(super) fn save_within(
        &mut self,
        epoch: &mut Epoch<'_, B, K>,
        store: &mut dyn StateStore,
        per_epoch: u64,
    ) -> Result<Verdict> {
        let position = self.position(per_epoch);
        if position.batch == 0 || !store.is_due(position) {
            return Ok(Verdict::Continue);
        }
        if let Some(queued) = epoch.queued.take() {
            // A requested stop takes effect after the next step, as it would without saving: the
            // other workers also stop then.
            let verdict = self.report_queued(epoch, queued)?;
            epoch.queued = Some(Queued::Reported(verdict));
        }
        self.save(epoch.reporter.observer, store, per_epoch)
    }

    /// Saves the state, unless it is already saved or another worker is responsible.
    pub(super) fn save(
        &mut self,
        observer: &mut dyn Observer,
        store: &mut dyn StateStore,
        per_epoch: u64,
    ) -> Result<Verdict> {
        let is_first = self.exchange.as_ref().is_none_or(|exchange| exchange.rank().rank == 0);
        if self.saved == Some(self.step) || !is_first || !store.saves_states() {
            return Ok(Verdict::Continue);
        }
        let position = self.position(per_epoch);
        let state = self.state(position)?;
        observer.observe(&Event::Saving { step: self.step }).map_err(Error::Observer)?;
        store.save(position, &state)?;
        self.saved = Some(self.step);
        let saved = observer.observe(&Event::Saved { step: self.step }).map_err(Error::Observer)?;
        Ok(self.for_all(saved))
    }

    /// Saves the progress before an error, if possible. Failures are ignored in favor of the
    /// original error.
    pub(super) fn save_before(
        &mut self,
        error: &Error,
        observer: &mut dyn Observer,
        store: &mut dyn StateStore,
        per_epoch: u64,
    ) {
        // After a kernel failure the weights are undefined. On asynchronous kernels the non-finite
        // update has already been applied.
        let is_invalid = match error {
            Error::Kernels(_) => true,
            Error::NotFinite { .. } => K::IS_ASYNC,
            _ => false,
        };
        let position = self.position(per_epoch);
        // Resuming would skip the report of an epoch whose end has not been reported yet.
        let is_unreported = position.batch == 0 && self.ended != self.step;
        if self.step == 0 || is_invalid || is_unreported {
            return;
        }
        if let Err(Error::Observer(_)) = self.save(observer, store, per_epoch) {
            // Missing lines are detected when the run is resumed.
            let _ = self.state(position).and_then(|state| store.save(position, &state));
        }
    }

    /// Returns an error if every step so far was skipped.
    pub(super) fn check_trained(&self) -> Result<()> {
        if self.step > 0 && self.skipped == self.step {
            return Err(Error::NothingTrained { steps: self.step });
        }
        Ok(())
    }
}
