//! Features on disk: written as they are extracted, and memory-mapped for reading. Interrupted
//! extractions resume.
//!
//! For each layer, a folder has three files. `LAYER.npy` is `[image, patch, dim]`.
//! `LAYER.images.npy` is `[image, 2]`, with each image's index in its data set and its class.
//! `LAYER.json` has the identity of the features and the progress of the extraction. Python reads
//! the arrays with `numpy.load("embedding.npy", mmap_mode="r")`.
//!
//! Each call reads the arrays once to detect changes since they were written: `LAYER.json` has
//! digests of their 16 MiB blocks, and of itself. No program may write to complete files, because
//! evaluations map them into memory. Results computed from them, such as means, are stored in
//! anonymous files in the same folder, so the folder must be writable.

// Circle: `FeatureCache` is defined here, and its writer is in a file of its own.

mod digest;
pub(crate) mod npy;
mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bagssl_core::batch::{PatchBatch, SourceError};
use bagssl_core::embed::{Embed, FeatureLayer, InFlight, Rows};
use bagssl_files::{check_regular, remove_partial};

use crate::error::{Error, Result, same_length};
use crate::features::Features;
use writer::Writer;

/// Who extracts has it locked; its time is that of the last work with the folder.
const LOCK: &str = "lock";

/// A folder of features.
#[derive(Debug, Clone, Copy)]
pub struct FeatureCache<'a> {
    /// The folder. It is created if it does not exist.
    pub folder: &'a Path,
    /// The identity of the features: a text of everything they depend on. Features with another
    /// identity are refused.
    pub identity: &'a str,
    /// The location of the images, for [`cached_features`]. It is not part of the identity, as images may be
    /// moved.
    pub location: &'a str,
}

/// The identity of features in a folder, or of features to be extracted to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Everything that the features depend on: [`FeatureCache::identity`].
    pub identity: String,
    /// The location of the images: [`FeatureCache::location`].
    pub location: String,
    /// When somebody last worked with them.
    pub last_used: SystemTime,
}

/// Lists the features in the subfolders of a folder. Skips unreadable ones.
pub fn cached_features(folder: &Path) -> Vec<CacheEntry> {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter_map(|folder| writer::entry_of(&folder)).collect()
}

impl FeatureCache<'_> {
    /// Returns the features of all images at each layer in `layers`, in that order. Complete features
    /// are read from disk, others are extracted from `batches`. `batches` is called with the index
    /// of an image and returns the batches from it on, in the order of the data set. A batch passes
    /// through the network only for the layers that lack it. `progress` is called with the number
    /// of images done, starting with those of earlier extractions. Waits if another process is
    /// extracting to the folder.
    ///
    /// # Errors
    /// The errors of [`extract`](crate::features::extract); finished images are stored, and the
    /// next call resumes after them. [`Error::File`] if the folder contains features with another
    /// identity, damaged features, layers with different images, or arrays without their state.
    /// [`Error::Setting`] if batches are out of order. [`Error::Write`] if a file cannot be read or
    /// written.
    pub fn extract<B>(
        &self,
        network: &dyn Embed,
        batches: impl FnOnce(usize) -> B,
        layers: &[FeatureLayer],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Features>>
    where
        B: Iterator<Item = core::result::Result<PatchBatch, SourceError>>,
    {
        bagssl_files::create_folder(self.folder).map_err(|source| failed(self.folder, source))?;
        let _lock = self.lock()?;
        remove_partial(self.folder).map_err(|source| failed(self.folder, source))?;
        let (mut complete, mut missing): (Vec<Writer>, Vec<Writer>) = Default::default();
        for &layer in layers {
            if complete.iter().chain(&missing).all(|writer| writer.layer() != layer) {
                let writer = Writer::open(self, layer)?;
                if writer.is_complete() { complete.push(writer) } else { missing.push(writer) }
            }
        }
        if !missing.is_empty() {
            fill(&mut missing, network, batches, progress)?;
            complete.append(&mut missing);
        }
        let mut features_of = |&layer: &FeatureLayer| {
            let writer = complete.iter_mut().find(|writer| writer.layer() == layer);
            writer.expect("each tap has been opened").features()
        };
        let features = layers.iter().map(&mut features_of).collect::<Result<Vec<_>>>()?;
        let Some(first) = features.first() else { return Ok(features) };
        if let Some(other) = features.iter().find(|other| other.images() != first.images()) {
            let part = self.folder.join(other.layer().name()).display().to_string();
            let (expected, got) = (format!("the {} images of {}", first.len(), first.layer().name()), "others".into());
            return Err(Error::File { part, expected, got });
        }
        progress(first.len());
        Ok(features)
    }

    /// Returns whether another process is currently extracting to the folder.
    pub fn is_in_use(&self) -> bool {
        let open = || check_regular(&self.lock_path()).and_then(|()| File::open(self.lock_path()));
        open().is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Locks the folder until the result is dropped. Waits for other processes.
    fn lock(&self) -> Result<File> {
        let path = self.lock_path();
        check_regular(&path).map_err(|source| failed(&path, source))?;
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|source| failed(&path, source))?;
        file.lock().map_err(|source| failed(&path, source))?;
        // Where a file system keeps no times, nothing is said of what came before.
        let _ = file.set_modified(SystemTime::now());
        Ok(file)
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join(LOCK)
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
    let next = writers.iter().map(Writer::next).min().unwrap_or(0);
    progress(completed(writers));
    let mut extraction = Extraction { writers, in_flight: InFlight::new(network), next };
    let extracted = batches(next).try_for_each(|batch| extraction.begin(batch, progress));
    // Batches in flight are completed, even if the source of batches has failed.
    let finished = extraction.finish(progress);
    if let Err(error) = extracted.and(finished) {
        // Report the first error. Images that could not be saved are extracted again.
        let _ = writers.iter_mut().try_for_each(|writer| writer.save(false));
        return Err(error);
    }
    if completed(writers) == 0 {
        return Err(Error::Empty("images to embed"));
    }
    writers.iter_mut().try_for_each(|writer| writer.save(true))
}

/// Returns the number of images that all layers have.
fn completed(writers: &[Writer]) -> usize {
    writers.iter().map(Writer::images).min().unwrap_or(0)
}

/// An extraction in progress, which appends batches to the layers that lack them.
struct Extraction<'a> {
    writers: &'a mut [Writer],
    in_flight: InFlight<'a, (PatchBatch, Vec<FeatureLayer>)>,
    next: usize,
}

