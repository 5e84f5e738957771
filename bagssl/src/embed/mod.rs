//! Embeds the images of a data set: threads decode and cut, while the network embeds patches of other images.
//!
//! The main thread asks for patches, the threads of [`CropWorkers`] cut them. With an early stop, the next patches of an image are
//! requested only if the ones before were not enough, and batches hold patches of several images.

// Circle: `EmbedJob` is defined here, and its steps are methods in the files of its modules.

mod crop_workers;
mod limits;
mod options;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bagssl_core::anytime::{AnyTime, Next, Reason, StopRule};
use bagssl_core::batch::{BatchShape, PatchBatch, SourceError};
use bagssl_core::checkpoint::Spec;
use bagssl_core::embed::{Embed, FeatureLayer, InFlight, Rows};
use bagssl_core::patch::Crop;
use bagssl_data::{Dataset, Skipped};
use bagssl_eval::Search;

use crate::error::{Error, Result};
use crop_workers::{CropBatch, CropWorkers, Response};
use limits::{Limits, ROWS};
pub use options::{EmbedOptions, MAX_PATCHES, Patches, StopOptions};

/// The embeddings of the images of a data set.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// The images that were embedded, in the order of the data set: at least one.
    pub images: Vec<ImageEmbedding>,
    /// The images that were skipped.
    pub skipped: Vec<Skipped>,
}

/// The embedding of an image.
#[derive(Debug, Clone)]
pub struct ImageEmbedding {
    /// The image's index in the data set.
    pub image: usize,
    /// The mean of the embeddings of its patches.
    pub mean: Vec<f32>,
    /// The embedding of each patch, in the order in which they were embedded; empty unless
    /// [`EmbedOptions::keep_patches`] is set.
    pub patches: Rows,
    /// The place of each of these patches.
    pub crops: Vec<Crop>,
    /// The number of patches that were embedded.
    pub used: u64,
    /// The number of patches of the image.
    pub total: u64,
    /// Why no more patches were embedded.
    pub reason: Reason,
}

impl Embeddings {
    /// Joins what was embedded and what was skipped.
    ///
    /// # Errors
    /// [`Error::NoImage`] if all images were skipped.
    pub fn new(images: Vec<ImageEmbedding>, skipped: Vec<Skipped>) -> Result<Self> {
        match skipped.last() {
            Some(last) if images.is_empty() => Err(Error::NoImage { count: skipped.len(), last: last.to_string() }),
            _ => Ok(Embeddings { images, skipped }),
        }
    }
}

/// Embeds all images of a data set, in its order, with a network for patches as `spec` describes them.
///
/// # Errors
/// [`Error::Setting`] if an option is out of range; [`Error::MemoryLimit`], [`Error::UnknownMemory`] or
/// [`Error::TooManyPatches`] if the memory limit cannot be kept; [`Error::Data`] or [`Error::Patch`] for the first image that
/// cannot be used, unless such images are skipped; [`Error::NoImage`] if none is left; [`Error::NotFinite`] or
/// [`Error::Network`] if the network fails or returns embeddings of another shape; [`Error::Panicked`] if decoding panics.
pub fn embed(
    dataset: &Arc<Dataset>,
    spec: &Spec,
    network: &dyn Embed,
    options: &EmbedOptions<'_>,
) -> Result<Embeddings> {
    EmbedJob { dataset, spec, options }.run(network)
}

/// The work of a call.
struct EmbedJob<'a> {
    dataset: &'a Arc<Dataset>,
    spec: &'a Spec,
    options: &'a EmbedOptions<'a>,
}

/// How long to wait for memory that others have.
const MEMORY_WAIT: Duration = Duration::from_millis(5);

/// Patches before which no class is decided.
const MIN_PATCHES: u64 = 8;

/// An image of which patches come in.
struct OpenImage<'a> {
    state: AnyTime,
    search: Option<Search<'a>>,
    rows: Rows,
    crops: Vec<Crop>,
}

