//! The files of one tap.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bagssl_core::batch::PatchBatch;
use bagssl_core::embed::{FeatureLayer, Rows};
use serde::{Deserialize, Serialize};

use super::digest::{self, BLOCK, Blocks};
use super::{CacheEntry, FeatureCache, LOCK, failed, npy};
use crate::error::{Error, Result};
use crate::features::table::{Mapped, Values};
use crate::features::{Features, Shape};
use crate::files::{regular, write_whole};

/// How often an extraction is written down: what a stop costs at most.
const EVERY: Duration = Duration::from_secs(10);
/// Of the files, not of the features.
const FORMAT: u32 = 2;

/// How far an extraction has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    format: u32,
    /// What the features are of.
    of: String,
    /// Where the images lay.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    at: String,
    patches: usize,
    dim: usize,
    /// Images that are in the files.
    images: usize,
    /// The first image of the data set that has not been looked at; images may have been left out.
    next: usize,
    complete: bool,
    /// The digests of the values' blocks, and of those of the images.
    digests: [Vec<String>; 2],
    /// That of all of this, with nothing here.
    digest: String,
}

/// The files of one tap, at the place up to which they count.
#[derive(Debug)]
pub(super) struct Writer {
    tap: FeatureLayer,
    folder: PathBuf,
    state: State,
    values: Part,
    images: Part,
    saved: Instant,
}

/// An array file that grows.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: BufWriter<File>,
    blocks: Blocks,
}

impl Writer {
    /// Opens the files, or makes them.
    pub(super) fn open(store: &FeatureCache<'_>, tap: FeatureLayer) -> Result<Self> {
        let path = |ending: &str| store.folder.join(format!("{}{ending}", tap.name()));
        let arrays = [".npy", ".images.npy"].map(path);
        let state = State::open_or_new(&path(".json"), &arrays, store)?;
        let [values, images] = arrays.map(Part::open);
        let (values, images) = (values?, images?);
        let mut writer = Writer { tap, folder: store.folder.into(), state, values, images, saved: Instant::now() };
        let (images, row) = (writer.state.images as u64, writer.row_bytes());
        for (part, bytes) in [(&writer.values, row), (&writer.images, PAIR)] {
            if part.length()? < images * bytes {
                let (expected, got) = (format!("{images} images of {bytes} bytes"), "a shorter file".into());
                return Err(Error::File { part: part.path.display().to_string(), expected, got });
            }
        }
        if writer.state.complete {
            writer.check_whole()?;
        }
        writer.check_digests()?;
        if !writer.state.complete {
            writer.cut()?;
        }
        Ok(writer)
    }

    /// Refuses arrays that have changed since they were written.
    fn check_digests(&self) -> Result<()> {
        for ((part, length), expected) in self.parts().into_iter().zip(&self.state.digests) {
            let got = digest::of_file(&part.path, npy::LENGTH as u64, length, BLOCK);
            let got = got.map_err(|source| failed(&part.path, source))?;
            if got == *expected {
                continue;
            }
            let wrong = got.iter().zip(expected).position(|(got, expected)| got != expected).unwrap_or(0);
            let mib = wrong as u64 * (BLOCK >> 20);
            let expected = "what was written (remove the files of this feature to extract it anew)".into();
            let got = format!("damage in the 16 MiB from {mib} MiB on");
            return Err(Error::File { part: part.path.display().to_string(), expected, got });
        }
        Ok(())
    }

    /// The arrays, and the bytes of each that count.
    fn parts(&self) -> [(&Part, u64); 2] {
        let images = self.state.images as u64;
        [(&self.values, images * self.row_bytes()), (&self.images, images * PAIR)]
    }

    /// Refuses arrays that are not those that were completed: other headers, or more than counts.
    fn check_whole(&mut self) -> Result<()> {
        let State { images, .. } = self.state;
        let headers = self.headers();
        let bytes = [images as u64 * self.row_bytes(), images as u64 * PAIR];
        for ((part, header), bytes) in [&mut self.values, &mut self.images].into_iter().zip(headers).zip(bytes) {
            let (length, same) = (part.length()?, part.header()? == header);
            if length == bytes && same {
                continue;
            }
            let (expected, got) = match length == bytes {
                true => ("the header of such an array".into(), "another".into()),
                false => (format!("{bytes} bytes of {images} images"), length.to_string()),
            };
            return Err(Error::File { part: part.path.display().to_string(), expected, got });
        }
        Ok(())
    }

