//! Assignment of the files of a data set to splits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wildmatch::WildMatch;

use crate::error::{Error, Result};
use crate::formats::walk;
use crate::ignored::{IgnoreReason, Ignored};
use crate::split::Split;

/// The name of a file inside the data set, and its path.
pub(crate) type NamedPath = (String, PathBuf);

/// Files, assigned to splits.
#[derive(Debug, Default)]
pub(crate) struct AssignedFiles {
    /// The files of each split, training first.
    pub(crate) splits: [Vec<NamedPath>; 2],
    /// The ignored files.
    pub(crate) ignored: Ignored,
    /// A description of the files of the requested split.
    pub(crate) name: String,
    /// Whether no file name contains a split, so that all files are training files.
    pub(crate) is_unsplit: bool,
}

/// Assigns files to splits. The first word of a file's name that is the name of a split decides:
/// `train-000.tar` and `train/000.tar` are training files. If no name contains a split, all files
/// are training files. The requested split must have a file.
pub(crate) fn assign(files: &[NamedPath], split: Split, origin: &Path) -> Result<AssignedFiles> {
    let refuse = |expected, got| Err(Error::Format { path: origin.into(), expected, got });
    let mut splits = group_by_split(files);
    let (mut ignored, is_unsplit) = (Ignored::default(), splits.iter().all(Vec::is_empty));
    if is_unsplit {
        let is_near = |name: &str| words(name).any(|word| likely_split(word) == Some(Split::Validation));
        if let Some((name, _)) = files.iter().find(|(name, _)| is_near(name)) {
            return refuse(NAMES, format!("{name}, which may be one of the splits; rename it"));
        }
        splits[Split::Train as usize] = files.to_vec();
    }
    for (name, _) in files.iter().filter(|file| !splits.iter().flatten().any(|other| other == *file)) {
        ignored
            .add(if split_in_name(name).is_some() { IgnoreReason::UnusedSplit } else { IgnoreReason::NoSplit }, name);
    }
    let names = |files: &[NamedPath]| match files {
        [] => "none".into(),
        [(one, _)] => one.clone(),
        [(first, _), .., (last, _)] => format!("{first} to {last}"),
    };
    let chosen = &splits[split as usize];
    if chosen.is_empty() {
        let folder = origin.parent().filter(|_| is_pattern(origin));
        let advice = folder.map_or(String::new(), |folder| {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            format!(
                "; use a pattern that matches both splits, such as '{{train-{{000..146}},val-{{000..006}}}}.tar', \
                     or pass the folder {}",
                folder.display()
            )
        });
        return refuse(NAMES, format!("none with {}, but {}{advice}", split.names(""), names(files)));
    }
    let name = match chosen.len() {
        1 => names(chosen),
        count => format!("{count} files ({})", names(chosen)),
    };
    Ok(AssignedFiles { splits, ignored, name, is_unsplit })
}

const NAMES: &str = "files with train and files with val, validation or test in their names";

/// Returns the files of both splits, training first.
fn group_by_split(files: &[NamedPath]) -> [Vec<NamedPath>; 2] {
    Split::ALL.map(|split| {
        let of = |folder: &str| -> Vec<NamedPath> {
            files.iter().filter(|(name, _)| split_in_name(name) == Some(folder)).cloned().collect()
        };
        split.folders().iter().map(|folder| of(folder)).find(|files| !files.is_empty()).unwrap_or_default()
    })
}

/// Returns the name of a split that occurs in a file name as a word.
pub(crate) fn split_in_name(name: &str) -> Option<&'static str> {
    let is_word = |word: &str| Split::ALL.into_iter().flat_map(Split::folders).find(|folder| **folder == word).copied();
    words(name).find_map(is_word)
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|letter: char| !letter.is_alphanumeric())
}

/// Returns the split that the leading letters of a name may mean: `Train`, `val2017`, `dev`.
pub(crate) fn likely_split(name: &str) -> Option<Split> {
    let word: String = name.chars().take_while(|letter| letter.is_alphabetic()).flat_map(char::to_lowercase).collect();
    let others: [(Split, &[&str]); 2] = [
        (Split::Train, &["trn", "trainset"]),
        (Split::Validation, &["dev", "eval", "evaluation", "holdout", "testset", "tst", "validate"]),
    ];
    let is_it = |(split, more): &(Split, &[&str])| split.folders().iter().chain(*more).any(|known| *known == word);
    others.into_iter().find(is_it).map(|(split, _)| split)
}

