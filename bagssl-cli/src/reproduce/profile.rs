//! Profiles: named sets of data, network and evaluation.

use std::path::PathBuf;

use anyhow::{Result, bail};
use bagssl_core::architecture::Architecture;
use bagssl_core::bag::{Bag, Views};
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Filter, PatchSide, PatchSpec};
use bagssl_eval::report::Method;
use bagssl_train::loss::Loss;
use bagssl_train::preset::preset;
use clap::ValueEnum;

use crate::config::RunConfig;

/// The profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Profile {
    /// The photographs included in the program, or other tiles of 64 pixels; a small network, for a
    /// CPU
    #[default]
    Tiles,
    /// CIFAR-10 with ResNet-18 and EMP-SSL's recipe; for a GPU
    Cifar10,
    /// CIFAR-100 with ResNet-18 and EMP-SSL's recipe; for a GPU
    Cifar100,
    /// A hundred classes of ImageNet with ResNet-18; for a GPU
    Imagenet100,
    /// ImageNet-1K with ResNet-50; for a GPU
    Imagenet,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Tiles => "tiles",
            Profile::Cifar10 => "cifar10",
            Profile::Cifar100 => "cifar100",
            Profile::Imagenet100 => "imagenet100",
            Profile::Imagenet => "imagenet",
        }
    }

    /// Returns the path of the data: `given`, or the profile's default folder. `None` stands for
    /// the photographs included in the program.
    pub(crate) fn data(self, given: Option<&PathBuf>) -> Result<Option<PathBuf>> {
        let (folder, reproduction, from) = match self {
            Profile::Tiles => return Ok(given.cloned()),
            Profile::Cifar10 => (
                "data/cifar-10-batches-bin",
                "cifar-10-binary.tar.gz, unpacked",
                "https://www.cs.toronto.edu/~kriz/cifar.html",
            ),
            Profile::Cifar100 => (
                "data/cifar-100-binary",
                "cifar-100-binary.tar.gz, unpacked",
                "https://www.cs.toronto.edu/~kriz/cifar.html",
            ),
            Profile::Imagenet100 => (
                "data/imagenet100",
                "a hundred class folders of ImageNet-1K under train/ and val/",
                "https://www.image-net.org/download.php",
            ),
            Profile::Imagenet => (
                "data/imagenet",
                "ImageNet-1K, a folder for each class under train/ and val/",
                "https://www.image-net.org/download.php",
            ),
        };
        let path = given.cloned().unwrap_or_else(|| folder.into());
        if !path.exists() {
            bail!(
                "{}: expected the data of profile {}, got none; download {reproduction} from {from} to this path, or pass its \
                 path with --data",
                path.display(),
                self.name()
            );
        }
        Ok(Some(path))
    }

    /// Returns the configuration of a training: the loss and views of the method's preset, with the
    /// profile's network, patches, batches and schedule. The coding rate always has the profile's
    /// weights, so that the first two of [`Method::TRAINED`] differ in their views only.
    pub(crate) fn run(self, model: Method, epochs: Option<u32>) -> Result<RunConfig> {
        let mut run = self.base()?;
        let recipe = named(model.name()).train;
        run.name = model.name().into();
        if !matches!(recipe.loss, Loss::Tcr { .. }) {
            run.train.loss = recipe.loss;
        }
        run.train.views = match recipe.views {
            Views::FixedScale(_) => Views::FixedScale(run.train.patch),
            Views::MultiScale(crops) => Views::MultiScale(crops.with_input(run.train.patch.input())?),
        };
        if let Some(epochs) = epochs {
            run.train.schedule.epochs = epochs;
        }
        run.train.clone().check()?;
        Ok(run)
    }

    /// Returns the settings that all runs share.
    fn base(self) -> Result<RunConfig> {
        let mut fixed = match self {
            Profile::Tiles => named("bagssl"),
            _ => named("emp-ssl-cifar"),
        };
        if let Profile::Imagenet100 | Profile::Imagenet = self {
            // EMP-SSL's patches for ImageNet: a quarter of the area, resampled to 224 pixels,
            // bicubic.
            let spec = PatchSpec::new(PatchSide::AreaShare(0.25), 224)?;
            fixed.train.patch = spec;
            fixed.train.views = Views::FixedScale(spec);
            fixed.train.filter = Filter::Bicubic;
            fixed.train.normalization = Normalization::IMAGENET;
            let imagenet = self == Profile::Imagenet;
            fixed.train.model.arch = if imagenet { Architecture::ResNet50 } else { Architecture::ResNet18 };
        }
        Ok(fixed)
    }

    /// Returns the bag of patches that represents an image when a model is measured.
    pub(crate) fn bag(self, spec: PatchSpec) -> Bag {
        match self {
            // 5 x 5 patches of 32 pixels in tiles of 64.
            Profile::Tiles => Bag::Grid { spec, stride: 8 },
            // 5 x 5 patches of 16 pixels in images of 32.
            Profile::Cifar10 | Profile::Cifar100 => Bag::Grid { spec, stride: 4 },
            // Images differ in size, so a grid would give bags of different sizes.
            Profile::Imagenet100 | Profile::Imagenet => Bag::Random { spec, patches: 16 },
        }
    }

    /// Returns the bag of patches for claims, which use many checkpoints: fewer patches if they lie
    /// on a grid.
    pub(crate) fn claim_bag(self, spec: PatchSpec) -> Bag {
        match self.bag(spec) {
            Bag::Grid { spec, stride } => Bag::Grid { spec, stride: 2 * stride },
            other => other,
        }
    }
}

fn named(name: &str) -> RunConfig {
    RunConfig::preset(preset(name).expect("a preset of this project"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_consistent() {
        for profile in Profile::value_variants() {
            let of = |model| profile.run(model, Some(3)).unwrap();
            let (fixed, multi) = (of(Method::Bagssl), of(Method::MultiScale));
            assert_eq!(fixed.train.schedule.epochs, 3);
            assert!(matches!(fixed.train.views, Views::FixedScale(_)));
            let same = RunConfig {
                train: bagssl_train::config::TrainConfig { views: fixed.train.views, ..multi.train.clone() },
                ..multi.clone()
            };
            assert_eq!(RunConfig { name: "multi-scale".into(), ..fixed.clone() }, same, "only the views differ");
            for (model, views, is_of) in [
                (Method::BagsslVicreg, fixed.train.views, Loss::vicreg()),
                (Method::Vicreg, multi.train.views, Loss::vicreg()),
                (Method::Simclr, multi.train.views, Loss::simclr()),
            ] {
                let run = of(model);
                assert_eq!((run.train.views, run.train.loss, run.name.as_str()), (views, is_of, model.name()));
                assert_eq!((run.train.patch, run.train.batch), (fixed.train.patch, fixed.train.batch));
                assert_eq!(run.train.views.input(), run.train.patch.input());
            }
        }
    }

    /// On the tiles, every training equals its preset.
    #[test]
    fn the_tiles_have_the_presets() {
        for model in Method::TRAINED {
            assert_eq!(Profile::Tiles.run(model, None).unwrap(), named(model.name()), "{}", model.name());
        }
    }

    #[test]
    fn missing_data_is_explained() {
        let error = Profile::Cifar10.data(Some(&"no/such/place".into())).unwrap_err().to_string();
        assert!(error.contains("no/such/place") && error.contains("https://") && error.contains("--data"), "{error}");
        assert_eq!(Profile::Tiles.data(None).unwrap(), None);
    }
}
