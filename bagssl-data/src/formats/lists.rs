//! Splits as lists of image files: `train.txt` and `val.txt`, or other names of the splits. Lists
//! take precedence over folders with these names.
//!
//! Each line is an image: its path relative to the list's folder (or an absolute path), a tab, and
//! its class. A line without a tab is an image whose class has an empty name. Empty lines are
//! ignored. In paths and classes, backslash, tab, line feed and carriage return are written as
//! `\\`, `\t`, `\n` and `\r`. Other control characters and those that change the direction of text
//! are written as `\u{1b}`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use bagssl_core::text;

use crate::error::{Error, Result};
use crate::file::{open_file, read_file};
use crate::format::Format;
use crate::formats::collector::Collector;
use crate::formats::split_folders::SplitFolders;
use crate::formats::walk;
use crate::ignored::{IgnoreReason, Ignored};
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;

/// The maximum size of a list in bytes: about ten million lines.
const LARGEST: u64 = 1 << 30;

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListEntry {
    /// The image's path, absolute or relative to the list's folder, with `/` between folders.
    pub path: String,
    /// The image's class; empty if it has none.
    pub class: String,
}

/// Formats a list.
pub fn print(images: &[ListEntry]) -> String {
    let line = |image: &ListEntry| match image.class.is_empty() {
        true => format!("{}\n", escaped(&image.path)),
        false => format!("{}\t{}\n", escaped(&image.path), escaped(&image.class)),
    };
    images.iter().map(line).collect()
}

/// Parses a list. Error messages name `origin`.
///
/// # Errors
/// [`Error::Format`] if the list is not UTF-8, has no image, or a line has no path, more than one
/// tab, or an unknown escape sequence.
pub fn parse(bytes: &[u8], origin: &Path) -> Result<Vec<ListEntry>> {
    Ok(numbered(bytes, origin)?.into_iter().map(|(_, image)| image).collect())
}

/// Parses a list like [`parse`], with the number of each image's line, from 1.
fn numbered(bytes: &[u8], origin: &Path) -> Result<Vec<(u64, ListEntry)>> {
    let refuse = |expected, got: String| Err(Error::Format { path: origin.into(), expected, got });
    let Ok(text) = std::str::from_utf8(bytes) else { return refuse("text in UTF-8", "other bytes".into()) };
    // Some editors write a byte order mark at the start of a text.
    let text = text.trim_start_matches('\u{feff}');
    let mut images = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let (path, class) = line.split_once('\t').unwrap_or((line, ""));
        if path.is_empty() || class.contains('\t') {
            return refuse(
                "a path, or a path, a tab and a class, in each line",
                format!("another format in line {}", number + 1),
            );
        }
        let (Some(path), Some(class)) = (unescaped(path), unescaped(class)) else {
            let expected = "only the escapes \\\\, \\t, \\n, \\r and \\u{..} (use / between folders)";
            return refuse(expected, format!("another escape in line {}", number + 1));
        };
        images.push((number as u64 + 1, ListEntry { path, class }));
    }
    if images.is_empty() {
        return refuse("a list of images", "none".into());
    }
    Ok(images)
}

fn escaped(text: &str) -> String {
    text::escaped(text)
}

fn unescaped(text: &str) -> Option<String> {
    let (mut plain, mut letters) = (String::with_capacity(text.len()), text.chars());
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'u' => {
                    let (code, rest) = letters.as_str().strip_prefix('{')?.split_once('}')?;
                    letters = rest.chars();
                    char::from_u32(u32::from_str_radix(code, 16).ok()?)?
                }
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(plain)
}