/// Patches and their embeddings, once the network has returned them.
type EmbeddedBatch = std::result::Result<Option<(Vec<CropBatch>, Vec<Rows>)>, SourceError>;

/// The network's side of a run.
struct Run<'a> {
    job: &'a EmbedJob<'a>,
    limits: &'a Limits,
    rule: StopRule,
    limit: Option<Duration>,
    open: BTreeMap<usize, OpenImage<'a>>,
    done: BTreeMap<usize, ImageEmbedding>,
    skipped: BTreeMap<usize, Skipped>,
    /// Images that are still to be opened.
    unopened: VecDeque<usize>,
    /// Images that were asked for and have not come.
    requested: usize,
    /// Whether an image has to end before there is memory for another.
    is_full: bool,
    stored_rows: u64,
    in_flight: InFlight<'a, Vec<CropBatch>>,
}

impl EmbedJob<'_> {
    /// Embeds all images, in the order of the data set.
    fn run(&self, network: &dyn Embed) -> Result<Embeddings> {
        self.options.check()?;
        if let Some((classifier, _)) = self.options.decide {
            let (dim, expected) = (classifier.dim(), self.dim());
            if dim != expected {
                let expected = format!("a classifier of {expected} features");
                return Err(Error::Setting { name: "decide", expected, got: format!("one of {dim}") });
            }
            // It refuses a confidence out of range, before any image is decoded.
            self.search(MIN_PATCHES)?;
        }
        self.options.on_bad_image.check(self.dataset)?;
        let count = self.dataset.len();
        let limits = self.limits(network)?;
        let all = StopRule { tolerance: 0.0, min_patches: 2, max_patches: u64::MAX };
        let (rule, limit) = self.options.stop.rule().unwrap_or((all, None));
        std::thread::scope(|scope| {
            let mut workers = CropWorkers::start(scope, self, limits.threads, &limits.budget);
            let mut run = Run {
                job: self,
                limits: &limits,
                rule,
                limit,
                open: BTreeMap::new(),
                done: BTreeMap::new(),
                skipped: BTreeMap::new(),
                unopened: (0..count).collect(),
                requested: 0,
                is_full: false,
                stored_rows: 0,
                in_flight: InFlight::new(network),
            };
            while run.done.len() + run.skipped.len() < count {
                run.request(&mut workers);
                let crop_batches = run.collect_crops(&mut workers)?;
                let embedded =
                    if crop_batches.is_empty() { run.in_flight.wait() } else { run.embed_crops(crop_batches)? };
                if let Some((crop_batches, rows)) = embedded.map_err(Error::Network)? {
                    run.add_embeddings(&crop_batches, &rows, &mut workers)?;
                }
                if let Some(progress) = self.options.progress {
                    progress(run.done.len() + run.skipped.len());
                }
            }
            Embeddings::new(run.done.into_values().collect(), run.skipped.into_values().collect())
        })
    }

    /// The layer whose features are embedded.
    fn layer(&self) -> FeatureLayer {
        self.options.feature.unwrap_or(self.spec.layer)
    }

    /// The length of an embedding.
    fn dim(&self) -> usize {
        self.spec.model.dim(self.layer())
    }

    /// Whether an image may be looked at in part.
    fn is_anytime(&self) -> bool {
        self.options.stop.rule().is_some() || self.options.decide.is_some()
    }

    /// How many patches to look at next, after so many: up to where a rule may first stop, then half as many again.
    fn next_patch_count(&self, embedded: usize) -> usize {
        if !self.is_anytime() {
            return ROWS;
        }
        let rule = self.options.stop.rule().map(|(rule, _)| rule);
        let max = rule.map_or(u64::MAX, |rule| rule.max_patches);
        let first = match (self.options.decide, rule) {
            (Some(_), _) => MIN_PATCHES,
            (None, rule) => rule.map_or(MIN_PATCHES, |rule| rule.min_patches),
        };
        let next = match (self.options.decide, embedded) {
            (_, 0) => first as usize,
            // A class is looked at each time the patches have doubled.
            (Some(_), embedded) => embedded,
            (None, embedded) => (embedded / 2).max(MIN_PATCHES as usize),
        };
        next.clamp(1, ROWS).min((max as usize).saturating_sub(embedded)).max(1)
    }

    /// The search for the class of an image of so many patches, if one was asked for.
    fn search(&self, patches: u64) -> Result<Option<Search<'_>>> {
        let Some((classifier, confidence)) = self.options.decide else { return Ok(None) };
        Ok(Some(classifier.search(patches, MIN_PATCHES, confidence)?))
    }
}

