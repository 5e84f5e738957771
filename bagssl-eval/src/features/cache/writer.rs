//! The files of one layer's features.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bagssl_core::batch::PatchBatch;
use bagssl_core::embed::{FeatureLayer, Rows};
use bagssl_files::{check_regular, write_atomic};
use serde::{Deserialize, Serialize};

use super::digest::{self, BLOCK, Blocks};
use super::{CacheEntry, FeatureCache, LOCK, failed, npy};
use crate::error::{Error, Result};
use crate::features::table::{Mapped, Values};
use crate::features::{Features, Shape};

/// The interval between saves: the most work that an interruption loses.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// The version of the file format.
const FORMAT: u32 = 2;

/// The state of an extraction, stored as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    format: u32,
    /// The identity of the features.
    #[serde(rename = "of")]
    identity: String,
    /// The location of the images.
    #[serde(default, rename = "at", skip_serializing_if = "String::is_empty")]
    location: String,
    patches: usize,
    dim: usize,
    /// The number of images in the files.
    images: usize,
    /// The first image of the data set that has not been processed. It can exceed `images`, as
    /// images may have been skipped.
    next: usize,
    complete: bool,
    /// The digests of the blocks of the values and of the images.
    digests: [Vec<String>; 2],
    /// The digest of the entire state with this field empty.
    digest: String,
}

/// The files of one layer, positioned after the last valid image.
#[derive(Debug)]
pub(super) struct Writer {
    layer: FeatureLayer,
    folder: PathBuf,
    state: State,
    values: ArrayFile,
    images: ArrayFile,
    saved: Instant,
}

/// An array file that is being written.
#[derive(Debug)]
struct ArrayFile {
    path: PathBuf,
    file: BufWriter<File>,
    blocks: Blocks,
}

impl Writer {
    /// Opens the files, or creates them.
    pub(super) fn open(cache: &FeatureCache<'_>, layer: FeatureLayer) -> Result<Self> {
        let path = |ending: &str| cache.folder.join(format!("{}{ending}", layer.name()));
        let arrays = [".npy", ".images.npy"].map(path);
        let state = State::open_or_create(&path(".json"), &arrays, cache)?;
        let [values, images] = arrays.map(ArrayFile::open);
        let (values, images) = (values?, images?);
        let mut writer = Writer { layer, folder: cache.folder.into(), state, values, images, saved: Instant::now() };
        let (images, row) = (writer.state.images as u64, writer.row_bytes());
        for (part, bytes) in [(&writer.values, row), (&writer.images, ENTRY_BYTES)] {
            if part.length()? < images * bytes {
                let (expected, got) = (format!("{images} images of {bytes} bytes"), "a shorter file".into());
                return Err(Error::File { part: part.path.display().to_string(), expected, got });
            }
        }
        if writer.state.complete {
            writer.check_arrays()?;
        }
        writer.check_digests()?;
        if !writer.state.complete {
            writer.truncate()?;
        }
        Ok(writer)
    }

    /// Returns an error if the arrays have changed since they were written.
    fn check_digests(&self) -> Result<()> {
        for ((part, length), expected) in self.parts().into_iter().zip(&self.state.digests) {
            let got = digest::digest_file(&part.path, npy::LENGTH as u64, length, BLOCK);
            let got = got.map_err(|source| failed(&part.path, source))?;
            if got == *expected {
                continue;
            }
            let wrong = got.iter().zip(expected).position(|(got, expected)| got != expected).unwrap_or(0);
            let mib = wrong as u64 * (BLOCK >> 20);
            let expected = "the bytes that were written (to extract this feature again, remove its files)".into();
            let got = format!("damage in the 16 MiB block at {mib} MiB");
            return Err(Error::File { part: part.path.display().to_string(), expected, got });
        }
        Ok(())
    }

