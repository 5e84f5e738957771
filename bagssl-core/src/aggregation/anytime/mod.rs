//! Any-time bags: patches of an image are processed in random order until the estimate is good
//! enough.
//!
//! The estimate is the mean over all patches of a grid. [`Grid::order`](crate::bag::Grid::order)
//! gives the order, so the patches seen so far are a sample without replacement. The estimate is
//! exact once all patches have been seen.
//!
//! ```
//! use bagssl_core::anytime::{AnyTime, Next, Reason, StopRule};
//! use bagssl_core::bag::Grid;
//! use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
//! use bagssl_core::random::Address;
//!
//! let spec = PatchSpec::new(PatchSide::Pixels(2), 2)?;
//! let grid = Grid::new(spec, ImageSize { height: 20, width: 40 }, 2)?;
//! let mut image = AnyTime::new(1, grid.patches() as u64, StopRule { tolerance: 0.02, ..StopRule::default() })?;
//! for patch in grid.order(Address::default()) {
//!     let crop = grid.crop(patch);
//!     let embedding = [100.0 + crop.left as f32];
//!     let no_clock = || false;
//!     if image.push(&embedding, no_clock)? == Next::Stop(Reason::Tolerance) {
//!         break;
//!     }
//! }
//! assert!(image.mean().count() < 60 && image.uncertainty() < Some(0.02));
//! let mean = image.mean().mean().unwrap()[0];
//! assert!((mean - 119.0).abs() < 7.0, "{mean}");
//! # Ok::<(), bagssl_core::Error>(())
//! ```

use std::prelude::v1::*;

use crate::aggregate::RunningMean;
use crate::error::{Error, Result};
use crate::quantile::{check_confidence, student_t};

/// Whether to process the next patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Process it.
    Continue,
    /// Stop.
    Stop(Reason),
}

/// The reason to stop processing an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// All patches have been seen.
    Complete,
    /// The uncertainty is below the tolerance.
    Tolerance,
    /// [`StopRule::max_patches`] is reached.
    Most,
    /// The caller's deadline has passed.
    Deadline,
    /// The leading class is not expected to change.
    Decided,
}

/// The stopping rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    /// Stop when [`RunningMean::uncertainty`] is below this value. Must be at least 0; 0 never
    /// stops.
    pub tolerance: f64,
    /// Minimum number of patches before the uncertainty is trusted; at least 2. With `n` patches,
    /// the relative error of the uncertainty itself is about `1 / sqrt(2 (n - 1))` if all variation
    /// is in one direction, and smaller otherwise: 18 % for 16 patches.
    pub min_patches: u64,
    /// Maximum number of patches; at least `min_patches`.
    pub max_patches: u64,
}

impl Default for StopRule {
    /// A tolerance of 5 % from 16 patches on, without a maximum.
    fn default() -> Self {
        StopRule { tolerance: 0.05, min_patches: 16, max_patches: u64::MAX }
    }
}

impl StopRule {
    fn check(self) -> Result<Self> {
        let refuse = |name, expected, got| Err(Error::Setting { name, expected, got });
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return refuse("tolerance", "a finite number of at least 0", format!("{}", self.tolerance));
        }
        check_min_patches(self.min_patches)?;
        if self.max_patches < self.min_patches {
            return refuse(
                "max_patches",
                "at least min_patches",
                format!("{} with min_patches {}", self.max_patches, self.min_patches),
            );
        }
        Ok(self)
    }
}

fn check_min_patches(min_patches: u64) -> Result<()> {
    let refused = Error::Setting { name: "min_patches", expected: "at least 2", got: format!("{min_patches}") };
    if min_patches >= 2 { Ok(()) } else { Err(refused) }
}

/// The running representation of an image, with a stopping rule.
///
/// The tolerance is checked after each patch. Like any rule that checks often, it tends to stop
/// when the spread is underestimated, for instance in a sky before any of its few birds has been
/// seen. The final uncertainty is therefore slightly too small. A larger [`StopRule::min_patches`]
/// reduces this bias.
#[derive(Debug, Clone, PartialEq)]
pub struct AnyTime {
    mean: RunningMean,
    patches: u64,
    rule: StopRule,
}

