//! Observers: long-running work reports its progress to them.

use std::prelude::v1::*;

use crate::embed::Rows;

/// A training event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An optimizer step is done.
    Step {
        /// Number of steps done, including this one.
        step: u64,
        /// Total number of steps of the run.
        steps: u64,
        /// The epoch, counted from 0.
        epoch: u32,
        /// Named metrics: the loss and its terms, the learning rate.
        metrics: &'a [(&'static str, f64)],
    },
    /// A step was skipped because its loss or its gradient is not finite.
    Skipped {
        /// Number of steps done, including this one.
        step: u64,
        /// The value that is not finite.
        value: &'a str,
        /// The images of the batch that caused it, as indices into the data set; all images of the
        /// batch if the cause is unknown.
        images: &'a [u32],
    },
    /// An epoch is done.
    Epoch {
        /// The epoch, counted from 0.
        epoch: u32,
        /// Total number of steps done.
        step: u64,
        /// The mean of each metric over the epoch's steps.
        metrics: &'a [(&'static str, f64)],
    },
    /// The projections of an epoch's last batch. Sent before [`Event::Epoch`].
    Projections {
        /// The epoch, counted from 0.
        epoch: u32,
        /// Total number of steps done.
        step: u64,
        /// The projections, ordered by image, then by patch. If several workers share a batch:
        /// those of one worker's images.
        rows: &'a Rows,
        /// Patches per image.
        patches: usize,
    },
    /// The result of the collapse check on some projections of an epoch's last batch.
    Health {
        /// The epoch, counted from 0.
        epoch: u32,
        /// Total number of steps done.
        step: u64,
        /// The verdict: healthy, suspect or collapsed.
        verdict: &'a str,
        /// Named metrics.
        metrics: &'a [(&'static str, f64)],
        /// The reasons why it is not healthy, one sentence each.
        reasons: &'a [String],
    },
    /// A run resumes with a changed setting.
    Changed {
        /// Steps done before the change.
        step: u64,
        /// The setting's name.
        setting: &'a str,
        /// The old value.
        from: &'a str,
        /// The new value.
        to: &'a str,
    },
    /// A checkpoint is about to be saved. Observers must first make their records of all steps up
    /// to it durable.
    Saving {
        /// Steps done.
        step: u64,
    },
    /// A checkpoint has been saved.
    Saved {
        /// Steps done at the time of the checkpoint.
        step: u64,
    },
}

/// Whether to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Continue.
    Continue,
    /// Stop after this step, with all state saved.
    Stop,
}

/// Receives the events of a run.
pub trait Observer {
    /// Handles an event.
    ///
    /// # Errors
    /// Returns the observer's failure, for instance a write to a full disk. The error ends the run.
    fn observe(&mut self, event: &Event<'_>) -> core::result::Result<Verdict, crate::batch::SourceError>;
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn observe(&mut self, event: &Event<'_>) -> core::result::Result<Verdict, crate::batch::SourceError> {
        (**self).observe(event)
    }
}

/// Notifies several observers in turn. The verdict is `Stop` if at least one of them returns
/// `Stop`.
impl Observer for Vec<Box<dyn Observer + '_>> {
    fn observe(&mut self, event: &Event<'_>) -> core::result::Result<Verdict, crate::batch::SourceError> {
        let mut verdict = Verdict::Continue;
        for observer in self {
            if observer.observe(event)? == Verdict::Stop {
                verdict = Verdict::Stop;
            }
        }
        Ok(verdict)
    }
}