    /// Returns the arrays, each with the number of its valid bytes.
    fn parts(&self) -> [(&ArrayFile, u64); 2] {
        let images = self.state.images as u64;
        [(&self.values, images * self.row_bytes()), (&self.images, images * ENTRY_BYTES)]
    }

    /// Returns an error if the arrays of complete features have the wrong headers or lengths.
    fn check_arrays(&mut self) -> Result<()> {
        let State { images, .. } = self.state;
        let headers = self.headers();
        let bytes = [images as u64 * self.row_bytes(), images as u64 * ENTRY_BYTES];
        for ((part, header), bytes) in [&mut self.values, &mut self.images].into_iter().zip(headers).zip(bytes) {
            let (length, same) = (part.length()?, part.header()? == header);
            if length == bytes && same {
                continue;
            }
            let (expected, got) = match length == bytes {
                true => ("the header of this array".into(), "another".into()),
                false => (format!("{bytes} bytes of {images} images"), length.to_string()),
            };
            return Err(Error::File { part: part.path.display().to_string(), expected, got });
        }
        Ok(())
    }

    /// Returns the headers of the values and of the images.
    fn headers(&self) -> [[u8; npy::LENGTH]; 2] {
        let State { images, patches, dim, .. } = self.state;
        [npy::header(&npy::native('f'), &[images, patches, dim]), npy::header(&npy::native('u'), &[images, 2])]
    }

    pub(super) fn layer(&self) -> FeatureLayer {
        self.layer
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state.complete
    }

    /// The number of images in the files.
    pub(super) fn images(&self) -> usize {
        self.state.images
    }

    /// The first image that has not been processed.
    pub(super) fn next(&self) -> usize {
        self.state.next
    }

    /// Drops all images from `next` on. The state is saved before the arrays are truncated, so that
    /// after an interruption it never claims more than the arrays have.
    pub(super) fn truncate_to(&mut self, next: usize) -> Result<()> {
        if next < self.state.next {
            let entries = self.entries()?;
            self.state.images = entries.iter().filter(|pair| (pair[0] as usize) < next).count();
            self.state.next = next;
            self.reset_digests()?;
            self.save(false)?;
            self.truncate()?;
        }
        Ok(())
    }

    /// Returns an error if the rows have a different shape than those before, or values that are
    /// not finite.
    pub(super) fn check(&self, batch: &PatchBatch, rows: &Rows) -> Result<()> {
        let shape = (self.state.images > 0).then_some(Shape { patches: self.state.patches, dim: self.state.dim });
        Shape::check(self.layer, batch, rows, shape).map(|_| ())
    }

    /// Appends the checked features of a batch.
    pub(super) fn append(&mut self, batch: &PatchBatch, rows: &Rows) -> Result<()> {
        (self.state.patches, self.state.dim) = (batch.shape().patches, rows.dim);
        let entries: Vec<u32> =
            batch.images().iter().zip(batch.labels()).flat_map(|(&image, &label)| [image, label]).collect();
        self.values.write(bytemuck::cast_slice(&rows.values))?;
        self.images.write(bytemuck::cast_slice(&entries))?;
        self.state.images += batch.shape().images;
        self.state.next = batch.images().iter().max().map_or(self.state.next, |&image| image as usize + 1);
        if self.saved.elapsed() >= SAVE_INTERVAL { self.save(false) } else { Ok(()) }
    }