/// Returns two folders with the same parent, at any depth, whose names look like those of both
/// splits. Images in such folders must not all be opened as training images.
pub(crate) fn find_split_folders<'a>(images: impl Iterator<Item = &'a str>) -> Option<[&'a str; 2]> {
    let mut found: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
    for name in images {
        for (end, _) in name.match_indices('/') {
            let folder = &name[..end];
            let (parent, part) = folder.rsplit_once('/').unwrap_or(("", folder));
            let Some(split) = likely_split(part) else { continue };
            let pair = found.entry(parent).or_default();
            pair[split as usize].get_or_insert(folder);
            if let [Some(train), Some(validation)] = *pair {
                return Some([train, validation]);
            }
        }
    }
    None
}

/// Returns the files with an extension in a folder, in its `data/` folder and in its folders of
/// splits, sorted by name within each folder.
pub(crate) fn files(root: &Path, ending: &str) -> Result<Vec<NamedPath>> {
    let mut found = Vec::new();
    let folders = ["", "data"].into_iter().chain(Split::ALL.into_iter().flat_map(Split::folders).copied());
    for folder in folders.filter(|folder| root.join(folder).is_dir()) {
        for path in walk::list(&root.join(folder))? {
            if path.extension().is_some_and(|extension| extension == ending) && path.is_file() {
                let name = walk::text(&path);
                found.push((if folder.is_empty() { name } else { format!("{folder}/{name}") }, path));
            }
        }
    }
    Ok(found)
}

/// Returns the files that match a pattern with `{000..007}`, `{train,val}`, `*` and `?` in its file
/// name.
///
/// # Errors
/// [`Error::Format`] if no file matches, a file that the braces name is missing, or a brace is not
/// closed. [`Error::Read`] if the folder cannot be read.
pub(crate) fn matching(pattern: &Path) -> Result<Vec<NamedPath>> {
    let refuse =
        |got: &str| Error::Format { path: pattern.into(), expected: "a pattern that matches files", got: got.into() };
    let text = pattern.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("no name in UTF-8"))?;
    let patterns = expanded(text).map_err(&refuse)?;
    let wild: Vec<WildMatch> = patterns.iter().map(|pattern| WildMatch::new(pattern)).collect();
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for path in walk::list(folder)? {
        let name = walk::text(&path);
        if path.is_file() && wild.iter().any(|pattern| pattern.matches(&name)) {
            found.push((name, path));
        }
    }
    // Files that are named explicitly must exist: a missing shard is an error.
    for pattern in patterns.iter().filter(|pattern| !pattern.contains(['*', '?'])) {
        if !found.iter().any(|(name, _)| name == pattern) {
            return Err(refuse(&format!("no {pattern}")));
        }
    }
    if found.is_empty() { Err(refuse("none")) } else { Ok(found) }
}

/// Returns whether a path is a pattern.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(['{', '*', '?']))
}

/// Expands braces, which may be nested as in a shell, to at most 100,000 texts.
///
/// This is our own: the crate bracoxide 0.1.8 panics on 89 of 5,000 random patterns and on names
/// that are not ASCII, and has no limit; brace-expand 0.1 knows no ranges (2026-11-28).
fn expanded(text: &str) -> std::result::Result<Vec<String>, &'static str> {
    const MAX_FILES: usize = 100_000;
    const TOO_MANY: &str = "braces that name more than 100000 files";
    let Some((before, rest)) = text.split_once('{') else { return Ok(vec![text.into()]) };
    let (parts, after) = parts(rest).ok_or("a brace that is not closed")?;
    let choices: Vec<String> = match parts[..] {
        [one] => {
            let (first, last) = one.split_once("..").ok_or("braces around one name (use {a,b} or {000..146})")?;
            let number = |text: &str| text.parse::<usize>().map_err(|_| "a range in braces that is not numeric");
            let (from, to, width) = (number(first)?, number(last)?, first.len());
            if from > to {
                return Err("a range in braces that ends before it begins");
            }
            if to - from >= MAX_FILES {
                return Err(TOO_MANY);
            }
            (from..=to).map(|number| format!("{number:0width$}")).collect()
        }
        _ => parts.iter().map(|part| expanded(part)).collect::<std::result::Result<Vec<_>, _>>()?.concat(),
    };
    let rest = expanded(after)?;
    choices.len().checked_mul(rest.len()).filter(|count| *count <= MAX_FILES).ok_or(TOO_MANY)?;
    let both = |choice: &String| rest.iter().map(|rest| format!("{before}{choice}{rest}")).collect::<Vec<_>>();
    Ok(choices.iter().flat_map(both).collect())
}

