//! Augmentation: random changes that make patches of one image look less alike.
//!
//! All transforms work on 8-bit pixels, like torchvision's transforms of Pillow images. The order
//! is flip, color jitter, grey, blur, solarise (EMP-SSL, arXiv:2304.03977).

use bagssl_core::random::Stream;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::Image;
use crate::transform::{blur, color};
use bagssl_core::color::Color;

/// Settings of the augmentation. By default, all transforms are off.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// The probability of a horizontal flip.
    pub flip: f32,
    /// Color jitter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// The probability of a conversion to grey.
    pub grey: f32,
    /// Gaussian blur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur: Option<Blur>,
    /// Solarization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solarise: Option<Solarise>,
}

/// Color jitter: four changes in random order, like torchvision's `ColorJitter`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// The brightness factor is uniform in `[max(0, 1 - brightness), 1 + brightness]`.
    pub brightness: f32,
    /// The contrast factor is uniform in `[max(0, 1 - contrast), 1 + contrast]`.
    pub contrast: f32,
    /// The saturation factor is uniform in `[max(0, 1 - saturation), 1 + saturation]`.
    pub saturation: f32,
    /// The hue shift is uniform in `[-hue, hue]`, in turns of the color wheel; at most 0.5.
    pub hue: f32,
    /// The probability of applying the jitter.
    pub probability: f32,
}

/// Gaussian blur with a random standard deviation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    /// The probability of applying the blur.
    pub probability: f32,
    /// The standard deviation in pixels is uniform in this range.
    pub sigma: (f32, f32),
}

/// Solarization: inverts all values at or above a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solarise {
    /// The probability of applying the solarization.
    pub probability: f32,
    /// The lowest value that is inverted.
    pub threshold: u8,
}

impl Augment {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] with the name of the setting that is out of range.
    pub fn check(self) -> Result<CheckedAugment> {
        let check = |name, value: f32, range: std::ops::RangeInclusive<f32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let expected = format!("{} to {}", range.start(), range.end());
            Err(Error::Setting { name, expected, got: value.to_string() })
        };
        check("augment.flip", self.flip, 0.0..=1.0)?;
        check("augment.grey", self.grey, 0.0..=1.0)?;
        if let Some(jitter) = self.jitter {
            check("augment.jitter.probability", jitter.probability, 0.0..=1.0)?;
            check("augment.jitter.brightness", jitter.brightness, 0.0..=10.0)?;
            check("augment.jitter.contrast", jitter.contrast, 0.0..=10.0)?;
            check("augment.jitter.saturation", jitter.saturation, 0.0..=10.0)?;
            check("augment.jitter.hue", jitter.hue, 0.0..=0.5)?;
        }
        if let Some(blur) = self.blur {
            check("augment.blur.probability", blur.probability, 0.0..=1.0)?;
            check("augment.blur.sigma", blur.sigma.0, 0.01..=100.0)?;
            check("augment.blur.sigma", blur.sigma.1, blur.sigma.0..=100.0)?;
        }
        if let Some(solarise) = self.solarise {
            check("augment.solarise.probability", solarise.probability, 0.0..=1.0)?;
        }
        Ok(CheckedAugment(self))
    }
}

/// Settings that have been checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckedAugment(Augment);

impl CheckedAugment {
    /// Augments a patch in place. The same random stream gives the same result.
    pub fn apply(self, patch: &mut Image, random: &mut Stream) {
        let Augment { flip, jitter, grey, blur, solarise } = self.0;
        if random.chance(flip) {
            color::flip(patch);
        }
        if let Some(jitter) = jitter.filter(|jitter| random.chance(jitter.probability)) {
            jitter.apply(patch, random);
        }
        if random.chance(grey) {
            patch.set_color(Color::Grey);
        }
        if let Some(blur) = blur.filter(|blur| random.chance(blur.probability)) {
            blur::blur(patch, random.uniform(blur.sigma.0, blur.sigma.1));
        }
        if let Some(solarise) = solarise.filter(|solarise| random.chance(solarise.probability)) {
            color::solarise(patch, solarise.threshold);
        }
    }
}

