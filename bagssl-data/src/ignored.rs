//! The files that a reader ignores, counted by reason with the first name of each, so that no
//! sample disappears silently.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// Why a file in a data set is not one of its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IgnoreReason {
    /// An image in an unsupported format, judged by its file extension: TIFF, HEIC and others.
    #[serde(rename = "unread-format")]
    UnsupportedFormat,
    /// A file without an image's extension.
    #[serde(rename = "no-image")]
    NoImageExtension,
    /// An image or folder whose name begins with a dot, or a folder that the operating system
    /// created.
    Hidden,
    /// An image directly in a split's folder, beside the folders of classes.
    NoClass,
    /// An image outside of both splits.
    Outside,
    /// An image in the folder of lists that neither of them names.
    Unlisted,
    /// A file in an unused folder of a split: in `test/` where `val/` is the validation split.
    #[serde(rename = "other-half")]
    UnusedSplit,
    /// A file of samples whose name contains no split.
    #[serde(rename = "no-half")]
    NoSplit,
    /// A file of a different layout than the detected one: a .tar beside `train/` and `val/`.
    OtherLayout,
    /// A file of a sample that is neither its image nor its class.
    Field,
    /// A broken symbolic link.
    DeadLink,
    /// Bytes after the last member of a tar.
    AfterEnd,
}

impl IgnoreReason {
    /// Returns the description for `count` files.
    fn text(self, count: u64) -> &'static str {
        let (one, many) = match self {
            IgnoreReason::UnsupportedFormat => ("image in an unsupported format", "images in unsupported formats"),
            IgnoreReason::NoImageExtension => ("file without an image extension", "files without an image extension"),
            IgnoreReason::Hidden => ("hidden image or folder", "hidden images or folders"),
            IgnoreReason::NoClass => ("image outside the class folders", "images outside the class folders"),
            IgnoreReason::Outside => ("image outside the splits", "images outside the splits"),
            IgnoreReason::Unlisted => ("unlisted image", "unlisted images"),
            IgnoreReason::UnusedSplit => ("image or file of an unused split", "images or files of an unused split"),
            IgnoreReason::NoSplit => ("file without a split in its name", "files without a split in their names"),
            IgnoreReason::OtherLayout => ("file of another layout", "files of another layout"),
            IgnoreReason::Field => ("extra file of a sample", "extra files of samples"),
            IgnoreReason::DeadLink => ("broken link", "broken links"),
            IgnoreReason::AfterEnd => ("byte after the end of a tar", "bytes after the end of a tar"),
        };
        if count == 1 { one } else { many }
    }
}

/// The ignored files of a data set, counted by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored(BTreeMap<IgnoreReason, Count>);

/// The number of files of one reason, and the name of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Count {
    count: u64,
    first: String,
    /// Whether `count` is a lower bound.
    is_lower_bound: bool,
}

impl Ignored {
    /// Returns whether no file was ignored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the total count over all reasons. Bytes after the end of a tar count as one.
    pub fn total(&self) -> u64 {
        let count =
            |(reason, tally): (&IgnoreReason, &Count)| if *reason == IgnoreReason::AfterEnd { 1 } else { tally.count };
        self.0.iter().map(count).sum()
    }

    /// Returns the count of one reason.
    pub fn count(&self, reason: IgnoreReason) -> u64 {
        self.0.get(&reason).map_or(0, |tally| tally.count)
    }

    pub(crate) fn add(&mut self, reason: IgnoreReason, name: impl Into<String>) {
        self.add_many(reason, 1, name);
    }

    pub(crate) fn add_many(&mut self, reason: IgnoreReason, count: u64, name: impl Into<String>) {
        if count > 0 {
            let tally =
                self.0.entry(reason).or_insert_with(|| Count { count: 0, first: name.into(), is_lower_bound: false });
            tally.count += count;
        }
    }

    /// Marks the count of a reason as a lower bound.
    pub(crate) fn mark_lower_bound(&mut self, reason: IgnoreReason) {
        if let Some(tally) = self.0.get_mut(&reason) {
            tally.is_lower_bound = true;
        }
    }

    /// Adds the counts of `other`.
    pub fn join(&mut self, other: &Self) {
        for (reason, Count { count, first, is_lower_bound }) in &other.0 {
            self.add_many(*reason, *count, first);
            if *is_lower_bound {
                self.mark_lower_bound(*reason);
            }
        }
    }
}