impl<'a> Run<'a> {
    /// Asks for as many images as may be open.
    fn request(&mut self, workers: &mut CropWorkers) {
        while !self.is_full && self.open.len() + self.requested < self.limits.open {
            let Some(image) = self.unopened.pop_front() else { break };
            workers.open(image, self.job.next_patch_count(0).min(self.limits.crops_per_request));
            self.requested += 1;
        }
    }

    /// Takes in cut patches until a batch is full or nothing more will come.
    fn collect_crops(&mut self, workers: &mut CropWorkers) -> Result<Vec<CropBatch>> {
        let (mut crop_batches, mut rows) = (Vec::new(), 0);
        while rows < self.limits.rows {
            match workers.next()? {
                Some(Response::Crops(crop_batch)) => {
                    self.begin_image(&crop_batch)?;
                    if !self.job.is_anytime() {
                        self.request_next(&crop_batch, workers);
                    }
                    rows += crop_batch.range.len();
                    crop_batches.push(crop_batch);
                }
                Some(Response::NoMemory(image)) => {
                    self.requested -= 1;
                    self.unopened.push_front(image);
                    self.is_full = self.requested > 0 || !self.open.is_empty();
                    if !self.is_full {
                        // Another user of the budget has the memory.
                        std::thread::sleep(MEMORY_WAIT);
                    }
                }
                Some(Response::Unusable(image, reason)) => self.skip(image, reason),
                None => break,
            }
        }
        Ok(crop_batches)
    }

    /// Leaves an image out.
    fn skip(&mut self, image: usize, reason: String) {
        let name = self.job.dataset.name(image).into();
        self.skipped.insert(image, Skipped { image: image as u32, name, reason, times: 1 });
        self.requested -= 1;
        self.is_full = false;
    }

    /// Takes note of an image whose first patches have come.
    fn begin_image(&mut self, crop_batch: &CropBatch) -> Result<()> {
        if crop_batch.range.start > 0 {
            return Ok(());
        }
        self.requested -= 1;
        let (total, dim) = (crop_batch.decoded.crops.len() as u64, self.job.dim());
        let image = OpenImage {
            state: AnyTime::new(dim, total, self.rule)?,
            search: self.job.search(total)?,
            rows: Rows { values: Vec::new(), dim },
            crops: Vec::new(),
        };
        self.open.insert(crop_batch.image, image);
        Ok(())
    }

    /// Asks for the patches that come after these.
    fn request_next(&self, crop_batch: &CropBatch, workers: &mut CropWorkers) {
        let (embedded, total) = (crop_batch.range.end, crop_batch.decoded.crops.len());
        if embedded == total {
            return;
        }
        let step = self.job.next_patch_count(embedded).min(self.limits.crops_per_request);
        workers.crop(crop_batch.image, crop_batch.decoded.clone(), embedded..total.min(embedded + step));
    }

