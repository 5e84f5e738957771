//! Normalization of colors in `[0, 1]` to the range that a network was trained on.

use std::prelude::v1::*;

use crate::error::{Error, Result};

/// Mean and standard deviation of each color channel (red, green, blue) of images in `[0, 1]`. All
/// are finite; the standard deviations are positive.
///
/// # Example
/// ```
/// use bagssl_core::normalize::Normalization;
/// assert_eq!(Normalization::HALF.apply(0, 1.0), 1.0);
/// assert_eq!(Normalization::HALF.apply(2, 0.0), -1.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(try_from = "Unchecked", into = "Unchecked"))]
pub struct Normalization {
    mean: [f32; 3],
    deviation: [f32; 3],
}

/// The serialized form.
#[cfg(feature = "checkpoint")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    mean: [f32; 3],
    std: [f32; 3],
}

#[cfg(feature = "checkpoint")]
impl TryFrom<Unchecked> for Normalization {
    type Error = Error;

    fn try_from(unchecked: Unchecked) -> Result<Self> {
        Normalization::new(unchecked.mean, unchecked.std)
    }
}

#[cfg(feature = "checkpoint")]
impl From<Normalization> for Unchecked {
    fn from(checked: Normalization) -> Self {
        Unchecked { mean: checked.mean, std: checked.deviation }
    }
}

impl Normalization {
    /// Mean and standard deviation 0.5: maps `[0, 1]` to `[-1, 1]` (EMP-SSL, arXiv:2304.03977).
    pub const HALF: Self = Normalization { mean: [0.5; 3], deviation: [0.5; 3] };
    /// Mean and standard deviation of ImageNet's training images, as torchvision's models expect
    /// them.
    pub const IMAGENET: Self = Normalization { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };
    /// Mean and standard deviation of CIFAR-10's training images, as in solo-learn.
    pub const CIFAR10: Self = Normalization { mean: [0.4914, 0.4822, 0.4465], deviation: [0.2470, 0.2435, 0.2616] };
    /// Mean and standard deviation of CIFAR-100's training images, as in solo-learn.
    pub const CIFAR100: Self = Normalization { mean: [0.5071, 0.4865, 0.4409], deviation: [0.2673, 0.2564, 0.2762] };

    /// Creates a normalization from a mean and a standard deviation.
    ///
    /// # Errors
    /// [`Error::Setting`] if a value is not finite, or a standard deviation is not positive.
    pub fn new(mean: [f32; 3], deviation: [f32; 3]) -> Result<Self> {
        if !mean.iter().all(|value| value.is_finite()) {
            return Err(Error::Setting {
                name: "normalization.mean",
                expected: "finite values",
                got: format!("{mean:?}"),
            });
        }
        if !deviation.iter().all(|value| value.is_finite() && *value > 0.0) {
            return Err(Error::Setting {
                name: "normalization.std",
                expected: "positive values",
                got: format!("{deviation:?}"),
            });
        }
        Ok(Normalization { mean, deviation })
    }

    /// Returns the mean of each channel.
    pub fn mean(self) -> [f32; 3] {
        self.mean
    }

    /// Returns the standard deviation of each channel.
    pub fn deviation(self) -> [f32; 3] {
        self.deviation
    }

    /// Returns `(value - mean) / deviation` for a channel (0 red, 1 green, 2 blue).
    pub fn apply(self, channel: usize, value: f32) -> f32 {
        (value - self.mean[channel]) / self.deviation[channel]
    }
}

impl core::str::FromStr for Normalization {
    type Err = Error;

    /// Parses `imagenet`, `half`, `cifar10`, `cifar100`, or `MEAN/DEVIATION` with the values of
    /// red, green and blue, such as `0.5,0.5,0.5/0.25,0.25,0.25`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "imagenet" => return Ok(Self::IMAGENET),
            "half" => return Ok(Self::HALF),
            "cifar10" => return Ok(Self::CIFAR10),
            "cifar100" => return Ok(Self::CIFAR100),
            _ => {}
        }
        let free = text.split_once('/').and_then(|(mean, deviation)| Some((three(mean)?, three(deviation)?)));
        let (mean, deviation) = free.ok_or_else(|| Error::Setting {
            name: "normalization",
            expected: "imagenet, half, cifar10, cifar100, or MEAN/STD such as 0.5,0.5,0.5/0.25,0.25,0.25",
            got: format!("{text:?}"),
        })?;
        Self::new(mean, deviation)
    }
}

/// Parses three numbers separated by commas.
fn three(text: &str) -> Option<[f32; 3]> {
    let mut values = text.split(',').map(|value| value.trim().parse().ok());
    let three = [values.next()??, values.next()??, values.next()??];
    values.next().is_none().then_some(three)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let normalization = Normalization::new([0.0, 0.5, 1.0], [1.0, 2.0, 4.0]).unwrap();
        assert_eq!([0, 1, 2].map(|channel| normalization.apply(channel, 0.5)), [0.5, 0.0, -0.125]);
    }

    /// The values of solo-learn's `CifarTransform`.
    #[test]
    fn normalization_parses_names_and_numbers() {
        let read = |text: &str| text.parse::<Normalization>();
        let of = |mean, deviation| Normalization::new(mean, deviation).unwrap();
        assert_eq!(read("imagenet").unwrap(), Normalization::IMAGENET);
        assert_eq!(read("cifar10").unwrap(), of([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]));
        assert_eq!(read("cifar100").unwrap(), of([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]));
        assert_eq!(read("0.1, 0.2,0.3/1,2,4").unwrap(), of([0.1, 0.2, 0.3], [1.0, 2.0, 4.0]));
        for bad in ["", "cifar", "0,0,0", "0,0/1,1,1", "0,0,0/1,1,1,1", "0,0,0/1,1,x"] {
            assert!(read(bad).unwrap_err().to_string().contains("cifar10"), "{bad}");
        }
        assert!(read("0,0,0/1,0,1").unwrap_err().to_string().contains("normalization.std"));
    }

    #[test]
    fn zero_or_non_finite_deviation_is_refused() {
        assert!(Normalization::new([f32::NAN, 0.0, 0.0], [1.0; 3]).is_err());
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(Normalization::new([0.0; 3], [1.0, bad, 1.0]).is_err(), "{bad}");
        }
    }
}