    /// Flushes all appended features and saves the state.
    pub(super) fn save(&mut self, complete: bool) -> Result<()> {
        let [values, images] = self.headers();
        self.values.finish(&values)?;
        self.images.finish(&images)?;
        self.state.digests = [self.values.blocks.digests(), self.images.blocks.digests()];
        self.state.complete = complete;
        self.state.write(&self.folder.join(format!("{}.json", self.layer.name())))?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Returns the complete features.
    pub(super) fn features(&mut self) -> Result<Features> {
        let entries = self.entries()?;
        let (images, labels) = entries.iter().map(|pair| (pair[0], pair[1])).unzip();
        let path = &self.values.path;
        let file = File::open(path).map_err(|source| failed(path, source))?;
        let mapped = Mapped::new(&file, npy::LENGTH as u64, &self.folder).map_err(|source| failed(path, source))?;
        let State { patches, dim, .. } = self.state;
        Features::stored(self.layer, Values::from(mapped), Shape { patches, dim }, images, labels)
    }

    fn row_bytes(&self) -> u64 {
        (self.state.patches * self.state.dim * size_of::<f32>()) as u64
    }

    /// Truncates the arrays to the valid images.
    fn truncate(&mut self) -> Result<()> {
        self.reset_digests()?;
        let [values, images] = self.parts().map(|(_, bytes)| bytes);
        self.values.truncate(values)?;
        self.images.truncate(images)
    }

    /// Resets the digests to the end of the valid images.
    fn reset_digests(&mut self) -> Result<()> {
        let [values, images] = self.parts().map(|(_, bytes)| bytes);
        self.values.reset_digests(values, &self.state.digests[0])?;
        self.images.reset_digests(images, &self.state.digests[1])
    }

    /// Reads the index and the class of each image in the files.
    fn entries(&mut self) -> Result<Vec<[u32; 2]>> {
        let mut entries = vec![[0u32; 2]; self.state.images];
        self.images.read(bytemuck::cast_slice_mut(&mut entries))?;
        Ok(entries)
    }
}

/// Returns the identity of the features in a folder.
pub(super) fn entry_of(folder: &Path) -> Option<CacheEntry> {
    let layers = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection]
        .into_iter()
        .map(|layer| folder.join(format!("{}.json", layer.name())));
    let state = |path: PathBuf| {
        serde_json::from_slice::<State>(&check_regular(&path).and_then(|()| std::fs::read(&path)).ok()?).ok()
    };
    let State { identity, location, .. } = layers.into_iter().find_map(state)?;
    let last_used = std::fs::metadata(folder.join(LOCK)).and_then(|meta| meta.modified());
    Some(CacheEntry { identity, location, last_used: last_used.unwrap_or(SystemTime::UNIX_EPOCH) })
}

/// The size of an image's index and class in bytes.
const ENTRY_BYTES: u64 = 8;

impl State {
    /// Reads the state of an earlier extraction, or creates a new one. The state is saved before
    /// any array exists.
    fn open_or_create(path: &Path, arrays: &[PathBuf], cache: &FeatureCache<'_>) -> Result<Self> {
        match check_regular(path).and_then(|()| std::fs::read(path)) {
            Ok(bytes) => return Self::read(path, &bytes, cache.identity),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(path, error)),
            Err(_) => {}
        }
        if let Some(array) = arrays.iter().find(|array| array.exists()) {
            let (expected, got) = (format!("{} beside it", path.display()), "none".into());
            return Err(Error::File { part: array.display().to_string(), expected, got });
        }
        let (identity, location) = (cache.identity.into(), cache.location.into());
        let (digests, digest) = Default::default();
        let fresh = State {
            format: FORMAT,
            identity,
            location,
            patches: 0,
            dim: 0,
            images: 0,
            next: 0,
            complete: false,
            digests,
            digest,
        };
        fresh.write(path)?;
        Ok(fresh)
    }

    fn write(&self, path: &Path) -> Result<()> {
        write_atomic(path, self.text().as_bytes()).map_err(|source| failed(path, source))
    }

    /// Returns the contents of the file, including its digest.
    pub(super) fn text(&self) -> String {
        let signed = State { digest: self.compute_digest(), ..self.clone() };
        serde_json::to_string_pretty(&signed).expect("numbers and texts") + "\n"
    }

    fn compute_digest(&self) -> String {
        let unsigned = State { digest: String::new(), ..self.clone() };
        digest::digest_text(&serde_json::to_string(&unsigned).expect("numbers and texts"))
    }

    fn read(path: &Path, bytes: &[u8], identity: &str) -> Result<Self> {
        /// The part that all format versions share.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let part = path.display().to_string();
        let none = |error: serde_json::Error| Error::File {
            part: part.clone(),
            expected: "the state of an extraction".into(),
            got: error.to_string(),
        };
        let Version { format } = serde_json::from_slice(bytes).map_err(none)?;
        if format != FORMAT {
            let (expected, got) =
                (format!("format {FORMAT}"), format!("{format}; to extract again, remove the folder"));
            return Err(Error::File { part, expected, got });
        }
        let state: State = serde_json::from_slice(bytes).map_err(none)?;
        if state.digest != state.compute_digest() {
            let (expected, got) = (format!("digest {}", state.compute_digest()), state.digest);
            return Err(Error::File { part, expected, got });
        }
        if state.identity != identity {
            return Err(Error::File {
                part,
                expected: format!("features of {identity}"),
                got: format!("of {}", state.identity),
            });
        }
        let row = state.patches.checked_mul(state.dim).and_then(|row| row.checked_mul(size_of::<f32>()));
        match row.and_then(|row| row.checked_mul(state.images)) {
            Some(bytes) if (bytes > 0) == (state.images > 0) && state.images <= state.next => Ok(state),
            _ => {
                let got = format!("{} x {} x {}", state.images, state.patches, state.dim);
                Err(Error::File { part, expected: "the shape of an array".into(), got })
            }
        }
    }
}

