//! A memory-mapped file of numbers. The system loads pages on access, and evicts them when memory
//! is short.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// The numbers of a file in native byte order. Clones share the mapping.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    /// `None` without numbers: not every system can map an empty range.
    map: Option<Arc<Mmap>>,
    folder: Arc<Path>,
}

impl Mapped {
    /// Maps the numbers after the first `header` bytes of a file in `folder`.
    pub(crate) fn new(file: &File, header: u64, folder: &Path) -> Result<Self> {
        let length = file.metadata()?.len().saturating_sub(header);
        if !length.is_multiple_of(4) || !header.is_multiple_of(4) {
            return Err(Error::new(ErrorKind::InvalidData, format!("expected values of 4 bytes, got {length} bytes")));
        }
        let length = usize::try_from(length).map_err(|_| Error::from(ErrorKind::OutOfMemory))?;
        let map = if length == 0 { None } else { Some(Arc::new(map(file, header, length)?)) };
        Ok(Mapped { map, folder: folder.into() })
    }

    /// The folder of the file.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

#[allow(unsafe_code, reason = "the contents of a mapped file are outside what the compiler can know")]
fn map(file: &File, header: u64, length: usize) -> Result<Mmap> {
    // SAFETY: the bytes must not change while they are mapped. Anonymous files are private to this
    // process. This project never writes to the complete files of a `FeatureCache`. Another program
    // that writes to them violates this requirement, as the documentation of the cache says.
    unsafe { MmapOptions::new().offset(header).len(length).map(file) }
}

impl Deref for Mapped {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // A mapping starts at a page boundary plus a multiple of 4 bytes, and its length is a
        // multiple of 4.
        self.map.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }
}
