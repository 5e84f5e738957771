//! Any-time bags: an image is looked at patch by patch, in random order, until enough is known of it.
//!
//! What is estimated is the mean over all patches of a grid ([`Grid::order`](crate::bag::Grid::order) gives the order), so
//! the patches are a sample without replacement, and nothing is left to estimate once all have come.
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

/// Whether the next patch is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Look at it.
    Continue,
    /// Stop.
    Stop(Reason),
}

/// Why an image is looked at no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// All patches have come.
    Complete,
    /// The uncertainty is below the tolerance.
    Tolerance,
    /// As many patches have come as are allowed.
    Most,
    /// The caller's time is up.
    Deadline,
    /// No other class can be expected to win.
    Decided,
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    /// Stop when [`RunningMean::uncertainty`] is below this; at least 0, which never stops.
    pub tolerance: f64,
    /// Patches before which the uncertainty is not trusted: at least 2, of which one has a spread. With `n` patches the
    /// uncertainty is itself uncertain by about `1 / sqrt(2 (n - 1))` of its size if all spread is in one direction, and
    /// less otherwise: 18 % for 16.
    pub min_patches: u64,
    /// Most patches: at least `least`.
    pub max_patches: u64,
}

impl Default for StopRule {
    /// 5 %, from 16 patches on, as many as there are.
    fn default() -> Self {
        StopRule { tolerance: 0.05, min_patches: 16, max_patches: u64::MAX }
    }
}

impl StopRule {
    fn check(self) -> Result<Self> {
        let refuse = |name, expected, got| Err(Error::Setting { name, expected, got });
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return refuse("tolerance", "a number of at least 0", format!("{}", self.tolerance));
        }
        check_least(self.min_patches)?;
        if self.max_patches < self.min_patches {
            return refuse(
                "most patches",
                "at least the least",
                format!("{} of at least {}", self.max_patches, self.min_patches),
            );
        }
        Ok(self)
    }
}

fn check_least(least: u64) -> Result<()> {
    let refused = Error::Setting { name: "least patches", expected: "at least 2", got: format!("{least}") };
    if least >= 2 { Ok(()) } else { Err(refused) }
}

/// The representation of an image, better with each patch, and whether it is good enough.
///
/// The tolerance is looked at after each patch. As always with a rule that looks often, it tends to stop where the spread
/// is underestimated, as in a sky whose few birds have not been seen: the uncertainty at the end is somewhat too small, the
/// less so the greater [`StopRule::min_patches`] is.
#[derive(Debug, Clone, PartialEq)]
pub struct AnyTime {
    mean: RunningMean,
    patches: u64,
    rule: StopRule,
}

impl AnyTime {
    /// For embeddings of length `dim` of a grid of `patches`.
    ///
    /// # Errors
    /// [`Error::Setting`] if the tolerance is not a number of at least 0, the least patches are fewer than 2, or the most
    /// fewer than the least.
    pub fn new(dim: usize, patches: u64, rule: StopRule) -> Result<Self> {
        Ok(AnyTime { mean: RunningMean::new(dim), patches, rule: rule.check()? })
    }

    /// Takes in the embedding of one more patch, drawn without replacement. `expired` says whether the caller's time is up;
    /// it is asked only if nothing else ends the search, and from the first patch on, whatever [`StopRule::min_patches`] is.
    ///
    /// # Errors
    /// [`Error::Length`] if the embedding has another length, or more come than the grid has patches.
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

    /// The mean so far, with the count of its patches.
    pub fn mean(&self) -> &RunningMean {
        &self.mean
    }

    /// [`RunningMean::uncertainty`] within the grid.
    pub fn uncertainty(&self) -> Option<f64> {
        self.mean.uncertainty(self.patches)
    }
}

fn check_left(patches: u64, count: u64) -> Result<()> {
    if count < patches {
        return Ok(());
    }
    Err(Error::Length { what: "patches of a grid", expected: patches as usize, got: count as usize + 1 })
}

/// When a decision is looked at: after `least` patches and each time their number has doubled, as long as some are left.
///
/// A rule that looks `k` times and would be wrong with probability `a` each time is wrong with up to `k a` in all. So each
/// look is given a share of the error that is allowed (Bonferroni), and doubling keeps the looks few: 7 for 8 to 576 patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionSchedule {
    min_patches: u64,
    patches: u64,
}

