//! The learning rate over the steps of a run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A linear warm-up from 0, then half a cosine down to a floor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Epochs of the run.
    pub epochs: u32,
    /// Epochs, or a part of one, before the rate is reached.
    pub warm_up: f64,
    /// The rate at the end, as a share of the highest.
    pub floor: f64,
}

impl Schedule {
    /// Checks the settings and fixes the number of steps.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no epoch, the warm-up is negative or longer than the run, or the floor is not in
    /// `[0, 1]`.
    pub fn check(self, steps_per_epoch: u64) -> Result<StepSchedule> {
        let refuse = |name, expected: String, got: String| Err(Error::Setting { name, expected, got });
        if self.epochs == 0 {
            return refuse("schedule.epochs", "at least 1".into(), "0".into());
        }
        if !(0.0..=f64::from(self.epochs)).contains(&self.warm_up) {
            return refuse("schedule.warm_up", format!("0 to {} epochs", self.epochs), self.warm_up.to_string());
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return refuse("schedule.floor", "a share in [0, 1]".into(), self.floor.to_string());
        }
        let steps = u64::from(self.epochs) * steps_per_epoch;
        let warm_up = (self.warm_up * steps_per_epoch as f64).round() as u64;
        Ok(StepSchedule { steps, warm_up, floor: self.floor })
    }
}

/// A schedule whose length in steps is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSchedule {
    steps: u64,
    warm_up: u64,
    floor: f64,
}

impl StepSchedule {
    /// Steps of the run.
    pub fn steps(self) -> u64 {
        self.steps
    }

    /// The factor to the highest rate at a step, counted from 0: `step / warm_up` at first, then
    /// `floor + (1 - floor) (1 + cos(pi t)) / 2` with `t` from 0 to 1 over the rest.
    pub fn factor(self, step: u64) -> f64 {
        if step < self.warm_up {
            return step as f64 / self.warm_up as f64;
        }
        let rest = (self.steps - self.warm_up).max(1);
        let share = ((step - self.warm_up) as f64 / rest as f64).min(1.0);
        self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }
}
