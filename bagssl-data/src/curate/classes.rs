//! Comparison of the classes of two splits: which classes are evaluated, and which distort the
//! evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use unicode_normalization::UnicodeNormalization;

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// The classes of a training and a validation split, by name. Images without a class are in none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// Classes with images in both splits. Only these are evaluated.
    pub tested: Vec<String>,
    /// Classes without an image.
    pub empty: Vec<String>,
    /// Classes with training images only. They are not evaluated.
    pub train_only: Vec<String>,
    /// Classes with validation images only. They cannot be learned.
    pub validation_only: Vec<String>,
    /// Groups of names that differ only in Unicode form, case or spaces: perhaps one class in
    /// different spellings.
    #[serde(rename = "alike")]
    pub similar_names: Vec<Vec<String>>,
}

impl Classes {
    /// Compares the classes of two splits.
    pub fn compare(train: &Dataset, validation: &Dataset) -> Self {
        let [of_train, of_validation] = [train, validation].map(with_images);
        let names: BTreeSet<&str> = train.classes().iter().chain(validation.classes()).map(String::as_str).collect();
        let names: BTreeSet<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let mut classes = Classes { similar_names: similar_names(names.iter().copied()), ..Classes::default() };
        for name in names {
            let names_of_kind = match (of_train.contains(name), of_validation.contains(name)) {
                (true, true) => &mut classes.tested,
                (true, false) => &mut classes.train_only,
                (false, true) => &mut classes.validation_only,
                (false, false) => &mut classes.empty,
            };
            names_of_kind.push(name.into());
        }
        classes
    }

    /// Returns whether all classes have images in both splits, and no names are alike.
    pub fn is_consistent(&self) -> bool {
        let all = [&self.empty, &self.train_only, &self.validation_only];
        all.iter().all(|classes| classes.is_empty()) && self.similar_names.is_empty()
    }
}

/// Formats as `1 only in the validation split (owl); 2 without images (a, b)`.
impl fmt::Display for Classes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |names: &[String]| match names {
            [first, second, third, _, ..] => format!("{first}, {second}, {third}, .."),
            few => few.join(", "),
        };
        let mut parts = Vec::new();
        for (names, what) in [
            (&self.validation_only, "only in the validation split"),
            (&self.train_only, "only in the training split"),
            (&self.empty, "without images"),
        ] {
            if !names.is_empty() {
                parts.push(format!("{} {what} ({})", names.len(), some(names)));
            }
        }
        for names in self.similar_names.iter().take(3) {
            parts.push(format!("{names:?} differ only in Unicode form, case or spaces"));
        }
        out.write_str(&parts.join("; "))
    }
}

/// Returns the classes that have images.
fn with_images(dataset: &Dataset) -> BTreeSet<&str> {
    let labels: BTreeSet<u32> = (0..dataset.len()).map(|image| dataset.label(image)).collect();
    labels.into_iter().map(|label| dataset.classes()[label as usize].as_str()).collect()
}

/// Returns groups of names that differ only in Unicode form, case or spaces.
pub fn similar_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in names {
        let plain: String = name.nfkc().collect::<String>().to_lowercase();
        let key = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        groups.entry(key).or_default().push(name.into());
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

impl Dataset {
    /// Keeps only the images whose classes have images in `train`, because other classes cannot be
    /// learned from it. The list of classes stays the same.
    ///
    /// # Errors
    /// [`Error::Format`] if no image is left.
    pub fn keep_classes_of(self, train: &Dataset) -> Result<Self> {
        let known = with_images(train);
        let known: Vec<bool> = self.classes().iter().map(|class| known.contains(class.as_str())).collect();
        let kept: Vec<u32> =
            (0..self.len()).filter(|image| known[self.label(*image) as usize]).map(|image| image as u32).collect();
        if kept.is_empty() {
            let expected = "validation images of classes that have training images";
            return Err(Error::Format { path: self.origin().into(), expected, got: "none".into() });
        }
        Ok(if kept.len() == self.len() { self } else { self.select_images(&kept) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike() {
        // An accented e as one character and as two; a ligature.
        let names = ["caf\u{e9}", "cafe\u{301}", "Dog", "dog ", "dogs", "\u{fb01}sh", "fish"];
        let expected: [&[&str]; 3] = [&["caf\u{e9}", "cafe\u{301}"], &["Dog", "dog "], &["\u{fb01}sh", "fish"]];
        let mut found = similar_names(names);
        found.sort_by_key(|group| names.iter().position(|name| *name == group[0]));
        assert_eq!(found, expected);
        assert!(similar_names(["cafe", "caf\u{e9}"]).is_empty());
    }

    #[test]
    fn uneven_classes_are_told_in_a_line() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>();
        assert!(Classes { tested: names(&["a"]), ..Classes::default() }.is_consistent());
        let classes = Classes {
            empty: names(&["a", "b", "c", "d"]),
            validation_only: names(&["owl"]),
            similar_names: vec![names(&["Owl", "owl"])],
            ..Classes::default()
        };
        let expected = "1 only in the validation split (owl); 4 without images (a, b, c, ..); [\"Owl\", \"owl\"] \
                        differ only in Unicode form, case or spaces";
        assert_eq!(classes.to_string(), expected);
        assert!(!classes.is_consistent());
    }
}