impl DecisionSchedule {
    /// The looks at a grid of `patches`.
    ///
    /// # Errors
    /// [`Error::Setting`] if the least patches are fewer than 2.
    pub fn new(least: u64, patches: u64) -> Result<Self> {
        check_least(least)?;
        Ok(DecisionSchedule { min_patches: least, patches })
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        let counts = core::iter::successors(Some(self.min_patches), |count| count.checked_mul(2));
        counts.take_while(|&count| count < self.patches).count() as u32
    }

    /// Whether there is one after `count` patches.
    pub fn is_due(self, count: u64) -> bool {
        count < self.patches && count.is_multiple_of(self.min_patches) && (count / self.min_patches).is_power_of_two()
    }

    /// The confidence that each look needs for one of `confidence` over all of them.
    pub fn confidence(self, confidence: f64) -> f64 {
        1.0 - (1.0 - confidence) / f64::from(self.count().max(1))
    }
}

/// A linear classifier's decision on an image, and whether more patches could change it.
///
/// Logits that are linear in the embedding (a linear probe's) are, for the mean of patches, the mean of the patches'
/// logits. So is a class's margin over another, and the error of that mean is known. The search ends as decided when
/// the lower bounds of the leader's margins over all other classes are above 0.
///
/// # What the confidence means
/// The probability that the image is said to be decided for a class that does not win over all patches of the grid is
/// at most `1 - confidence`: over all looks and classes, not for one look. The share of the error is split evenly over
/// the [`DecisionSchedule`] and the other classes (Bonferroni; that the leader is chosen by the same patches costs nothing, since a
/// wrong stop needs the bound of one false margin over the true winner). Each bound is Student's t with the finite grid's
/// factor `1 - n / N`: the level is exact as far as the margins' means are normal, an approximation otherwise.
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
    /// The logits of all patches so far, `[patch, class]`: a margin's spread is asked for only when the leader is known.
    logits: Vec<f64>,
}

impl Decision {
    /// Between `classes`, over a grid of `patches`, not before `least` of them.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no class, the least patches are fewer than 2, or the confidence is not between 0.5
    /// and 0.9999.
    pub fn new(classes: usize, patches: u64, least: u64, confidence: f64) -> Result<Self> {
        if classes == 0 {
            return Err(Error::Setting { name: "classes", expected: "at least 1", got: "0".into() });
        }
        check_confidence(confidence)?;
        Ok(Decision { classes, patches, schedule: DecisionSchedule::new(least, patches)?, confidence, logits: vec![] })
    }

    /// Takes in the logits of one more patch, `[class]`, drawn without replacement.
    ///
    /// # Errors
    /// [`Error::Length`] if there is not a logit for each class, or more come than the grid has patches.
    pub fn push(&mut self, logits: &[f64]) -> Result<Next> {
        if logits.len() != self.classes {
            return Err(Error::Length { what: "logits of a patch", expected: self.classes, got: logits.len() });
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

    /// Patches so far.
    pub fn count(&self) -> u64 {
        (self.logits.len() / self.classes) as u64
    }

    /// The class with the greatest mean logit, the first among equals; `None` before the first patch.
    pub fn leader(&self) -> Option<usize> {
        let mut sums = vec![0.0; self.classes];
        for row in self.logits.chunks_exact(self.classes) {
            sums.iter_mut().zip(row).for_each(|(sum, logit)| *sum += logit);
        }
        let greatest = (1..self.classes).fold(0, |best, class| if sums[class] > sums[best] { class } else { best });
        (!self.logits.is_empty()).then_some(greatest)
    }

    /// Whether the leader's margin over every other class is above 0 for certain.
    fn is_decided(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let error = (1.0 - self.schedule.confidence(self.confidence)) / (self.classes - 1).max(1) as f64;
        let t = student_t(1.0 - error, u32::try_from(self.count() - 1).unwrap_or(u32::MAX));
        (0..self.classes).filter(|&class| class != leader).all(|class| self.lower_bound(leader, class, t) > 0.0)
    }

    /// The mean margin of a class over another, less `t` standard errors.
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