/// Formats as
/// `3 hidden images or folders (train/cat/._0.jpg, ..); 1 broken link (train/owl)`.
impl fmt::Display for Ignored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (reason, Count { count, first, is_lower_bound })) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            let at_least = if *is_lower_bound { "at least " } else { "" };
            let more = if *count == 1 || *reason == IgnoreReason::AfterEnd { "" } else { ", .." };
            write!(out, "{separator}{at_least}{count} {} ({first}{more})", reason.text(*count))?;
        }
        Ok(())
    }
}

/// Serializes as a list of reasons with their counts and first names.
impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            reason: IgnoreReason,
            count: u64,
            first: &'a str,
        }
        serializer.collect_seq(self.0.iter().map(|(&reason, Count { count, first, .. })| Line {
            reason,
            count: *count,
            first,
        }))
    }
}

/// The kind of a file, judged by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Image,
    /// A file that a user may have meant as an image.
    Ignored(IgnoreReason),
    /// A file of the operating system, or a hidden file that is not an image.
    System,
}

/// Returns the kind of a file by its name, which may include folders.
pub(crate) fn file_kind(name: &str) -> FileKind {
    let file = name.rsplit('/').next().unwrap_or(name);
    let ending = file.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_ascii_lowercase());
    let is_hidden = name.split('/').any(is_hidden);
    match ending.as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "webp" | "bmp" | "gif" => {
            if is_hidden {
                FileKind::Ignored(IgnoreReason::Hidden)
            } else {
                FileKind::Image
            }
        }
        _ if is_hidden || matches!(file, "Thumbs.db" | "desktop.ini") => FileKind::System,
        "tif" | "tiff" | "heic" | "heif" | "avif" | "jxl" | "jp2" | "j2k" | "ppm" | "pgm" | "pbm" | "pnm" | "tga"
        | "dds" | "exr" | "hdr" | "ico" | "psd" | "svg" | "dng" | "cr2" | "cr3" | "nef" | "arw" | "orf" | "rw2"
        | "dcm" => FileKind::Ignored(IgnoreReason::UnsupportedFormat),
        _ => FileKind::Ignored(IgnoreReason::NoImageExtension),
    }
}

/// Returns whether a file name belongs to an image in a supported format.
pub(crate) fn is_image(name: &str) -> bool {
    file_kind(name) == FileKind::Image
}

/// Returns whether a single path component names a hidden or system file or folder.
pub(crate) fn is_hidden(name: &str) -> bool {
    const SYSTEM_FILES: [&str; 7] =
        ["__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"];
    (name.starts_with('.') && !matches!(name, "." | "..")) || SYSTEM_FILES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_files_are() {
        for (name, expected) in [
            ("a/b.JPG", FileKind::Image),
            ("./b.jfif", FileKind::Image),
            ("x 2.0 (clean).jpe", FileKind::Image),
            ("a/c.tiff", FileKind::Ignored(IgnoreReason::UnsupportedFormat)),
            ("notes.txt", FileKind::Ignored(IgnoreReason::NoImageExtension)),
            ("jpg", FileKind::Ignored(IgnoreReason::NoImageExtension)),
            ("a/._b.jpg", FileKind::Ignored(IgnoreReason::Hidden)),
            ("@eaDir/b.jpg", FileKind::Ignored(IgnoreReason::Hidden)),
            (".DS_Store", FileKind::System),
            ("a/Thumbs.db", FileKind::System),
        ] {
            assert_eq!(file_kind(name), expected, "{name}");
        }
    }

    #[test]
    fn ignored_files_in_one_line() {
        let mut ignored = Ignored::default();
        assert!(ignored.is_empty() && ignored.to_string().is_empty());
        ignored.add(IgnoreReason::Hidden, "b");
        ignored.add(IgnoreReason::Hidden, "c");
        ignored.add(IgnoreReason::UnsupportedFormat, "a.tif");
        ignored.add_many(IgnoreReason::AfterEnd, 512, "x.tar");
        ignored.add_many(IgnoreReason::Outside, 0, "nothing");
        let mut both = Ignored::default();
        both.add(IgnoreReason::Hidden, "a");
        both.join(&ignored);
        both.mark_lower_bound(IgnoreReason::Hidden);
        let expected = "1 image in an unsupported format (a.tif); at least 3 hidden images or folders (a, ..); 512 \
                        bytes after the end of a tar (x.tar)";
        assert_eq!(both.to_string(), expected);
        assert_eq!((both.total(), both.count(IgnoreReason::Hidden), both.count(IgnoreReason::Outside)), (5, 3, 0));
        let json = serde_json::to_value(&ignored).unwrap();
        assert_eq!(json[1], serde_json::json!({"reason": "hidden", "count": 2, "first": "b"}));
    }
}
