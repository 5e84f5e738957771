//! Checks whether existing files belong to a reproduction.

use std::path::Path;

use anyhow::{Result, bail};

use super::stamp::{STAMP, StageStamp};
use crate::input::files;

/// The mark of a folder that a reproduction has started to write to, and may overwrite.
const MARKER_FILE: &str = "begun";
const MARK: &[u8] = b"bagssl reproduce writes here\n";

/// Creates a folder and marks it as a reproduction's.
pub(super) fn begin(folder: &Path) -> Result<()> {
    files::make_folder(folder)?;
    if has_marker(folder) { Ok(()) } else { files::write(&folder.join(MARKER_FILE), MARK) }
}

/// Checks that a folder has no files with these names from another source. `is_own` states that
/// other evidence than a stamp or a mark shows that they are a reproduction's.
pub(super) fn check(folder: &Path, names: &[&str], is_own: bool) -> Result<()> {
    if folder.symlink_metadata().is_ok() && !folder.is_dir() {
        bail!("{}: expected a folder to write to, got a file", folder.display());
    }
    if is_own || has_marker(folder) || StageStamp::read(folder).is_some() {
        return Ok(());
    }
    let is_there = |name: &&&str| folder.join(name).symlink_metadata().is_ok();
    match names.iter().chain(&[STAMP, MARKER_FILE]).find(is_there) {
        Some(name) => bail!(
            "{}: expected a file of a reproduction or none, got another; choose another --out",
            folder.join(name).display()
        ),
        None => Ok(()),
    }
}

fn has_marker(folder: &Path) -> bool {
    std::fs::read(folder.join(MARKER_FILE)).is_ok_and(|bytes| bytes == MARK)
}
