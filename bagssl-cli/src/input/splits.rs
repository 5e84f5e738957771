//! The train/validation split of a data set to evaluate on.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use bagssl_data::curate::Classes;
use bagssl_data::{Dataset, Split};

use crate::input::source::{DataArgs, check_labels};
use crate::terminal::output::{note_once, one_line};

/// The two splits of a data set.
#[derive(Clone)]
pub(crate) struct Splits {
    pub(crate) train: Arc<Dataset>,
    pub(crate) test: Arc<Dataset>,
}

impl Splits {
    /// Opens both splits. Keeps only the test images whose classes have training images. Prints to
    /// standard error what was opened, and which classes are not tested.
    pub(crate) fn open(data: &DataArgs) -> Result<Self> {
        let (train, test) = (data.read(Split::Train)?, data.read(Split::Validation)?);
        data.tell(&[&train, &test]);
        for (half, name) in [(&train, "training"), (&test, "validation")] {
            check_labels(half, name, data)?;
        }
        let (classes, all) = (Classes::compare(&train, &test), test.len());
        let test = test.known_from(&train)?;
        if !classes.is_even() {
            let line = one_line(&format!("classes: {classes}"));
            let left_out = match all - test.len() {
                0 => String::new(),
                1 => "; 1 image without training images of its class is not tested".into(),
                count => format!("; {count} images without training images of their class are not tested"),
            };
            note_once(&format!("data: {line}{left_out}"));
        }
        Ok(Splits { train: Arc::new(train), test: Arc::new(test) })
    }

    /// Returns the number of classes of the test images.
    pub(crate) fn tested(&self) -> usize {
        (0..self.test.len()).map(|image| self.test.label(image)).collect::<BTreeSet<_>>().len()
    }

    /// Returns the accuracy of guessing, in percent.
    pub(crate) fn chance(&self) -> f64 {
        100.0 / self.tested() as f64
    }
}