impl ArrayFile {
    fn open(path: PathBuf) -> Result<Self> {
        let open = |()| OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let open = check_regular(&path).and_then(open);
        let file = open.map_err(|source| failed(&path, source))?;
        Ok(ArrayFile { file: BufWriter::with_capacity(1 << 20, file), path, blocks: Blocks::new(BLOCK) })
    }

    /// Returns the number of bytes after the header.
    fn length(&self) -> Result<u64> {
        let length = self.file.get_ref().metadata().map_err(|source| failed(&self.path, source))?.len();
        Ok(length.saturating_sub(npy::LENGTH as u64))
    }

    /// Reads the header as it is in the file.
    fn header(&mut self) -> Result<[u8; npy::LENGTH]> {
        let mut header = [0; npy::LENGTH];
        let file = self.file.get_mut();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut header));
        read.map_err(|source| failed(&self.path, source)).map(|()| header)
    }

    /// Truncates the file to `bytes` bytes after the header, and moves to its end.
    fn truncate(&mut self, bytes: u64) -> Result<()> {
        let end = npy::LENGTH as u64 + bytes;
        let cut = self.file.get_ref().set_len(end);
        cut.and_then(|()| self.file.seek(SeekFrom::Start(end))).map_err(|source| failed(&self.path, source)).map(|_| ())
    }

    /// Resets the digests to the first `bytes` bytes. `digests` are those of at least these bytes.
    fn reset_digests(&mut self, bytes: u64, digests: &[String]) -> Result<()> {
        let blocks = Blocks::from_file(&self.path, npy::LENGTH as u64, bytes, BLOCK, digests);
        self.blocks = blocks.map_err(|source| failed(&self.path, source))?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.blocks.add(bytes);
        self.file.write_all(bytes).map_err(|source| failed(&self.path, source))
    }

    /// Writes a header for the current contents, and syncs the file.
    fn finish(&mut self, header: &[u8]) -> Result<()> {
        let mut write = || {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(header)?;
            self.file.seek(SeekFrom::End(0))?;
            self.file.get_ref().sync_data()
        };
        write().map_err(|source| failed(&self.path, source))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut read = || {
            self.file.seek(SeekFrom::Start(npy::LENGTH as u64))?;
            self.file.get_mut().read_exact(bytes)
        };
        read().map_err(|source| failed(&self.path, source))
    }
}