impl AnyTime {
    /// Creates an empty representation for embeddings of length `dim` and a grid of `patches`.
    ///
    /// # Errors
    /// [`Error::Setting`] if the tolerance is negative or not finite, `min_patches` is below 2, or
    /// `max_patches` is below `min_patches`.
    pub fn new(dim: usize, patches: u64, rule: StopRule) -> Result<Self> {
        Ok(AnyTime { mean: RunningMean::new(dim), patches, rule: rule.check()? })
    }

    /// Adds the embedding of one more patch, drawn without replacement. `expired` returns whether
    /// the caller's deadline has passed. It is called only if no other reason stops the search, and
    /// from the first patch on, regardless of [`StopRule::min_patches`].
    ///
    /// # Errors
    /// [`Error::Length`] if the embedding has a different length, or if all patches of the grid
    /// have already been added.
    pub fn push(&mut self, embedding: &[f32], expired: impl FnOnce() -> bool) -> Result<Next> {
        check_left(self.patches, self.mean.count())?;
        self.mean.push(embedding)?;
        let count = self.mean.count();
        let certain = || self.uncertainty().is_some_and(|uncertainty| uncertainty < self.rule.tolerance);
        Ok(if count == self.patches {
            Next::Stop(Reason::Complete)
        } else if count >= self.rule.min_patches && certain() {
            Next::Stop(Reason::Tolerance)
        } else if count >= self.rule.max_patches {
            Next::Stop(Reason::Most)
        } else if expired() {
            Next::Stop(Reason::Deadline)
        } else {
            Next::Continue
        })
    }

    /// Returns the mean so far, which includes the number of patches.
    pub fn mean(&self) -> &RunningMean {
        &self.mean
    }

    /// Returns [`RunningMean::uncertainty`] within the grid.
    pub fn uncertainty(&self) -> Option<f64> {
        self.mean.uncertainty(self.patches)
    }
}

fn check_left(patches: u64, count: u64) -> Result<()> {
    if count < patches {
        return Ok(());
    }
    Err(Error::Length { name: "grid patches", expected: patches as usize, got: count as usize + 1 })
}

/// The schedule of decision checks: after `min_patches` patches, then each time their number has doubled,
/// while patches are left.
///
/// A rule that checks `k` times and errs with probability `a` each time errs with probability up to
/// `k a` in total. Each check therefore gets an equal share of the allowed error (Bonferroni).
/// Doubling needs few checks: 7 for 8 to 576 patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionSchedule {
    min_patches: u64,
    patches: u64,
}

impl DecisionSchedule {
    /// Creates the schedule for a grid of `patches`, with the first check after `min_patches` patches.
    ///
    /// # Errors
    /// [`Error::Setting`] if `min_patches` is below 2.
    pub fn new(min_patches: u64, patches: u64) -> Result<Self> {
        check_min_patches(min_patches)?;
        Ok(DecisionSchedule { min_patches, patches })
    }

    /// Returns the number of checks.
    pub fn count(self) -> u32 {
        let counts = core::iter::successors(Some(self.min_patches), |count| count.checked_mul(2));
        counts.take_while(|&count| count < self.patches).count() as u32
    }

    /// Returns whether a check is due after `count` patches.
    pub fn is_due(self, count: u64) -> bool {
        count < self.patches && count.is_multiple_of(self.min_patches) && (count / self.min_patches).is_power_of_two()
    }

    /// Returns the confidence that each check needs for a total of `confidence` over all checks.
    pub fn confidence(self, confidence: f64) -> f64 {
        1.0 - (1.0 - confidence) / f64::from(self.count().max(1))
    }
}

