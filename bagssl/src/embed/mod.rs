//! Embeds the images of a data set: threads decode and cut, while the network embeds patches of other images.
//!
//! The main thread asks for patches, the threads of [`Feed`] cut them. With an early stop, the next patches of an image are
//! requested only if the ones before were not enough, and batches hold patches of several images.

// Circle: `Stream` is defined here, and its steps are methods in the files of its modules.

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
use bagssl_eval::classify::classifier::Search;

use crate::error::{Error, Result};
use crop_workers::{Answer, Cut, Feed};
use limits::{Flow, ROWS};
pub use options::{EmbedOptions, MOST_PATCHES, Patches, StopOptions};

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
    Stream { dataset, spec, options }.run(network)
}

/// The work of a call.
struct Stream<'a> {
    dataset: &'a Arc<Dataset>,
    spec: &'a Spec,
    options: &'a EmbedOptions<'a>,
}

/// How long to wait for memory that others have.
const WAIT: Duration = Duration::from_millis(5);

/// Patches before which no class is decided.
const LEAST: u64 = 8;

/// An image of which patches come in.
struct Open<'a> {
    state: AnyTime,
    search: Option<Search<'a>>,
    rows: Rows,
    crops: Vec<Crop>,
}

/// Patches whose embeddings have come, if any have.
type LookedAt = std::result::Result<Option<(Vec<Cut>, Vec<Rows>)>, SourceError>;

/// The network's side of a run.
struct Run<'a> {
    stream: &'a Stream<'a>,
    flow: &'a Flow,
    rule: StopRule,
    limit: Option<Duration>,
    open: BTreeMap<usize, Open<'a>>,
    done: BTreeMap<usize, ImageEmbedding>,
    skipped: BTreeMap<usize, Skipped>,
    /// Images that are still to be opened.
    to_open: VecDeque<usize>,
    /// Images that were asked for and have not come.
    opening: usize,
    /// Whether an image has to end before there is memory for another.
    is_full: bool,
    rows_kept: u64,
    in_flight: InFlight<'a, Vec<Cut>>,
}

impl Stream<'_> {
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
            self.search(LEAST)?;
        }
        self.options.on_bad_image.check(self.dataset)?;
        let count = self.dataset.len();
        let flow = self.flow(network)?;
        let all = StopRule { tolerance: 0.0, min_patches: 2, max_patches: u64::MAX };
        let (rule, limit) = self.options.stop.rule().unwrap_or((all, None));
        std::thread::scope(|scope| {
            let mut feed = Feed::start(scope, self, flow.threads, &flow.budget);
            let mut run = Run {
                stream: self,
                flow: &flow,
                rule,
                limit,
                open: BTreeMap::new(),
                done: BTreeMap::new(),
                skipped: BTreeMap::new(),
                to_open: (0..count).collect(),
                opening: 0,
                is_full: false,
                rows_kept: 0,
                in_flight: InFlight::new(network),
            };
            while run.done.len() + run.skipped.len() < count {
                run.ask(&mut feed);
                let cuts = run.gather(&mut feed)?;
                let looked_at = if cuts.is_empty() { run.in_flight.wait() } else { run.look(cuts)? };
                if let Some((cuts, rows)) = looked_at.map_err(Error::Network)? {
                    run.see(&cuts, &rows, &mut feed)?;
                }
                if let Some(progress) = self.options.progress {
                    progress(run.done.len() + run.skipped.len());
                }
            }
            Embeddings::new(run.done.into_values().collect(), run.skipped.into_values().collect())
        })
    }

    /// The layer whose features are embedded.
    fn tap(&self) -> FeatureLayer {
        self.options.feature.unwrap_or(self.spec.layer)
    }

    /// The length of an embedding.
    fn dim(&self) -> usize {
        self.spec.model.dim(self.tap())
    }

    /// Whether an image may be looked at in part.
    fn is_any_time(&self) -> bool {
        self.options.stop.rule().is_some() || self.options.decide.is_some()
    }

    /// How many patches to look at next, after so many: up to where a rule may first stop, then half as many again.
    fn step(&self, seen: usize) -> usize {
        if !self.is_any_time() {
            return ROWS;
        }
        let rule = self.options.stop.rule().map(|(rule, _)| rule);
        let most = rule.map_or(u64::MAX, |rule| rule.max_patches);
        let first = match (self.options.decide, rule) {
            (Some(_), _) => LEAST,
            (None, rule) => rule.map_or(LEAST, |rule| rule.min_patches),
        };
        let next = match (self.options.decide, seen) {
            (_, 0) => first as usize,
            // A class is looked at each time the patches have doubled.
            (Some(_), seen) => seen,
            (None, seen) => (seen / 2).max(LEAST as usize),
        };
        next.clamp(1, ROWS).min((most as usize).saturating_sub(seen)).max(1)
    }

    /// The search for the class of an image of so many patches, if one was asked for.
    fn search(&self, patches: u64) -> Result<Option<Search<'_>>> {
        let Some((classifier, confidence)) = self.options.decide else { return Ok(None) };
        Ok(Some(classifier.search(patches, LEAST, confidence)?))
    }
}

impl<'a> Run<'a> {
    /// Asks for as many images as may be open.
    fn ask(&mut self, feed: &mut Feed) {
        while !self.is_full && self.open.len() + self.opening < self.flow.open {
            let Some(image) = self.to_open.pop_front() else { break };
            feed.open(image, self.stream.step(0).min(self.flow.at_once));
            self.opening += 1;
        }
    }

