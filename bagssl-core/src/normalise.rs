//! Normalisation: from colours in `[0, 1]` to what a network was trained on.

use std::prelude::v1::*;

use crate::error::{Error, Result};

/// Mean and deviation of each colour channel (red, green, blue) of images in `[0, 1]`; both positive and finite where
/// they must be.
///
/// # Example
/// ```
/// use bagssl_core::normalise::Normalisation;
/// assert_eq!(Normalisation::HALF.apply(0, 1.0), 1.0);
/// assert_eq!(Normalisation::HALF.apply(2, 0.0), -1.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(try_from = "Unchecked", into = "Unchecked"))]
pub struct Normalisation {
    mean: [f32; 3],
    deviation: [f32; 3],
}

/// A normalisation as it stands in a file.
#[cfg(feature = "checkpoint")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    mean: [f32; 3],
    std: [f32; 3],
}

#[cfg(feature = "checkpoint")]
impl TryFrom<Unchecked> for Normalisation {
    type Error = Error;

    fn try_from(unchecked: Unchecked) -> Result<Self> {
        Normalisation::new(unchecked.mean, unchecked.std)
    }
}

#[cfg(feature = "checkpoint")]
impl From<Normalisation> for Unchecked {
    fn from(checked: Normalisation) -> Self {
        Unchecked { mean: checked.mean, std: checked.deviation }
    }
}

impl Normalisation {
    /// Mean and deviation 0.5: `[0, 1]` becomes `[-1, 1]` (EMP-SSL, arXiv:2304.03977).
    pub const HALF: Self = Normalisation { mean: [0.5; 3], deviation: [0.5; 3] };
    /// Mean and deviation of ImageNet's training images, as torchvision's models expect them.
    pub const IMAGENET: Self = Normalisation { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

    /// Checks a mean and a deviation.
    ///
    /// # Errors
    /// [`Error::Setting`] if a value is not finite or a deviation is not positive.
    pub fn new(mean: [f32; 3], deviation: [f32; 3]) -> Result<Self> {
        if !mean.iter().all(|value| value.is_finite()) {
            return Err(Error::Setting {
                name: "normalisation.mean",
                expected: "finite values",
                got: format!("{mean:?}"),
            });
        }
        if !deviation.iter().all(|value| value.is_finite() && *value > 0.0) {
            return Err(Error::Setting {
                name: "normalisation.std",
                expected: "positive values",
                got: format!("{deviation:?}"),
            });
        }
        Ok(Normalisation { mean, deviation })
    }

    /// The mean of each channel.
    pub fn mean(self) -> [f32; 3] {
        self.mean
    }

    /// The deviation of each channel.
    pub fn deviation(self) -> [f32; 3] {
        self.deviation
    }

    /// `(value - mean) / deviation` of a channel (0 red, 1 green, 2 blue).
    pub fn apply(self, channel: usize, value: f32) -> f32 {
        (value - self.mean[channel]) / self.deviation[channel]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let normalisation = Normalisation::new([0.0, 0.5, 1.0], [1.0, 2.0, 4.0]).unwrap();
        assert_eq!([0, 1, 2].map(|channel| normalisation.apply(channel, 0.5)), [0.5, 0.0, -0.125]);
    }

    #[test]
    fn what_cannot_be_divided_by_is_refused() {
        assert!(Normalisation::new([f32::NAN, 0.0, 0.0], [1.0; 3]).is_err());
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(Normalisation::new([0.0; 3], [1.0, bad, 1.0]).is_err(), "{bad}");
        }
    }
}
