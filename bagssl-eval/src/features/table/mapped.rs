//! A file of numbers, mapped into memory: pages are read when they are looked at, and given up when memory is short.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// The numbers of a file, in this machine's byte order. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    /// Nothing where there is no number: an empty range cannot be mapped everywhere.
    map: Option<Arc<Mmap>>,
    folder: Arc<Path>,
}

impl Mapped {
    /// Maps what comes after `header` bytes of a file in `folder`.
    pub(crate) fn new(file: &File, header: u64, folder: &Path) -> Result<Self> {
        let length = file.metadata()?.len().saturating_sub(header);
        if !length.is_multiple_of(4) || !header.is_multiple_of(4) {
            return Err(Error::new(ErrorKind::InvalidData, format!("expected values of 4 bytes, got {length} bytes")));
        }
        let length = usize::try_from(length).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
        let map = if length == 0 { None } else { Some(Arc::new(map(file, header, length)?)) };
        Ok(Mapped { map, folder: folder.into() })
    }

    /// Where the file is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

#[allow(unsafe_code, reason = "the contents of a mapped file are outside what the compiler can know")]
fn map(file: &File, header: u64, length: usize) -> Result<Mmap> {
    // SAFETY: the bytes must not change while they are mapped. Files without a name are this process's alone. Those of a
    // `store` are complete and never written to again by this project; a program that writes into them meanwhile breaks
    // this, as the store's documentation says.
    unsafe { MmapOptions::new().offset(header).len(length).map(file) }
}

impl Deref for Mapped {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // A map begins at a page and at a multiple of 4 from there on, and holds a multiple of 4 bytes.
        self.map.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }
}