    /// The headers of the arrays, that of the values first.
    fn headers(&self) -> [[u8; npy::LENGTH]; 2] {
        let State { images, patches, dim, .. } = self.state;
        [npy::header(&npy::native('f'), &[images, patches, dim]), npy::header(&npy::native('u'), &[images, 2])]
    }

    pub(super) fn tap(&self) -> FeatureLayer {
        self.tap
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state.complete
    }

    /// Images in the files.
    pub(super) fn images(&self) -> usize {
        self.state.images
    }

    /// The first image that has not been looked at.
    pub(super) fn next(&self) -> usize {
        self.state.next
    }

    /// Drops all images from this one on. It is written down before anything is cut off, so that a stop leaves no more in the state
    /// than in the arrays.
    pub(super) fn back_to(&mut self, next: usize) -> Result<()> {
        if next < self.state.next {
            let pairs = self.pairs()?;
            self.state.images = pairs.iter().filter(|pair| (pair[0] as usize) < next).count();
            self.state.next = next;
            self.go_back()?;
            self.save(false)?;
            self.cut()?;
        }
        Ok(())
    }

    /// Refuses rows of another shape than those before, or with values that are not finite.
    pub(super) fn check(&self, batch: &PatchBatch, rows: &Rows) -> Result<()> {
        let shape = (self.state.images > 0).then_some(Shape { patches: self.state.patches, dim: self.state.dim });
        Shape::check(self.tap, batch, rows, shape).map(|_| ())
    }

    /// Adds the features of a batch that have been checked.
    pub(super) fn append(&mut self, batch: &PatchBatch, rows: &Rows) -> Result<()> {
        (self.state.patches, self.state.dim) = (batch.shape().patches, rows.dim);
        let pairs: Vec<u32> =
            batch.images().iter().zip(batch.labels()).flat_map(|(&image, &label)| [image, label]).collect();
        self.values.write(bytemuck::cast_slice(&rows.values))?;
        self.images.write(bytemuck::cast_slice(&pairs))?;
        self.state.images += batch.shape().images;
        self.state.next = batch.images().iter().max().map_or(self.state.next, |&image| image as usize + 1);
        if self.saved.elapsed() >= EVERY { self.save(false) } else { Ok(()) }
    }

    /// Writes down all that was added, and that it counts.
    pub(super) fn save(&mut self, complete: bool) -> Result<()> {
        let [values, images] = self.headers();
        self.values.finish(&values)?;
        self.images.finish(&images)?;
        self.state.digests = [self.values.blocks.digests(), self.images.blocks.digests()];
        self.state.complete = complete;
        self.state.write(&self.folder.join(format!("{}.json", self.tap.name())))?;
        self.saved = Instant::now();
        Ok(())
    }

    /// The features, once they are complete.
    pub(super) fn features(&mut self) -> Result<Features> {
        let pairs = self.pairs()?;
        let (images, labels) = pairs.iter().map(|pair| (pair[0], pair[1])).unzip();
        let path = &self.values.path;
        let file = File::open(path).map_err(|source| failed(path, source))?;
        let mapped = Mapped::new(&file, npy::LENGTH as u64, &self.folder).map_err(|source| failed(path, source))?;
        let State { patches, dim, .. } = self.state;
        Features::stored(self.tap, Values::from(mapped), Shape { patches, dim }, images, labels)
    }

    fn row_bytes(&self) -> u64 {
        (self.state.patches * self.state.dim * size_of::<f32>()) as u64
    }

    /// Drops what was written after the last save.
    fn cut(&mut self) -> Result<()> {
        self.go_back()?;
        let [values, images] = self.parts().map(|(_, bytes)| bytes);
        self.values.cut(values)?;
        self.images.cut(images)
    }

    /// Takes up the digests where the images end that count.
    fn go_back(&mut self) -> Result<()> {
        let [values, images] = self.parts().map(|(_, bytes)| bytes);
        self.values.go_back(values, &self.state.digests[0])?;
        self.images.go_back(images, &self.state.digests[1])
    }

    /// Number and class of each image in the files.
    fn pairs(&mut self) -> Result<Vec<[u32; 2]>> {
        let mut pairs = vec![[0u32; 2]; self.state.images];
        self.images.read(bytemuck::cast_slice_mut(&mut pairs))?;
        Ok(pairs)
    }
}

/// What the features in a folder are of.
pub(super) fn kept(folder: &Path) -> Option<CacheEntry> {
    let taps = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection]
        .into_iter()
        .map(|tap| folder.join(format!("{}.json", tap.name())));
    let state =
        |path: PathBuf| serde_json::from_slice::<State>(&regular(&path).and_then(|()| std::fs::read(&path)).ok()?).ok();
    let State { of, at, .. } = taps.into_iter().find_map(state)?;
    let used = std::fs::metadata(folder.join(LOCK)).and_then(|meta| meta.modified());
    Some(CacheEntry { of, at, used: used.unwrap_or(SystemTime::UNIX_EPOCH) })
}

