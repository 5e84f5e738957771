//! Checks the layout of files in folders.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::circles;

/// The maximum number of Rust files in a folder of modules.
const MAX_FOLDER_FILES: usize = 12;

/// Returns the problems of the modules of these crates.
pub(super) fn check(root: &Path, crates: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in crates {
        let source = root.join(name).join("src");
        let mut files = Vec::new();
        for path in circles::rust_files(&source)? {
            files.push(path.strip_prefix(root)?.to_string_lossy().replace('\\', "/"));
        }
        found.extend(crowded(&files));
        found.extend(beside_their_folder(&files));
        let circles = circles::in_crate(&source)?;
        found.extend(circles.into_iter().map(|circle| format!("{name}: {circle}")));
    }
    Ok(found)
}

/// Returns folders with too many files.
fn crowded(files: &[String]) -> Vec<String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        *count.entry(file.rsplit_once('/').map_or("", |(folder, _)| folder)).or_default() += 1;
    }
    let large = count.into_iter().filter(|(_, files)| *files > MAX_FOLDER_FILES);
    large.map(|(folder, files)| format!("{folder}: {files} files, expected at most {MAX_FOLDER_FILES}")).collect()
}

/// Returns modules in a file next to the folder of their submodules. The convention here is
/// `folder/mod.rs`.
fn beside_their_folder(files: &[String]) -> Vec<String> {
    let has_folder = |file: &&String| {
        let folder = format!("{}/", file.trim_end_matches(".rs"));
        files.iter().any(|other| other.starts_with(&folder))
    };
    let beside = files.iter().filter(has_folder);
    beside.map(|file| format!("{file}: expected in its folder, as mod.rs")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowded_folders_are_found() {
        let files = |count: usize| (0..count).map(|file| format!("a/src/b/{file}.rs")).collect::<Vec<_>>();
        assert!(crowded(&files(MAX_FOLDER_FILES)).is_empty());
        assert_eq!(crowded(&files(MAX_FOLDER_FILES + 1)).len(), 1);
    }

    #[test]
    fn one_style_of_modules() {
        let files = ["a/src/b.rs", "a/src/b/c.rs", "a/src/d/mod.rs", "a/src/d/e.rs", "a/src/bc.rs"].map(String::from);
        assert_eq!(beside_their_folder(&files), ["a/src/b.rs: expected in its folder, as mod.rs"]);
    }
}
