//! The two splits of a data set to evaluate on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bagssl_core::color::Color;
use bagssl_data::curate::Classes;
use bagssl_data::{Dataset, Split};

use crate::error::{Error, Result};

/// The two splits of a data set. Classifiers learn from the training images and are tested on the test images.
#[derive(Debug, Clone)]
pub struct Splits {
    /// The training images.
    pub train: Arc<Dataset>,
    /// The test images, only those whose classes have training images.
    pub test: Arc<Dataset>,
    /// The classes of both splits as they were given, which also says what is not tested.
    pub classes: Classes,
    /// The number of test images that were left out, because their classes have no training images.
    pub untested_images: usize,
}

impl Splits {
    /// Opens the training and the validation split at a path, such as a folder with `train/` and `val/`.
    ///
    /// # Errors
    /// [`Error::Data`] if a split cannot be read. The errors of [`Splits::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Splits::new(Dataset::open(path, Split::Train)?, Dataset::open(path, Split::Validation)?)
    }

    /// Joins two splits. Keeps only the test images whose classes have training images.
    ///
    /// # Errors
    /// [`Error::NoClass`] if an image has no class, [`Error::Data`] if no test image is left.
    pub fn new(train: Dataset, test: Dataset) -> Result<Self> {
        for (dataset, split) in [(&train, "training"), (&test, "validation")] {
            if let Some(image) = dataset.first_without_class() {
                return Err(Error::NoClass { split, image: image.into() });
            }
        }
        let (classes, all) = (Classes::compare(&train, &test), test.len());
        let test = test.keep_classes_of(&train)?;
        let untested_images = all - test.len();
        Ok(Splits { train: Arc::new(train), test: Arc::new(test), classes, untested_images })
    }

    /// Returns the number of classes of the test images.
    pub fn tested_classes(&self) -> usize {
        (0..self.test.len()).map(|image| self.test.label(image)).collect::<BTreeSet<_>>().len()
    }

    /// Returns the accuracy of guessing, in percent.
    pub fn chance(&self) -> f64 {
        100.0 / self.tested_classes() as f64
    }

    /// Returns the number of images that [`evaluate`](crate::evaluate) embeds: those of both splits, in color and in grayscale,
    /// as patches and as whole images.
    pub fn images_to_evaluate(&self) -> u64 {
        let views = 2;
        ((self.train.len() + self.test.len()) * Color::ALL.len() * views) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Classes a and b have training images, a, b and c test images: c is not tested.
    #[test]
    fn test_images_of_unknown_classes_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "train/a/0.png",
            "train/b/0.png",
            "train/b/1.png",
            "val/a/0.png",
            "val/b/0.png",
            "val/c/0.png",
            "val/c/1.png",
        ];
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(3, 2).save(path).unwrap();
        }
        let splits = Splits::open(folder.path()).unwrap();
        assert_eq!((splits.train.len(), splits.test.len(), splits.untested_images), (3, 2, 2));
        assert_eq!((splits.tested_classes(), splits.chance(), splits.images_to_evaluate()), (2, 50.0, 5 * 4));
        assert_eq!(splits.classes.validation_only, ["c"]);

        let files = || Dataset::from_files(&[folder.path().join("val/a/0.png")]).unwrap();
        let train = Dataset::open(folder.path(), Split::Train).unwrap();
        let error = Splits::new(train, files()).unwrap_err().to_string();
        assert!(error.contains("validation") && error.contains("0.png"), "{error}");
        std::fs::remove_dir_all(folder.path().join("train/a")).unwrap();
        std::fs::remove_dir_all(folder.path().join("val/b")).unwrap();
        assert!(matches!(Splits::open(folder.path()), Err(Error::Data(_))), "no class is in both");
    }
}