    /// Takes in cut patches until a batch is full or nothing more will come.
    fn gather(&mut self, feed: &mut Feed) -> Result<Vec<Cut>> {
        let (mut cuts, mut rows) = (Vec::new(), 0);
        while rows < self.flow.rows {
            match feed.next()? {
                Some(Answer::Cut(cut)) => {
                    self.begin(&cut)?;
                    if !self.stream.is_any_time() {
                        self.go_on(&cut, feed);
                    }
                    rows += cut.range.len();
                    cuts.push(cut);
                }
                Some(Answer::NoRoom(image)) => {
                    self.opening -= 1;
                    self.to_open.push_front(image);
                    self.is_full = self.opening > 0 || !self.open.is_empty();
                    if !self.is_full {
                        // Another user of the budget has the memory.
                        std::thread::sleep(WAIT);
                    }
                }
                Some(Answer::Bad(image, reason)) => self.skip(image, reason),
                None => break,
            }
        }
        Ok(cuts)
    }

    /// Leaves an image out.
    fn skip(&mut self, image: usize, reason: String) {
        let name = self.stream.dataset.name(image).into();
        self.skipped.insert(image, Skipped { image: image as u32, name, reason, times: 1 });
        self.opening -= 1;
        self.is_full = false;
    }

    /// Takes note of an image whose first patches have come.
    fn begin(&mut self, cut: &Cut) -> Result<()> {
        if cut.range.start > 0 {
            return Ok(());
        }
        self.opening -= 1;
        let (total, dim) = (cut.picture.crops.len() as u64, self.stream.dim());
        let image = Open {
            state: AnyTime::new(dim, total, self.rule)?,
            search: self.stream.search(total)?,
            rows: Rows { values: Vec::new(), dim },
            crops: Vec::new(),
        };
        self.open.insert(cut.image, image);
        Ok(())
    }

    /// Asks for the patches that come after these.
    fn go_on(&self, cut: &Cut, feed: &mut Feed) {
        let (seen, total) = (cut.range.end, cut.picture.crops.len());
        if seen == total {
            return;
        }
        let step = self.stream.step(seen).min(self.flow.at_once);
        feed.cut(cut.image, cut.picture.clone(), seen..total.min(seen + step));
    }

    /// Begins to embed patches. Those of an earlier batch may come back.
    fn look(&mut self, mut cuts: Vec<Cut>) -> Result<LookedAt> {
        let side = self.stream.spec.patch.input() as usize;
        let patches = cuts.iter().map(|cut| cut.range.len()).sum();
        // The answers come in any order; the rows of an image do not depend on it, but where memory ends does.
        cuts.sort_by_key(|cut| (cut.image, cut.range.start));
        let values = cuts.iter_mut().flat_map(|cut| std::mem::take(&mut cut.values)).collect();
        let shape = BatchShape { images: 1, patches, channels: 3, height: side, width: side };
        let batch = PatchBatch::new(shape, values, vec![0], vec![0])?;
        Ok(self.in_flight.begin(cuts, &batch, &[self.stream.tap()]))
    }

    /// Takes in the embeddings of patches, and says of each image whether these were enough.
    fn see(&mut self, cuts: &[Cut], rows: &[Rows], feed: &mut Feed) -> Result<()> {
        let (count, dim) = (cuts.iter().map(|cut| cut.range.len()).sum::<usize>(), self.stream.dim());
        let [rows] = rows else { return Err(Error::Network("expected one array of embeddings, got others".into())) };
        if rows.dim != dim || rows.values.len() != count * dim {
            let got = format!("{} of {}", rows.len(), rows.dim);
            return Err(Error::Network(format!("expected {count} embeddings of {dim} values, got {got}").into()));
        }
        let mut rest = &rows.values[..];
        for cut in cuts {
            let (these, others) = rest.split_at(cut.range.len() * rows.dim);
            rest = others;
            match self.take(cut, these)? {
                Some(reason) => self.finish(cut, reason)?,
                None if self.stream.is_any_time() => self.go_on(cut, feed),
                None => {}
            }
        }
        Ok(())
    }

    /// Adds patches to an image; why it is done with, if it is.
    fn take(&mut self, cut: &Cut, rows: &[f32]) -> Result<Option<Reason>> {
        let (dim, limit) = (self.stream.dim(), self.limit);
        let image = self.open.get_mut(&cut.image).expect("its first patches opened it");
        let expired = || limit.is_some_and(|limit| cut.picture.begun.elapsed() >= limit);
        for ((number, crop), row) in cut.range.clone().zip(&cut.picture.crops[cut.range.clone()]).zip(rows.chunks(dim))
        {
            if self.stream.options.keep_patches {
                self.rows_kept += 1;
                if self.rows_kept > self.flow.kept {
                    let most = self.rows_kept - 1;
                    return Err(Error::TooManyPatches { most });
                }
                image.rows.values.extend(row);
                image.crops.push(*crop);
            }
            // What has been embedded together counts, whatever the time.
            let is_last = number + 1 == cut.range.end;
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

    fn finish(&mut self, cut: &Cut, reason: Reason) -> Result<()> {
        let image = self.open.remove(&cut.image).expect("an image ends once");
        let mean = image.state.mean().mean().expect("a bag has a patch");
        if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::NotFinite { name: self.stream.dataset.name(cut.image).into(), value: *value });
        }
        let (used, total) = (image.state.mean().count(), cut.picture.crops.len() as u64);
        let Open { rows: patches, crops, .. } = image;
        let number = cut.image;
        self.done.insert(number, ImageEmbedding { image: number, mean, patches, crops, used, total, reason });
        self.is_full = false;
        Ok(())
    }
}
