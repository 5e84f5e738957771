//! The train/validation split of a data set to evaluate on.

use anyhow::Result;
use bagssl::Splits;
use bagssl_data::Split;

use crate::input::source::{DataArgs, check_labels};
use crate::terminal::output::{note_once, one_line};

/// Opens both splits. Prints to standard error what was opened, and which classes are not tested.
pub(crate) fn open(data: &DataArgs) -> Result<Splits> {
    let (train, test) = (data.read(Split::Train)?, data.read(Split::Validation)?);
    data.report(&[&train, &test]);
    for (split, name) in [(&train, "training"), (&test, "validation")] {
        check_labels(split, name, data)?;
    }
    let splits = Splits::new(train, test)?;
    if !splits.classes.is_consistent() {
        let line = one_line(&format!("classes: {}", splits.classes));
        let skipped = match splits.untested_images {
            0 => String::new(),
            1 => "; 1 image without training images of its class is not tested".into(),
            count => format!("; {count} images without training images of their class are not tested"),
        };
        note_once(&format!("data: {line}{skipped}"));
    }
    Ok(splits)
}