impl Jitter {
    /// Applies the jitter. A strength of 0 changes nothing, but consumes the same random numbers.
    fn apply(self, patch: &mut Image, random: &mut Stream) {
        let mut order = [0, 1, 2, 3];
        random.shuffle(&mut order);
        let mut factor = |strength: f32| random.uniform((1.0 - strength).max(0.0), 1.0 + strength);
        let factors = [factor(self.brightness), factor(self.contrast), factor(self.saturation)];
        let turns = random.uniform(-self.hue, self.hue);
        for change in order {
            match change {
                0 if self.brightness > 0.0 => color::brightness(patch, factors[0]),
                1 if self.contrast > 0.0 => color::contrast(patch, factors[1]),
                2 if self.saturation > 0.0 => color::saturation(patch, factors[2]),
                3 if self.hue > 0.0 => color::hue(patch, turns),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::patch::ImageSize;
    use bagssl_core::random::{Address, Purpose};
    use proptest::prelude::*;

    fn patch() -> Image {
        let rgb = (0..24 * 3).map(|i| (i * 37 % 256) as u8).collect();
        Image::new(ImageSize { height: 4, width: 6 }, rgb)
    }

    fn all() -> Augment {
        Augment {
            flip: 0.5,
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.2, probability: 0.8 }),
            grey: 0.2,
            blur: Some(Blur { probability: 0.5, sigma: (0.1, 2.0) }),
            solarise: Some(Solarise { probability: 0.5, threshold: 128 }),
        }
    }

    #[test]
    fn the_same_address_gives_the_same_patch_and_another_does_not() {
        let augment = all().check().unwrap();
        let of = |patch_index| {
            let mut changed = patch();
            let address = Address { patch: patch_index, ..Address::default() };
            augment.apply(&mut changed, &mut address.stream(Purpose::Augment));
            changed
        };
        assert_eq!(of(3), of(3));
        let different = (0..20).filter(|&index| of(index) != of(index + 1)).count();
        assert!(different >= 19, "{different}");
    }

    #[test]
    fn probabilities_are_kept() {
        let augment = Augment { flip: 0.25, ..Augment::default() }.check().unwrap();
        let flipped = (0..4000)
            .filter(|&image| {
                let mut changed = patch();
                augment.apply(&mut changed, &mut Address { image, ..Address::default() }.stream(Purpose::Augment));
                changed != patch()
            })
            .count();
        assert!((900..1100).contains(&flipped), "{flipped}");
    }

    #[test]
    fn settings_outside_their_range_are_named() {
        let named = |augment: Augment, name: &str| {
            let error = augment.check().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        };
        named(Augment { flip: 1.5, ..Augment::default() }, "augment.flip");
        named(Augment { grey: f32::NAN, ..Augment::default() }, "augment.grey");
        let jitter = all().jitter.map(|jitter| Jitter { hue: 0.6, ..jitter });
        named(Augment { jitter, ..Augment::default() }, "augment.jitter.hue");
        let blur = Some(Blur { probability: 0.5, sigma: (2.0, 1.0) });
        named(Augment { blur, ..Augment::default() }, "augment.blur.sigma");
    }

    /// Rotating the hue by 0 would still change some values by a level, due to the conversion to
    /// HSV and back.
    #[test]
    fn jitter_of_no_strength_changes_nothing() {
        let jitter = Jitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0, probability: 1.0 };
        let augment = Augment { jitter: Some(jitter), ..Augment::default() }.check().unwrap();
        let mut changed = patch();
        augment.apply(&mut changed, &mut Address::default().stream(Purpose::Augment));
        assert_eq!(changed, patch());
    }

    #[test]
    fn settings_survive_a_file_and_unknown_ones_are_refused() {
        let text = serde_json::to_string(&all()).unwrap();
        assert_eq!(serde_json::from_str::<Augment>(&text).unwrap(), all());
        assert_eq!(serde_json::from_str::<Augment>("{}").unwrap(), Augment::default());
        let error = serde_json::from_str::<Augment>(&text.replace("sigma", "sigmas")).unwrap_err().to_string();
        assert!(error.contains("sigmas"), "{error}");
    }

    proptest! {
        #[test]
        fn any_checked_settings_keep_the_size(height in 1u32..9, width in 1u32..9, strength in 0f32..10.0, hue in 0f32..=0.5, low in 0.01f32..50.0, threshold: u8, seed: u64) {
            let augment = Augment {
                flip: 0.5,
                jitter: Some(Jitter { brightness: strength, contrast: strength, saturation: strength, hue, probability: 1.0 }),
                grey: 0.5,
                blur: Some(Blur { probability: 1.0, sigma: (low, 2.0 * low) }),
                solarise: Some(Solarise { probability: 0.5, threshold }),
            };
            let size = ImageSize { height, width };
            let mut patch = Image::new(size, (0..height * width * 3).map(|i| (i * 89) as u8).collect());
            augment.check().unwrap().apply(&mut patch, &mut Address { seed, ..Address::default() }.stream(Purpose::Augment));
            prop_assert_eq!(patch.size(), size);
        }
    }
}
