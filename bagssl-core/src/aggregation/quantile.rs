//! Quantiles of Student's t distribution, for confidence intervals.

use std::prelude::v1::*;

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::error::{Error, Result};

/// Returns the quantile of Student's t distribution for a probability in `[0.5, 1)` and `degrees`
/// degrees of freedom.
///
/// # Example
/// ```
/// let t = bagssl_core::quantile::student_t(0.975, 4);
/// assert!((t - 2.776).abs() < 1e-3);
/// ```
///
/// # Panics
/// If the probability is out of range or `degrees` is 0.
pub fn student_t(probability: f64, degrees: u32) -> f64 {
    assert!((0.5..1.0).contains(&probability) && degrees > 0, "t quantile {probability} of {degrees} degrees");
    let student = StudentsT::new(0.0, 1.0, f64::from(degrees)).expect("at least one degree of freedom");
    student.inverse_cdf(probability)
}

/// The highest accepted confidence. Beyond it, the tails are not known well enough.
const MAX_CONFIDENCE: f64 = 0.9999;

/// Checks that a confidence lies between 0.5 and 0.9999.
pub(crate) fn check_confidence(confidence: f64) -> Result<()> {
    if (0.5..=MAX_CONFIDENCE).contains(&confidence) {
        return Ok(());
    }
    Err(Error::Setting { name: "confidence", expected: "0.5 to 0.9999", got: format!("{confidence}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Standard table of two-sided 95 % and 99 % quantiles.
    #[test]
    fn quantiles_equal_the_table() {
        let table =
            [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)];
        for (degrees, expected) in table {
            let got = student_t(0.975, degrees);
            assert!((got - expected).abs() < 6e-4, "{degrees}: {got}");
        }
        assert!((student_t(0.995, 5) - 4.032).abs() < 6e-4);
        assert!(student_t(0.5, 7) < 1e-12);
    }

    /// Closed forms in the far tail: with one degree of freedom `tan(pi (p - 1/2))`, with two
    /// `(2 p - 1) / sqrt(2 p (1 - p))`, with many the normal quantile.
    #[test]
    fn tails_equal_closed_forms() {
        let p = 1.0 - 1e-6;
        let one = libm::tan(core::f64::consts::PI * (p - 0.5));
        let two = (2.0 * p - 1.0) / libm::sqrt(2.0 * p * (1.0 - p));
        assert!((student_t(p, 1) / one - 1.0).abs() < 1e-6);
        assert!((student_t(p, 2) / two - 1.0).abs() < 1e-6);
        assert!((student_t(0.975, 200_000) - 1.959_964).abs() < 2e-5);
    }

    #[test]
    fn confidence_out_of_range_is_refused() {
        assert!([0.5, 0.95, 0.9999].iter().all(|&confidence| check_confidence(confidence).is_ok()));
        assert!([0.49, 1.0, -0.95, f64::NAN].iter().all(|&confidence| check_confidence(confidence).is_err()));
    }
}