/// Splits the text after an opening brace at its top-level commas. Returns the parts and the text
/// after the closing brace.
fn parts(text: &str) -> Option<(Vec<&str>, &str)> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&text[start..at]);
                return Some((parts, &text[at + 1..]));
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_and_stars() {
        assert_eq!(expanded("a-{08..10}.{x,y}").unwrap(), ["a-08.x", "a-08.y", "a-09.x", "a-09.y", "a-10.x", "a-10.y"]);
        assert_eq!(expanded("{t-{0..1},v-{3..3}}.tar").unwrap(), ["t-0.tar", "t-1.tar", "v-3.tar"]);
        assert_eq!(expanded("plain").unwrap(), ["plain"]);
        for (wrong, why) in [
            ("{1..", "not closed"),
            ("{a,{b,c}", "not closed"),
            ("{5..1}", "ends before"),
            ("{a..b}", "not numeric"),
            ("{a}", "one name"),
            ("{0..100000}", "more than"),
            ("{0..999}{0..999}", "more than"),
        ] {
            assert!(expanded(wrong).unwrap_err().contains(why), "{wrong}");
        }
        for (pattern, name, expected) in [
            ("*.tar", "x.tar", true),
            ("*a*.tar", "banana.tar", true),
            ("?-*", "a-", true),
            ("*.tar", "x.tar.gz", false),
            ("", "x", false),
            ("a?", "a", false),
            ("?[1].tar", "é[1].tar", true),
        ] {
            assert_eq!(WildMatch::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    fn chosen(names: &[&str], split: Split) -> Result<AssignedFiles> {
        let files: Vec<NamedPath> = names.iter().map(|name| ((*name).into(), PathBuf::from(name))).collect();
        assign(&files, split, Path::new("x"))
    }

    #[test]
    fn split_in_name_by_words() {
        let names = ["imagenet-train-000.tar", "data/test-0.parquet", "val/3.tar", "trainer.tar", "training-1.tar"];
        let AssignedFiles { splits: [train, validation], ignored, name, .. } =
            chosen(&names, Split::Validation).unwrap();
        let first = |files: &[NamedPath]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (first(&train), first(&validation)),
            (vec![names[0].into()], vec![names[2].into()]),
            "val comes first"
        );
        assert_eq!(name, "val/3.tar");
        let expected = "2 images or files of an unused split (data/test-0.parquet, ..); 1 file without a split in its \
                        name (trainer.tar)";
        assert_eq!(ignored.to_string(), expected);
        let error = chosen(&names[..1], Split::Validation).unwrap_err().to_string();
        assert!(error.contains("x: expected files with train") && error.contains("none with val, valid"), "{error}");
    }

    #[test]
    fn likely_split_of_names() {
        for (name, split) in [
            ("Train", Some(Split::Train)),
            ("train2017", Some(Split::Train)),
            ("val_images", Some(Split::Validation)),
            ("DEV", Some(Split::Validation)),
            ("bullet_train", None),
            ("trainer", None),
            ("2017val", None),
        ] {
            assert_eq!(likely_split(name), split, "{name}");
        }
    }

    #[test]
    fn split_folders_are_found_at_any_depth() {
        let of = |names: &[&'static str]| find_split_folders(names.iter().copied());
        assert_eq!(of(&["a/b/Train/cat/1.png", "a/b/val2/1.png"]), Some(["a/b/Train", "a/b/val2"]));
        assert_eq!(
            of(&["a/train/1.png", "b/val/1.png", "train.png", "val.png"]),
            None,
            "of two parents, or no folders"
        );
    }

    #[test]
    fn unsplit_files_are_training_files() {
        let AssignedFiles { splits, name, .. } = chosen(&["0.tar", "1.tar"], Split::Train).unwrap();
        assert_eq!((splits.map(|files| files.len()), name.as_str()), ([2, 0], "2 files (0.tar to 1.tar)"));
        assert!(chosen(&["0.tar", "1.tar"], Split::Validation).is_err());
        for near in ["Test-0.tar", "dev/1.tar", "x-val2017.tar"] {
            let error = chosen(&["0.tar", near], Split::Train).unwrap_err().to_string();
            assert!(error.contains(near) && error.contains("rename it"), "{error}");
        }
    }
}
