//! The learning rate schedule of a run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A linear warm-up from 0, followed by half a cosine down to a floor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The number of epochs of the run.
    pub epochs: u32,
    /// The length of the warm-up in epochs. May be fractional.
    pub warm_up: f64,
    /// The final learning rate, as a fraction of the peak rate.
    pub floor: f64,
}

impl Schedule {
    /// Checks the settings and converts epochs to steps.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are no epochs, the warm-up is negative or longer than the run,
    /// or the floor is not in `[0, 1]`.
    pub fn check(self, steps_per_epoch: u64) -> Result<StepSchedule> {
        let refuse = |name, expected: String, got: String| Err(Error::Setting { name, expected, got });
        if self.epochs == 0 {
            return refuse("schedule.epochs", "at least 1".into(), "0".into());
        }
        if !(0.0..=f64::from(self.epochs)).contains(&self.warm_up) {
            return refuse("schedule.warm_up", format!("0 to {} epochs", self.epochs), self.warm_up.to_string());
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return refuse("schedule.floor", "a fraction in [0, 1]".into(), self.floor.to_string());
        }
        let steps = u64::from(self.epochs) * steps_per_epoch;
        let warm_up = (self.warm_up * steps_per_epoch as f64).round() as u64;
        Ok(StepSchedule { steps, warm_up, floor: self.floor })
    }
}

/// A schedule in steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSchedule {
    steps: u64,
    warm_up: u64,
    floor: f64,
}

impl StepSchedule {
    /// Returns the number of steps of the run.
    pub fn steps(self) -> u64 {
        self.steps
    }

    /// Returns the factor on the peak learning rate at a step, counted from 0. During the warm-up
    /// it is `step / warm_up`, then `floor + (1 - floor) (1 + cos(pi t)) / 2` with `t` from 0 to 1
    /// over the remaining steps.
    pub fn factor(self, step: u64) -> f64 {
        if step < self.warm_up {
            return step as f64 / self.warm_up as f64;
        }
        let rest = (self.steps - self.warm_up).max(1);
        let share = ((step - self.warm_up) as f64 / rest as f64).min(1.0);
        self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }
}
