//! The checks of a run before its first step.

use bagssl_core::batch::{BatchShape, PatchSource};
use bagssl_core::model::Kernels;
use burn::tensor::backend::AutodiffBackend;

use super::Trainer;
use crate::error::{Error, Result};
use crate::loss::LinAlg;
use crate::schedule::StepSchedule;

impl<B: AutodiffBackend, K: Kernels<B> + LinAlg<B::InnerBackend>> Trainer<B, K> {
    /// Checks that the run can start or resume with the batches of `source`. [`Trainer::run`] does
    /// the same before its first step. A caller that changes files of the run before that checks
    /// first.
    ///
    /// # Errors
    /// - [`Error::Batch`] or [`Error::Batches`] if the shape or number of batches does not fit the
    ///   config
    /// - [`Error::Setting`] if more epochs have begun than the config allows, or the schedule does
    ///   not fit the number of steps
    pub fn check(&self, source: &dyn PatchSource) -> Result<()> {
        self.checked(source).map(drop)
    }

    /// Returns the schedule, and the number of batches per epoch.
    pub(super) fn checked(&self, source: &dyn PatchSource) -> Result<(StepSchedule, u64)> {
        let per_epoch = source.batches_per_epoch() as u64;
        if per_epoch == 0 {
            return Err(Error::Batches { expected: 1, got: 0 });
        }
        let (shape, patches) = (source.shape(), self.config.config().batch.patches);
        if shape.patches != patches {
            return Err(Error::Batch { expected: BatchShape { patches, ..shape }, got: shape });
        }
        if let Some(exchange) = &self.exchange {
            let share = exchange.rank().share(self.config.config().batch.images)?;
            if shape.images != share.len() {
                return Err(Error::Batch { expected: BatchShape { images: share.len(), ..shape }, got: shape });
            }
        }
        let schedule = self.config.config().schedule.check(per_epoch)?;
        if self.step > schedule.steps() {
            let expected = format!("at least {} (the epochs already started)", self.step.div_ceil(per_epoch));
            let got = self.config.config().schedule.epochs.to_string();
            return Err(Error::Setting { name: "schedule.epochs", expected, got });
        }
        Ok((schedule, per_epoch))
    }
}
