//! The files that a reader ignores, counted by reason with the first name of each, so that no
//! sample disappears silently.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// Why a file in a data set is not one of its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// An image in an unsupported format, judged by its file extension: TIFF, HEIC and others.
    UnreadFormat,
    /// A file without an image's extension.
    NoImage,
    /// An image or folder whose name begins with a dot, or a folder that the operating system
    /// created.
    Hidden,
    /// An image directly in a split's folder, beside the folders of classes.
    NoClass,
    /// An image outside of both splits.
    Outside,
    /// An image in the folder of lists that neither of them names.
    Unlisted,
    /// What lies under another name of a half, where one that comes first is there: `test/` beside `val/`.
    OtherHalf,
    /// A file of samples whose name contains no split.
    NoHalf,
    /// A file of a different layout than the detected one: a .tar beside `train/` and `val/`.
    OtherLayout,
    /// A file of a sample that is neither its image nor its class.
    Field,
    /// A broken symbolic link.
    DeadLink,
    /// Bytes after the last member of a tar.
    AfterEnd,
}

impl Reason {
    /// Returns the description for `count` files.
    fn text(self, count: u64) -> &'static str {
        let (one, many) = match self {
            Reason::UnreadFormat => ("image in an unsupported format", "images in unsupported formats"),
            Reason::NoImage => ("file without an image extension", "files without an image extension"),
            Reason::Hidden => ("hidden image or folder", "hidden images or folders"),
            Reason::NoClass => ("image outside the class folders", "images outside the class folders"),
            Reason::Outside => ("image outside the splits", "images outside the splits"),
            Reason::Unlisted => ("unlisted image", "unlisted images"),
            Reason::OtherHalf => ("image or file of an unused split", "images or files of an unused split"),
            Reason::NoHalf => ("file without a split in its name", "files without a split in their names"),
            Reason::OtherLayout => ("file of another layout", "files of another layout"),
            Reason::Field => ("extra file of a sample", "extra files of samples"),
            Reason::DeadLink => ("broken link", "broken links"),
            Reason::AfterEnd => ("byte after the end of a tar", "bytes after the end of a tar"),
        };
        if count == 1 { one } else { many }
    }
}

/// The ignored files of a data set, counted by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedOver(BTreeMap<Reason, Tally>);

/// The number of files of one reason, and the name of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tally {
    count: u64,
    first: String,
    /// Whether `count` is a lower bound.
    is_open: bool,
}

impl PassedOver {
    /// Returns whether no file was ignored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the total count over all reasons. Bytes after the end of a tar count as one.
    pub fn total(&self) -> u64 {
        let count = |(reason, tally): (&Reason, &Tally)| if *reason == Reason::AfterEnd { 1 } else { tally.count };
        self.0.iter().map(count).sum()
    }

    /// Returns the count of one reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.0.get(&reason).map_or(0, |tally| tally.count)
    }

    pub(crate) fn add(&mut self, reason: Reason, name: impl Into<String>) {
        self.add_many(reason, 1, name);
    }

    pub(crate) fn add_many(&mut self, reason: Reason, count: u64, name: impl Into<String>) {
        if count > 0 {
            let tally = self.0.entry(reason).or_insert_with(|| Tally { count: 0, first: name.into(), is_open: false });
            tally.count += count;
        }
    }

    /// Marks the count of a reason as a lower bound.
    pub(crate) fn set_open(&mut self, reason: Reason) {
        if let Some(tally) = self.0.get_mut(&reason) {
            tally.is_open = true;
        }
    }

    /// Adds the counts of `other`.
    pub fn join(&mut self, other: &Self) {
        for (reason, Tally { count, first, is_open }) in &other.0 {
            self.add_many(*reason, *count, first);
            if *is_open {
                self.set_open(*reason);
            }
        }
    }
}

/// Formats as
/// `3 hidden images or folders (train/cat/._0.jpg, ..); 1 broken link (train/owl)`.
impl fmt::Display for PassedOver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (reason, Tally { count, first, is_open })) in self.0.iter().enumerate() {
            let between = if place == 0 { "" } else { "; " };
            let least = if *is_open { "at least " } else { "" };
            let more = if *count == 1 || *reason == Reason::AfterEnd { "" } else { ", .." };
            write!(out, "{between}{least}{count} {} ({first}{more})", reason.text(*count))?;
        }
        Ok(())
    }
}