/// The list of each split, if it exists.
fn files(root: &Path) -> [Option<(&'static str, PathBuf)>; 2] {
    Split::ALL.map(|split| {
        let file = |folder: &&'static str| (*folder, root.join(format!("{folder}.txt")));
        split.folders().iter().map(file).find(|(_, path)| path.is_file())
    })
}

/// Returns the names of the lists in a folder.
pub(crate) fn names(root: &Path) -> Vec<String> {
    files(root).into_iter().flatten().map(|(folder, _)| format!("{folder}.txt")).collect()
}

/// Returns whether a folder is a data set of lists. Other programs write text files with the same
/// names. So if the folder also has folders of splits, the first line of one list must contain a
/// tab, or one of its first lines must name a file: some files of a list may be missing.
pub(crate) fn is_lists(root: &Path) -> Result<bool> {
    let found: Vec<PathBuf> = files(root).into_iter().flatten().map(|(_, path)| path).collect();
    if found.is_empty() || SplitFolders::find(root) == SplitFolders([None, None]) {
        return Ok(!found.is_empty());
    }
    for path in found {
        let mut start = Vec::new();
        let failed = |error| Error::Read { path: path.clone(), error };
        open_file(&path)?.take(MAX_LINE_BYTES).read_to_end(&mut start).map_err(failed)?;
        let text = String::from_utf8_lossy(&start);
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let is_file = |line: &str| unescaped(line).is_some_and(|line| root.join(line).is_file());
        let first = lines.next().unwrap_or_default();
        if first.contains('\t') || is_file(first) || lines.take(FIRST_LINES).any(is_file) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of bytes of a list in which its first line is searched.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// The number of further lines of which one may name a file.
const FIRST_LINES: usize = 63;

/// Opens one split of a folder with lists. No image may be in both lists. Images whose files are
/// missing are listed: decoding them fails. If all are missing, that is an error.
pub(crate) fn open(root: &Path, split: Split) -> Result<Index> {
    let mut collector = Collector::new(root);
    let (mut listed_names, mut absent, mut first) = (BTreeSet::new(), Vec::new(), None);
    let files = files(root);
    let Some((_, wanted)) = &files[split as usize] else {
        let got = format!("no {}", split.names(".txt"));
        return Err(Error::Format { path: root.into(), expected: "a list for each split: train.txt and val.txt", got });
    };
    let split_name = wanted.file_name().map(|name| name.to_string_lossy().into_owned());
    for (file_split, file) in Split::ALL.into_iter().zip(files) {
        let Some((folder, path)) = file else { continue };
        let bytes = read_file(&path, LARGEST)?;
        let images = numbered(&bytes, &path)?;
        let count = images.len();
        for (line, ListEntry { path: name, class }) in images {
            if !listed_names.insert(name.clone()) {
                let (expected, got) = ("each image listed once across both lists", format!("{name} twice"));
                return Err(Error::Format { path, expected, got });
            }
            collector.add_class(folder, &class);
            if file_split == split {
                let length = length(root, &name, &path)?.unwrap_or_else(|error| {
                    absent.push(line);
                    first.get_or_insert_with(|| format!("line {line}: {name:?}: {error}"));
                    0
                });
                collector.add(folder, &class, name, line, length);
            }
        }
        if file_split == split && absent.len() == count {
            let got = first.unwrap_or_default();
            return Err(Error::Format { path, expected: "image files", got });
        }
    }
    collector.add_ignored_outside(&unlisted(root, &listed_names));
    let index = collector.finish(split, Format::Lists, Storage::Files(root.into()))?;
    Ok(Index { split_name, absent, ..index })
}

/// The images in the folder of the lists that neither of them names.
fn unlisted(root: &Path, listed: &BTreeSet<String>) -> Ignored {
    // As others write paths: with `./` before them, from the root on, by way of a folder above.
    let is_odd =
        |name: &str| Path::new(name).is_absolute() || name.split('/').any(|part| matches!(part, "" | "." | ".."));
    let plain = |name: &str| -> PathBuf {
        let mut plain = PathBuf::new();
        for part in std::path::absolute(root.join(name)).unwrap_or_default().components() {
            match part {
                Component::ParentDir => drop(plain.pop()),
                part => plain.push(part),
            }
        }
        plain
    };
    let mut others: Option<BTreeSet<PathBuf>> = None;
    let mut ignored = Ignored::default();
    walk::visit_images(root, &mut |name| {
        if listed.contains(name) {
            return;
        }
        let odd = || listed.iter().filter(|name| is_odd(name)).map(|name| plain(name)).collect();
        if !others.get_or_insert_with(odd).contains(&plain(name)) && !root.join(name).is_dir() {
            ignored.add(IgnoreReason::Unlisted, name);
        }
    });
    ignored
}

/// The length of a file that a list names, or what the system says of a missing one.
fn length(root: &Path, name: &str, list: &Path) -> Result<std::io::Result<u64>> {
    let path = root.join(name);
    match fs::metadata(&path) {
        // As other programs write lists: `cat/1.jpg 0`.
        Err(_) if parted(name).any(|name| root.join(name).is_file()) => {
            let (expected, got) = ("a tab between a path and its class", format!("{name:?}"));
            Err(Error::Format { path: list.into(), expected, got })
        }
        Err(error) if !path.is_symlink() => Ok(Err(error)),
        Ok(meta) if meta.is_dir() => Err(Error::Format { path, expected: "an image file", got: "a folder".into() }),
        meta => Ok(Ok(walk::length(meta))),
    }
}

/// Returns the possible paths in a line that separates path and class with something other than a
/// tab.
fn parted(line: &str) -> impl Iterator<Item = &str> {
    [' ', ',', ';'].into_iter().filter_map(|letter| line.rsplit_once(letter)).map(|(path, _)| path.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn refused(text: &[u8], words: &str) {
        let error = parse(text, Path::new("train.txt")).unwrap_err().to_string();
        assert!(error.starts_with("train.txt: expected") && error.contains(words) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_list_by_hand() {
        let listed = |path: &str, class: &str| ListEntry { path: path.into(), class: class.into() };
        let images = parse(b"../p/a 1.jpg\tred fox\r\n\nb\\\\\\t.png\n", Path::new("x")).unwrap();
        assert_eq!(images, [listed("../p/a 1.jpg", "red fox"), listed("b\\\t.png", "")]);
        assert_eq!(parse(b"\xef\xbb\xbfa.png\tcat\r\n", Path::new("x")).unwrap(), [listed("a.png", "cat")]);
        refused(b"", "got none");
        refused(b"\n\n", "got none");
        refused(b"a.jpg\n\tcat\n", "line 2");
        refused(b"a.jpg\tcat\tdog\n", "line 1");
        refused(b"photos\\a.jpg\n", "escapes");
        refused(b"a\\", "escapes");
        refused(b"a\xff\n", "UTF-8");
    }

    proptest! {
        #[test]
        fn list_round_trip(images in prop::collection::vec(("[a-c\\\\\t\n\r\u{1b}\u{202e} /.]{1,6}", "[x\\\\\t\n\r\u{85} ]{0,4}"), 1..8)) {
            let images: Vec<ListEntry> = images.into_iter().map(|(path, class)| ListEntry { path, class }).collect();
            prop_assert_eq!(parse(print(&images).as_bytes(), Path::new("x")).unwrap(), images);
        }
    }
}