impl Extraction<'_> {
    fn begin(
        &mut self,
        batch: core::result::Result<PatchBatch, SourceError>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let batch = batch.map_err(Error::Source)?;
        let [first, last] = image_range(&batch, self.next)?;
        let mut layers = Vec::new();
        for writer in self.writers.iter_mut().filter(|writer| writer.next() <= last) {
            // An earlier extraction may have stopped within this batch.
            writer.truncate_to(first)?;
            layers.push(writer.layer());
        }
        if !layers.is_empty() {
            let pending = (batch.clone(), layers.clone());
            if let Some(oldest) = self.in_flight.begin(pending, &batch, &layers).map_err(Error::Network)? {
                self.add(oldest, progress)?;
            }
        }
        self.next = last + 1;
        Ok(())
    }

    fn finish(&mut self, progress: &mut dyn FnMut(usize)) -> Result<()> {
        while let Some(oldest) = self.in_flight.wait().map_err(Error::Network)? {
            self.add(oldest, progress)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        ((batch, layers), rows): ((PatchBatch, Vec<FeatureLayer>), Vec<Rows>),
        progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        same_length("network taps", layers.len(), rows.len())?;
        let mut lacking: Vec<_> = self.writers.iter_mut().filter(|writer| layers.contains(&writer.layer())).collect();
        for (writer, rows) in lacking.iter().zip(&rows) {
            writer.check(&batch, rows)?;
        }
        lacking.iter_mut().zip(&rows).try_for_each(|(writer, rows)| writer.append(&batch, rows))?;
        progress(completed(self.writers));
        Ok(())
    }
}

/// Returns the first and the last image of a batch, after checking that its images are ascending
/// and not below `next`.
fn image_range(batch: &PatchBatch, next: usize) -> Result<[usize; 2]> {
    let images = batch.images();
    match images {
        [first, ..] if *first as usize >= next && images.is_sorted_by(|a, b| a < b) => {
            Ok([*first as usize, images[images.len() - 1] as usize])
        }
        _ => {
            let (expected, got) = (format!("ascending images from {next} on"), format!("{images:?}"));
            Err(Error::Setting { name: "batches", expected, got })
        }
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Write { path: path.into(), source }
}

#[cfg(test)]
mod tests;