/// Serializes as a list of reasons with their counts and first names.
impl Serialize for PassedOver {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            reason: Reason,
            count: u64,
            first: &'a str,
        }
        serializer.collect_seq(self.0.iter().map(|(&reason, Tally { count, first, .. })| Line {
            reason,
            count: *count,
            first,
        }))
    }
}

/// The kind of a file, judged by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Image,
    /// A file that a user may have meant as an image.
    Passed(Reason),
    /// A file of the operating system, or a hidden file that is not an image.
    Nothing,
}

/// Returns the kind of a file by its name, which may include folders.
pub(crate) fn named(name: &str) -> Named {
    let file = name.rsplit('/').next().unwrap_or(name);
    let ending = file.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_ascii_lowercase());
    let is_hidden = name.split('/').any(is_hidden);
    match ending.as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "webp" | "bmp" | "gif" => {
            if is_hidden {
                Named::Passed(Reason::Hidden)
            } else {
                Named::Image
            }
        }
        _ if is_hidden || matches!(file, "Thumbs.db" | "desktop.ini") => Named::Nothing,
        "tif" | "tiff" | "heic" | "heif" | "avif" | "jxl" | "jp2" | "j2k" | "ppm" | "pgm" | "pbm" | "pnm" | "tga"
        | "dds" | "exr" | "hdr" | "ico" | "psd" | "svg" | "dng" | "cr2" | "cr3" | "nef" | "arw" | "orf" | "rw2"
        | "dcm" => Named::Passed(Reason::UnreadFormat),
        _ => Named::Passed(Reason::NoImage),
    }
}

/// Returns whether a file name belongs to an image in a supported format.
pub(crate) fn is_image(name: &str) -> bool {
    named(name) == Named::Image
}

/// Returns whether a single path component names a hidden or system file or folder.
pub(crate) fn is_hidden(name: &str) -> bool {
    const OF_SYSTEMS: [&str; 7] =
        ["__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"];
    (name.starts_with('.') && !matches!(name, "." | "..")) || OF_SYSTEMS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_files_are() {
        for (name, expected) in [
            ("a/b.JPG", Named::Image),
            ("./b.jfif", Named::Image),
            ("x 2.0 (clean).jpe", Named::Image),
            ("a/c.tiff", Named::Passed(Reason::UnreadFormat)),
            ("notes.txt", Named::Passed(Reason::NoImage)),
            ("jpg", Named::Passed(Reason::NoImage)),
            ("a/._b.jpg", Named::Passed(Reason::Hidden)),
            ("@eaDir/b.jpg", Named::Passed(Reason::Hidden)),
            (".DS_Store", Named::Nothing),
            ("a/Thumbs.db", Named::Nothing),
        ] {
            assert_eq!(named(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_passed_over_is_told_in_a_line() {
        let mut passed = PassedOver::default();
        assert!(passed.is_empty() && passed.to_string().is_empty());
        passed.add(Reason::Hidden, "b");
        passed.add(Reason::Hidden, "c");
        passed.add(Reason::UnreadFormat, "a.tif");
        passed.add_many(Reason::AfterEnd, 512, "x.tar");
        passed.add_many(Reason::Outside, 0, "nothing");
        let mut both = PassedOver::default();
        both.add(Reason::Hidden, "a");
        both.join(&passed);
        both.set_open(Reason::Hidden);
        let expected = "1 image in an unsupported format (a.tif); at least 3 hidden images or folders (a, ..); 512 \
                        bytes after the end of a tar (x.tar)";
        assert_eq!(both.to_string(), expected);
        assert_eq!((both.total(), both.count(Reason::Hidden), both.count(Reason::Outside)), (5, 3, 0));
        let json = serde_json::to_value(&passed).unwrap();
        assert_eq!(json[1], serde_json::json!({"reason": "hidden", "count": 2, "first": "b"}));
    }
}