    /// Begins to embed patches. Those of an earlier batch may come back.
    fn embed_crops(&mut self, mut crop_batches: Vec<CropBatch>) -> Result<EmbeddedBatch> {
        let side = self.job.spec.patch.input() as usize;
        let patches = crop_batches.iter().map(|crop_batch| crop_batch.range.len()).sum();
        // The answers come in any order; the rows of an image do not depend on it, but where memory ends does.
        crop_batches.sort_by_key(|crop_batch| (crop_batch.image, crop_batch.range.start));
        let values = crop_batches.iter_mut().flat_map(|crop_batch| std::mem::take(&mut crop_batch.values)).collect();
        let shape = BatchShape { images: 1, patches, channels: 3, height: side, width: side };
        let batch = PatchBatch::new(shape, values, vec![0], vec![0])?;
        Ok(self.in_flight.begin(crop_batches, &batch, &[self.job.layer()]))
    }

    /// Takes in the embeddings of patches, and says of each image whether these were enough.
    fn add_embeddings(&mut self, crop_batches: &[CropBatch], rows: &[Rows], workers: &mut CropWorkers) -> Result<()> {
        let (count, dim) =
            (crop_batches.iter().map(|crop_batch| crop_batch.range.len()).sum::<usize>(), self.job.dim());
        let [rows] = rows else { return Err(Error::Network("expected one array of embeddings, got others".into())) };
        if rows.dim != dim || rows.values.len() != count * dim {
            let got = format!("{} of {}", rows.len(), rows.dim);
            return Err(Error::Network(format!("expected {count} embeddings of {dim} values, got {got}").into()));
        }
        let mut rest = &rows.values[..];
        for crop_batch in crop_batches {
            let (batch_rows, others) = rest.split_at(crop_batch.range.len() * rows.dim);
            rest = others;
            match self.add_patches(crop_batch, batch_rows)? {
                Some(reason) => self.finish(crop_batch, reason)?,
                None if self.job.is_anytime() => self.request_next(crop_batch, workers),
                None => {}
            }
        }
        Ok(())
    }

    /// Adds patches to an image; why it is done with, if it is.
    fn add_patches(&mut self, crop_batch: &CropBatch, rows: &[f32]) -> Result<Option<Reason>> {
        let (dim, limit) = (self.job.dim(), self.limit);
        let image = self.open.get_mut(&crop_batch.image).expect("its first patches opened it");
        let expired = || limit.is_some_and(|limit| crop_batch.decoded.started.elapsed() >= limit);
        for ((number, crop), row) in
            crop_batch.range.clone().zip(&crop_batch.decoded.crops[crop_batch.range.clone()]).zip(rows.chunks(dim))
        {
            if self.job.options.keep_patches {
                self.stored_rows += 1;
                if self.stored_rows > self.limits.max_stored_rows {
                    let max = self.stored_rows - 1;
                    return Err(Error::TooManyPatches { max });
                }
                image.rows.values.extend(row);
                image.crops.push(*crop);
            }
            // What has been embedded together counts, whatever the time.
            let is_last = number + 1 == crop_batch.range.end;
            let next = image.state.push(row, || is_last && expired())?;
            let is_decided = image.search.as_mut().map_or(Ok(false), |search| search.push(row))?;
            match next {
                Next::Stop(reason) => return Ok(Some(reason)),
                Next::Continue if is_decided => return Ok(Some(Reason::Decided)),
                Next::Continue => {}
            }
        }
        Ok(None)
    }

    fn finish(&mut self, crop_batch: &CropBatch, reason: Reason) -> Result<()> {
        let image = self.open.remove(&crop_batch.image).expect("an image ends once");
        let mean = image.state.mean().mean().expect("a bag has a patch");
        if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::NotFinite { name: self.job.dataset.name(crop_batch.image).into(), value: *value });
        }
        let (used, total) = (image.state.mean().count(), crop_batch.decoded.crops.len() as u64);
        let OpenImage { rows: patches, crops, .. } = image;
        let number = crop_batch.image;
        self.done.insert(number, ImageEmbedding { image: number, mean, patches, crops, used, total, reason });
        self.is_full = false;
        Ok(())
    }
}
