//! Whose files lie where a reproduction is to write.

use std::path::Path;

use anyhow::{Result, bail};

use super::stamp::{STAMP, StageStamp};
use crate::input::files;

/// Says that a reproduction has begun to write into a folder: what it would write over there is its own.
const BEGUN: &str = "begun";
const MARK: &[u8] = b"bagssl reproduce writes here\n";

/// Makes a folder that is a reproduction's from now on.
pub(super) fn begin(folder: &Path) -> Result<()> {
    files::make_folder(folder)?;
    if is_begun(folder) { Ok(()) } else { files::write(&folder.join(BEGUN), MARK) }
}

/// Refuses a folder with files of these names that no reproduction has written. `is_own` says that something else than a stamp or a
/// mark shows that one has.
pub(super) fn check(folder: &Path, names: &[&str], is_own: bool) -> Result<()> {
    if folder.symlink_metadata().is_ok() && !folder.is_dir() {
        bail!("{}: expected a folder to write to, got a file", folder.display());
    }
    if is_own || is_begun(folder) || StageStamp::read(folder).is_some() {
        return Ok(());
    }
    let is_there = |name: &&&str| folder.join(name).symlink_metadata().is_ok();
    match names.iter().chain(&[STAMP, BEGUN]).find(is_there) {
        Some(name) => bail!(
            "{}: expected a file of a reproduction or none, got another, which stays; choose another --out",
            folder.join(name).display()
        ),
        None => Ok(()),
    }
}

fn is_begun(folder: &Path) -> bool {
    std::fs::read(folder.join(BEGUN)).is_ok_and(|bytes| bytes == MARK)
}
