//! Features on disk: written down as they are extracted, mapped where they are read. An extraction that was stopped goes on where
//! it was.
//!
//! For each tap a folder has `TAP.npy`, `[image, patch, dim]`, `TAP.images.npy`, `[image, 2]` (each image's index in its data
//! set, and its class), and `TAP.json`, which says what they are features of and how far they have come. Python reads
//! the arrays by `numpy.load("embedding.npy", mmap_mode="r")`. Nothing may write into files that are complete: they
//! are mapped into the memory of whatever evaluates them. What is computed from them, such as means, goes to files
//! without a name in the same folder, so that it has to be one that can be written to.

pub mod npy;
mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use bagssl_core::batch::{PatchBatch, SourceError};
use bagssl_core::embed::{Embed, Tap};

use crate::error::{Error, Result, same_length};
use crate::features::Features;
use writer::Writer;

/// A folder of features.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a> {
    /// The folder. It is made if there is none.
    pub folder: &'a Path,
    /// All that the features depend on: what is there of something else is refused.
    pub of: &'a str,
}

impl Store<'_> {
    /// The features of all images at each of the taps, in the taps' order: those that are complete as they are, the others from
    /// `batches`, which is asked for the batches from an image on, in the order of the data set. `progress` hears how many images are done, at first those
    /// of an earlier extraction.
    ///
    /// # Errors
    /// Those of [`extract`](crate::features::extract): what was done before is kept, and gone on with by the next call.
    /// [`Error::File`] if the folder holds features of something else, taps of different images, arrays without their state, or
    /// another program works there; [`Error::Setting`] if batches are out of order, [`Error::Write`] if a file cannot be read or
    /// written.
    pub fn extract<B>(
        &self,
        network: &dyn Embed,
        batches: impl FnOnce(usize) -> B,
        taps: &[Tap],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Features>>
    where
        B: Iterator<Item = core::result::Result<PatchBatch, SourceError>>,
    {
        std::fs::create_dir_all(self.folder).map_err(|source| failed(self.folder, source))?;
        let _lock = self.lock()?;
        let mut missing = Vec::new();
        for &tap in taps {
            let writer = Writer::open(self, tap)?;
            if !writer.is_complete() && missing.iter().all(|other: &Writer| other.tap() != tap) {
                missing.push(writer);
            }
        }
        if !missing.is_empty() {
            fill(&mut missing, network, batches, progress)?;
        }
        let features = taps.iter().map(|&tap| Writer::open(self, tap)?.features()).collect::<Result<Vec<_>>>()?;
        let Some(first) = features.first() else { return Ok(features) };
        if let Some(other) = features.iter().find(|other| other.images() != first.images()) {
            let part = self.folder.join(other.tap().name()).display().to_string();
            let (expected, got) = (format!("the {} images of {}", first.len(), first.tap().name()), "others".into());
            return Err(Error::File { part, expected, got });
        }
        progress(first.len());
        Ok(features)
    }

    /// Keeps other programs out, until it is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|source| failed(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let (expected, got) = ("no other program at work there".into(), "one".into());
                Err(Error::File { part: self.folder.display().to_string(), expected, got })
            }
            Err(TryLockError::Error(source)) => Err(failed(&path, source)),
        }
    }
}

fn fill<B>(
    writers: &mut [Writer],
    network: &dyn Embed,
    batches: impl FnOnce(usize) -> B,
    progress: &mut dyn FnMut(usize),
) -> Result<()>
where
    B: Iterator<Item = core::result::Result<PatchBatch, SourceError>>,
{
    // A program that is stopped between two files leaves one ahead of the other.
    let first = writers.iter().map(Writer::next).min().unwrap_or(0);
    writers.iter_mut().try_for_each(|writer| writer.back_to(first))?;
    progress(writers[0].images());
    let taps: Vec<Tap> = writers.iter().map(Writer::tap).collect();
    for batch in batches(first) {
        let added = add(writers, network, batch, &taps);
        if let Err(error) = added {
            // The first error is the one to tell; what could not be saved is extracted again.
            let _ = writers.iter_mut().try_for_each(|writer| writer.save(false));
            return Err(error);
        }
        progress(writers[0].images());
    }
    if writers[0].images() == 0 {
        return Err(Error::Empty("images to embed"));
    }
    writers.iter_mut().try_for_each(|writer| writer.save(true))
}

fn add(
    writers: &mut [Writer],
    network: &dyn Embed,
    batch: core::result::Result<PatchBatch, SourceError>,
    taps: &[Tap],
) -> Result<()> {
    let batch = batch.map_err(Error::Source)?;
    let rows = network.embed(&batch, taps).map_err(Error::Network)?;
    same_length("taps of a network", taps.len(), rows.len())?;
    for (writer, rows) in writers.iter().zip(&rows) {
        writer.check(&batch, rows)?;
    }
    writers.iter_mut().zip(&rows).try_for_each(|(writer, rows)| writer.append(&batch, rows))
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Write { path: path.into(), source }
}

#[cfg(test)]
mod tests;