/// The decision of a linear classifier on an image, with a test of whether more patches could
/// change it.
///
/// For logits that are linear in the embedding, as those of a linear probe, the logits of the mean
/// are the mean of the patches' logits. The same holds for the margin of one class over another,
/// and the standard error of that mean is known. The search stops as decided when the lower bounds
/// of the leader's margins over all other classes are positive.
///
/// # What the confidence means
/// The probability of stopping for a class that does not win over all patches of the grid is at
/// most `1 - confidence`, in total over all checks and classes. The allowed error is split evenly
/// over the checks of the [`DecisionSchedule`] and the other classes (Bonferroni). Choosing the
/// leader from the same patches needs no further correction, since a wrong stop requires that the
/// bound of one margin over the true winner is wrong.
///
/// Each bound uses Student's t and the finite-population factor `1 - n / N`. The level is exact if
/// the mean margins are normal, and approximate otherwise.
///
/// # Example
/// ```
/// use bagssl_core::anytime::{Decision, Next, Reason};
/// let mut decision = Decision::new(2, 100, 4, 0.95)?;
/// for logits in [[2.0, 0.1], [1.8, -0.2], [2.2, 0.3]] {
///     assert_eq!(decision.push(&logits)?, Next::Continue);
/// }
/// assert_eq!(decision.push(&[2.1, 0.0])?, Next::Stop(Reason::Decided));
/// assert_eq!(decision.leader(), Some(0));
/// # Ok::<(), bagssl_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    classes: usize,
    patches: u64,
    schedule: DecisionSchedule,
    confidence: f64,
    /// The logits of all patches so far, `[patch, class]`. Margins need the leader, which is known
    /// only at a check.
    logits: Vec<f64>,
}

impl Decision {
    /// Creates a decision between `classes` over a grid of `patches`, with the first check after
    /// `min_patches` patches.
    ///
    /// # Errors
    /// [`Error::Setting`] if `classes` is 0, `min_patches` is below 2, or the confidence is not between
    /// 0.5 and 0.9999.
    pub fn new(classes: usize, patches: u64, min_patches: u64, confidence: f64) -> Result<Self> {
        if classes == 0 {
            return Err(Error::Setting { name: "classes", expected: "at least 1", got: "0".into() });
        }
        check_confidence(confidence)?;
        Ok(Decision {
            classes,
            patches,
            schedule: DecisionSchedule::new(min_patches, patches)?,
            confidence,
            logits: vec![],
        })
    }

    /// Adds the logits of one more patch, `[class]`, drawn without replacement.
    ///
    /// # Errors
    /// [`Error::Length`] if the number of logits is not the number of classes, or if all patches of
    /// the grid have already been added.
    pub fn push(&mut self, logits: &[f64]) -> Result<Next> {
        if logits.len() != self.classes {
            return Err(Error::Length { name: "patch logits", expected: self.classes, got: logits.len() });
        }
        check_left(self.patches, self.count())?;
        self.logits.extend_from_slice(logits);
        Ok(if self.count() == self.patches {
            Next::Stop(Reason::Complete)
        } else if self.schedule.is_due(self.count()) && self.is_decided() {
            Next::Stop(Reason::Decided)
        } else {
            Next::Continue
        })
    }

    /// Returns the number of patches so far.
    pub fn count(&self) -> u64 {
        (self.logits.len() / self.classes) as u64
    }

    /// Returns the class with the greatest mean logit (the first one if tied), or `None` before the
    /// first patch.
    pub fn leader(&self) -> Option<usize> {
        let mut sums = vec![0.0; self.classes];
        for row in self.logits.chunks_exact(self.classes) {
            sums.iter_mut().zip(row).for_each(|(sum, logit)| *sum += logit);
        }
        let greatest = (1..self.classes).fold(0, |best, class| if sums[class] > sums[best] { class } else { best });
        (!self.logits.is_empty()).then_some(greatest)
    }

    /// Whether the leader's margins over all other classes are positive with the required
    /// confidence.
    fn is_decided(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let error = (1.0 - self.schedule.confidence(self.confidence)) / (self.classes - 1).max(1) as f64;
        let t = student_t(1.0 - error, u32::try_from(self.count() - 1).unwrap_or(u32::MAX));
        (0..self.classes).filter(|&class| class != leader).all(|class| self.lower_bound(leader, class, t) > 0.0)
    }

    /// The mean margin of a class over another, minus `t` standard errors.
    fn lower_bound(&self, class: usize, other: usize, t: f64) -> f64 {
        let count = self.count() as f64;
        let margins = || self.logits.chunks_exact(self.classes).map(|row| row[class] - row[other]);
        let mean = margins().sum::<f64>() / count;
        let squares: f64 = margins().map(|margin| (margin - mean) * (margin - mean)).sum();
        mean - t * libm::sqrt(squares / (count * (count - 1.0)) * (1.0 - count / self.patches as f64))
    }
}

#[cfg(test)]
mod tests;
