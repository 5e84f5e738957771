//! Observers: how long work tells what it is doing, without knowing who listens.

use std::prelude::v1::*;

use crate::embed::Rows;

/// Something that happened in a training run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step of the optimizer is done.
    Step {
        /// Steps done, this one counted.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// The epoch, counted from 0.
        epoch: u32,
        /// Named figures: the loss and its terms, the learning rate.
        figures: &'a [(&'static str, f64)],
    },
    /// A step changed nothing, because its loss or its gradient is not finite.
    Skipped {
        /// Steps done, this one counted.
        step: u64,
        /// What is not finite.
        what: &'a str,
        /// The images of the batch that it comes from, by their index in the data set; all of them, if that is not known.
        images: &'a [u32],
    },
    /// An epoch is done.
    Epoch {
        /// The epoch, counted from 0.
        epoch: u32,
        /// Steps done in all.
        step: u64,
        /// The mean of its steps' figures.
        figures: &'a [(&'static str, f64)],
    },
    /// What the network made of the last batch of an epoch, before the epoch's own event.
    Projections {
        /// The epoch, counted from 0.
        epoch: u32,
        /// Steps done in all.
        step: u64,
        /// The projections, image by image, patch by patch (of one worker's images, if several share a batch).
        rows: &'a Rows,
        /// Patches of each image.
        patches: usize,
    },
    /// What an evaluation says of some projections of an epoch's last batch.
    Health {
        /// The epoch, counted from 0.
        epoch: u32,
        /// Steps done in all.
        step: u64,
        /// In a word: healthy, suspect or collapsed.
        verdict: &'a str,
        /// Named figures.
        figures: &'a [(&'static str, f64)],
        /// Why it is not healthy, a sentence each.
        reasons: &'a [String],
    },
    /// A run goes on with another setting than before.
    Changed {
        /// Steps done before.
        step: u64,
        /// The setting's name.
        setting: &'a str,
        /// What it was.
        from: &'a str,
        /// What it is from now on.
        to: &'a str,
    },
    /// A state is about to be saved: what was written down of the steps up to it has to last.
    Saving {
        /// Steps done.
        step: u64,
    },
    /// A state has been saved.
    Saved {
        /// Steps done when it was taken.
        step: u64,
    },
}

/// Whether the work is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Stop after this step, with all state saved.
    Stop,
}

/// One who listens to a run.
pub trait Observer {
    /// Takes note of an event.
    ///
    /// # Errors
    /// What the observer could not do, for instance write to a full disk; the run ends with it.
    fn observe(&mut self, event: &Event<'_>) -> core::result::Result<Verdict, crate::batch::SourceError>;
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn observe(&mut self, event: &Event<'_>) -> core::result::Result<Verdict, crate::batch::SourceError> {
        (**self).observe(event)
    }
}

/// Several observers, asked in turn; one that says stop is enough.
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
