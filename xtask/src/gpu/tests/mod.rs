//! Tests `run.sh` with a fake program, and pages from its results and from handwritten ones.

mod pages;
#[cfg(unix)]
mod runs;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder that is deleted when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("bagssl-gpu-{name}-{process}-{count}"));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leftovers remain in the system's temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
