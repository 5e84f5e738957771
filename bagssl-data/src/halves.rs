//! Data sets in several files: which of them are which half's.

use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::folder;

/// A file under its name inside the data set.
pub(crate) type Named = (String, PathBuf);

/// The files of both halves, training first. A file's half is the first word of its name inside the data set that names one:
/// `train-000.tar` and `train/000.tar` are training's.
pub(crate) fn halves(files: &[Named]) -> [Vec<Named>; 2] {
    Split::ALL.map(|split| {
        let of = |folder: &str| -> Vec<Named> {
            files.iter().filter(|(name, _)| half(name) == Some(folder)).cloned().collect()
        };
        split.folders().iter().map(|folder| of(folder)).find(|files| !files.is_empty()).unwrap_or_default()
    })
}

/// The files of one half, of which there must be one.
pub(crate) fn half_of(halves: &[Vec<Named>; 2], split: Split, origin: &Path) -> Result<Vec<Named>> {
    let chosen = &halves[split as usize];
    if chosen.is_empty() {
        let expected = "files with train, and val, validation or test in their names";
        let got = format!("none with {}", split.folders().join(" or "));
        return Err(Error::Format { path: origin.into(), expected, got });
    }
    Ok(chosen.clone())
}

fn half(name: &str) -> Option<&'static str> {
    let is_word = |word: &str| Split::ALL.into_iter().flat_map(Split::folders).find(|folder| **folder == word).copied();
    name.split(|letter: char| !letter.is_alphanumeric()).find_map(is_word)
}

/// The files with this ending in a folder, in `data/` or in the folder of a half, in the order of their names.
pub(crate) fn files(root: &Path, ending: &str) -> Result<Vec<Named>> {
    let mut found = Vec::new();
    let folders = ["", "data"].into_iter().chain(Split::ALL.into_iter().flat_map(Split::folders).copied());
    for folder in folders.filter(|folder| root.join(folder).is_dir()) {
        for path in folder::list(&root.join(folder))? {
            if path.extension().is_some_and(|extension| extension == ending) && path.is_file() {
                let name = folder::text(&path)?;
                found.push((if folder.is_empty() { name } else { format!("{folder}/{name}") }, path));
            }
        }
    }
    Ok(found)
}

/// The files of a pattern with `{000..007}`, `{train,val}`, `*` and `?` in its last part.
///
/// # Errors
/// [`Error::Format`] if no file fits, or a brace is not closed; [`Error::Read`] if the folder cannot be read.
pub(crate) fn matching(pattern: &Path) -> Result<Vec<Named>> {
    let refuse =
        |got: &str| Error::Format { path: pattern.into(), expected: "a pattern that fits files", got: got.into() };
    let text = pattern.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("no name in UTF-8"))?;
    let patterns = expanded(text).ok_or_else(|| refuse("braces that are not closed or name too many files"))?;
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for path in folder::list(folder)? {
        let name = folder::text(&path)?;
        if path.is_file() && patterns.iter().any(|pattern| fits(pattern.as_bytes(), name.as_bytes())) {
            found.push((name, path));
        }
    }
    // A list of shards is a promise: one that is not there is not passed over.
    for pattern in patterns.iter().filter(|pattern| !pattern.contains(['*', '?'])) {
        if !found.iter().any(|(name, _)| name == pattern) {
            return Err(refuse(&format!("no {pattern}")));
        }
    }
    if found.is_empty() { Err(refuse("none")) } else { Ok(found) }
}

/// Whether a path is a pattern.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(['{', '*', '?']))
}

/// The texts that a text with braces stands for: at most so many.
fn expanded(text: &str) -> Option<Vec<String>> {
    const MOST: usize = 100_000;
    let Some((before, rest)) = text.split_once('{') else { return Some(vec![text.into()]) };
    let (inside, after) = rest.split_once('}')?;
    let choices: Vec<String> = match inside.split_once("..") {
        Some((first, last)) => {
            let (from, to): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            let width = first.len();
            (from <= to && to - from < MOST).then(|| (from..=to).map(|number| format!("{number:0width$}")).collect())?
        }
        None => inside.split(',').map(Into::into).collect(),
    };
    let rest = expanded(after)?;
    let count = choices.len().checked_mul(rest.len()).filter(|count| *count <= MOST)?;
    let mut all = Vec::with_capacity(count);
    for choice in choices {
        all.extend(rest.iter().map(|rest| format!("{before}{choice}{rest}")));
    }
    Some(all)
}

/// Whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut star) = (0, None);
    let mut place = 0;
    while place < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(&letter) if letter == b'?' || letter == name[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                // The last star takes a letter more.
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, place) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_and_stars() {
        assert_eq!(expanded("a-{08..10}.{x,y}").unwrap(), ["a-08.x", "a-08.y", "a-09.x", "a-09.y", "a-10.x", "a-10.y"]);
        assert_eq!(expanded("plain").unwrap(), ["plain"]);
        for wrong in ["{1..", "{5..1}", "{a..b}", "{0..100000}", "{0..999}{0..999}"] {
            assert_eq!(expanded(wrong), None, "{wrong}");
        }
        for (pattern, name, expected) in [
            ("*.tar", "x.tar", true),
            ("*a*.tar", "banana.tar", true),
            ("?-*", "a-", true),
            ("*.tar", "x.tar.gz", false),
            ("", "x", false),
            ("a?", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn words_of_names_say_the_half() {
        let named = |name: &str| (name.to_string(), PathBuf::from(name));
        let files = ["imagenet-train-000.tar", "data/test-0.parquet", "val/3.tar", "trainer.tar"].map(named);
        let [train, validation] = halves(&files);
        assert_eq!(train, [named("imagenet-train-000.tar")]);
        assert_eq!(validation, [named("val/3.tar")], "val comes before test");
        let error = half_of(&halves(&files[..1]), Split::Validation, Path::new("x")).unwrap_err().to_string();
        assert!(
            error.contains("x: expected files with train") && error.contains("none with val or validation"),
            "{error}"
        );
    }
}