/// Bytes of an image's number and class.
const PAIR: u64 = 8;

impl State {
    /// What an earlier extraction left, or the beginning of a new one, which is written down before there is an array.
    fn open_or_new(path: &Path, arrays: &[PathBuf], store: &FeatureCache<'_>) -> Result<Self> {
        match regular(path).and_then(|()| std::fs::read(path)) {
            Ok(bytes) => return Self::read(path, &bytes, store.of),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(path, error)),
            Err(_) => {}
        }
        if let Some(array) = arrays.iter().find(|array| array.exists()) {
            let (expected, got) = (format!("{} beside it", path.display()), "none".into());
            return Err(Error::File { part: array.display().to_string(), expected, got });
        }
        let (of, at) = (store.of.into(), store.at.into());
        let (digests, digest) = Default::default();
        let fresh =
            State { format: FORMAT, of, at, patches: 0, dim: 0, images: 0, next: 0, complete: false, digests, digest };
        fresh.write(path)?;
        Ok(fresh)
    }

    fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, self.text().as_bytes())
    }

    /// The file, with its digest.
    pub(super) fn text(&self) -> String {
        let signed = State { digest: self.own_digest(), ..self.clone() };
        serde_json::to_string_pretty(&signed).expect("numbers and texts") + "\n"
    }

    fn own_digest(&self) -> String {
        let unsigned = State { digest: String::new(), ..self.clone() };
        digest::of_text(&serde_json::to_string(&unsigned).expect("numbers and texts"))
    }

    fn read(path: &Path, bytes: &[u8], of: &str) -> Result<Self> {
        /// What all formats have.
        #[derive(Deserialize)]
        struct Any {
            format: u32,
        }
        let part = path.display().to_string();
        let none = |error: serde_json::Error| Error::File {
            part: part.clone(),
            expected: "the state of an extraction".into(),
            got: error.to_string(),
        };
        let Any { format } = serde_json::from_slice(bytes).map_err(none)?;
        if format != FORMAT {
            let (expected, got) = (format!("format {FORMAT}"), format!("{format}: remove the folder, to extract anew"));
            return Err(Error::File { part, expected, got });
        }
        let state: State = serde_json::from_slice(bytes).map_err(none)?;
        if state.digest != state.own_digest() {
            let (expected, got) = (format!("digest {}", state.own_digest()), state.digest);
            return Err(Error::File { part, expected, got });
        }
        if state.of != of {
            return Err(Error::File { part, expected: format!("features of {of}"), got: format!("of {}", state.of) });
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

impl Part {
    fn open(path: PathBuf) -> Result<Self> {
        let open = |()| OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let open = regular(&path).and_then(open);
        let file = open.map_err(|source| failed(&path, source))?;
        Ok(Part { file: BufWriter::with_capacity(1 << 20, file), path, blocks: Blocks::new(BLOCK) })
    }

    /// Bytes after the header.
    fn length(&self) -> Result<u64> {
        let length = self.file.get_ref().metadata().map_err(|source| failed(&self.path, source))?.len();
        Ok(length.saturating_sub(npy::LENGTH as u64))
    }

    /// What is there in place of a header.
    fn header(&mut self) -> Result<[u8; npy::LENGTH]> {
        let mut header = [0; npy::LENGTH];
        let file = self.file.get_mut();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut header));
        read.map_err(|source| failed(&self.path, source)).map(|()| header)
    }

    /// Leaves so many bytes after the header, to be added to.
    fn cut(&mut self, bytes: u64) -> Result<()> {
        let end = npy::LENGTH as u64 + bytes;
        let cut = self.file.get_ref().set_len(end);
        cut.and_then(|()| self.file.seek(SeekFrom::Start(end))).map_err(|source| failed(&self.path, source)).map(|_| ())
    }

    /// Takes up the digests after so many bytes, of which these are the digests, or those of more bytes.
    fn go_back(&mut self, bytes: u64, digests: &[String]) -> Result<()> {
        let blocks = Blocks::of_file(&self.path, npy::LENGTH as u64, bytes, BLOCK, digests);
        self.blocks = blocks.map_err(|source| failed(&self.path, source))?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.blocks.add(bytes);
        self.file.write_all(bytes).map_err(|source| failed(&self.path, source))
    }

    /// Writes the header that fits what is there, and waits until all is on the disk.
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
