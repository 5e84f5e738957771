//! Images of any sizes on their way to their embeddings: decoded and cut on threads, while the network looks at others.
//!
//! The network's side asks for patches, the threads of [`feed`] cut them. Where an image may be looked at in part, its next
//! patches are asked for only if those before were not enough, and batches are filled from several images.

// Circle: `Stream` is defined here, and its steps are methods in the files of its modules.

mod crop_workers;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bagssl_core::anytime::{AnyTime, Next, Reason, StopRule};
use bagssl_core::batch::{BatchShape, PatchBatch, SourceError};
use bagssl_core::checkpoint::Spec;
use bagssl_core::embed::{Embed, FeatureLayer, InFlight, Rows};
use bagssl_core::patch::Crop;
use bagssl_data::{Dataset, OnBadImage, Skipped};
use bagssl_eval::classify::classifier::{Classifier, Search};

use crate::input::bag::BagArgs;
use crate::input::source::{reason, tell_skipped};
use crate::terminal::progress::Progress;
use crop_workers::{Answer, Cut, Feed};
use limits::{Flow, ROWS};

/// Which patches are looked at, and until when.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct StopArgs {
    /// Look at patches in random order, and stop when the mean's standard error is below this share of its length
    #[arg(long, value_name = "SHARE")]
    tolerance: Option<f64>,
    /// Look at patches in random order, and at no more than N (at least 2)
    #[arg(long, value_name = "N")]
    max_patches: Option<u64>,
    /// Look at patches in random order, and stop when an image has taken so long since it began to be read and decoded; what has
    /// been embedded by then counts
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
}

impl StopArgs {
    /// No more than so many patches, at least 2.
    pub(crate) fn at_most(patches: u64) -> Self {
        StopArgs { max_patches: Some(patches), ..StopArgs::default() }
    }

    /// Refuses what no rule can be made of.
    fn check(&self) -> Result<()> {
        if let Some(tolerance) = self.tolerance
            && !(tolerance.is_finite() && tolerance >= 0.0)
        {
            bail!("--tolerance: expected a number of at least 0, got {tolerance}");
        }
        match self.max_patches {
            Some(few @ 0..=1) => bail!("--max-patches: expected at least 2, got {few}"),
            _ => Ok(()),
        }
    }

    /// The rule, if one was asked for.
    fn rule(&self) -> Option<(StopRule, Option<Duration>)> {
        if self.tolerance.is_none() && self.max_patches.is_none() && self.deadline_ms.is_none() {
            return None;
        }
        let most = self.max_patches.unwrap_or(u64::MAX);
        let least = StopRule::default().min_patches.min(most);
        let rule = StopRule { tolerance: self.tolerance.unwrap_or(0.0), min_patches: least, max_patches: most };
        Some((rule, self.deadline_ms.map(Duration::from_millis)))
    }
}

/// What is to be embedded, and how.
pub(crate) struct Stream<'a> {
    pub(crate) dataset: &'a Arc<Dataset>,
    pub(crate) spec: &'a Spec,
    pub(crate) bag: &'a BagArgs,
    pub(crate) whole: bool,
    pub(crate) stop: &'a StopArgs,
    /// Stop when this classifier is so sure of an image's class.
    pub(crate) decide: Option<(&'a Classifier, f64)>,
    pub(crate) tap: FeatureLayer,
    /// Whether the embedding of each patch is wanted too.
    pub(crate) keep: bool,
    pub(crate) threads: usize,
    /// What becomes of images that cannot be read, decoded or cut.
    pub(crate) on_bad_image: OnBadImage,
    /// Bytes of memory that all of it may take.
    pub(crate) memory: Option<u64>,
    pub(crate) quiet: bool,
}

/// What came of all images.
pub(crate) struct Streamed {
    /// Those that have been looked at, in the order of the data set: at least one.
    pub(crate) images: Vec<Embedded>,
    /// Those that were left out.
    pub(crate) skipped: Vec<Skipped>,
}

/// An image that has been looked at.
pub(crate) struct Embedded {
    /// Its number in the data set.
    pub(crate) image: usize,
    /// The mean of the embeddings.
    pub(crate) mean: Vec<f32>,
    /// Each patch's, if kept, in the order in which they were looked at.
    pub(crate) patches: Rows,
    /// Where these patches lie.
    pub(crate) crops: Vec<Crop>,
    /// Patches that were looked at.
    pub(crate) used: u64,
    /// Patches in all.
    pub(crate) total: u64,
    /// Why no more patches were looked at.
    pub(crate) reason: Reason,
}

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
    done: BTreeMap<usize, Embedded>,
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
    pub(crate) fn run(&self, network: &dyn Embed) -> Result<Streamed> {
        self.stop.check()?;
        self.bag.check()?;
        let count = self.dataset.len();
        let flow = self.flow(network)?;
        let bar = Progress::images("embed", count, self.quiet);
        let all = StopRule { tolerance: 0.0, min_patches: 2, max_patches: u64::MAX };
        let (rule, limit) = self.stop.rule().unwrap_or((all, None));
        let done = std::thread::scope(|scope| {
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
                run.ask(&mut feed)?;
                let cuts = run.gather(&mut feed)?;
                let looked_at = if cuts.is_empty() { run.in_flight.wait() } else { run.look(cuts)? };
                if let Some((cuts, rows)) = looked_at.map_err(anyhow::Error::from_boxed)? {
                    run.see(&cuts, &rows[0], &mut feed)?;
                }
                bar.set_position((run.done.len() + run.skipped.len()) as u64);
            }
            Ok((run.done.into_values().collect(), run.skipped.into_values().collect()))
        });
        bar.finish();
        done.and_then(|(images, skipped)| Streamed::new(images, skipped))
    }

    /// Whether an image may be looked at in part.
    fn is_any_time(&self) -> bool {
        self.stop.rule().is_some() || self.decide.is_some()
    }

    /// How many patches to look at next, after so many: up to where a rule may first stop, then half as many again.
    fn step(&self, seen: usize) -> usize {
        if !self.is_any_time() {
            return ROWS;
        }
        let rule = self.stop.rule().map(|(rule, _)| rule);
        let most = rule.map_or(u64::MAX, |rule| rule.max_patches);
        let first = match (self.decide, rule) {
            (Some(_), _) => LEAST,
            (None, rule) => rule.map_or(LEAST, |rule| rule.min_patches),
        };
        let next = match (self.decide, seen) {
            (_, 0) => first as usize,
            // A class is looked at each time the patches have doubled.
            (Some(_), seen) => seen,
            (None, seen) => (seen / 2).max(LEAST as usize),
        };
        next.clamp(1, ROWS).min((most as usize).saturating_sub(seen)).max(1)
    }

    /// The search for the class of an image of so many patches, if one was asked for.
    fn search(&self, patches: u64) -> Result<Option<Search<'_>>> {
        let Some((classifier, confidence)) = self.decide else { return Ok(None) };
        Ok(Some(classifier.search(patches, LEAST, confidence)?))
    }
}

impl<'a> Run<'a> {
    /// Asks for as many images as may be open.
    fn ask(&mut self, feed: &mut Feed) -> Result<()> {
        while !self.is_full && self.open.len() + self.opening < self.flow.open {
            let Some(image) = self.to_open.pop_front() else { break };
            feed.open(image, self.stream.step(0).min(self.flow.at_once))?;
            self.opening += 1;
        }
        Ok(())
    }

    /// Takes in cut patches until a batch is full or nothing more will come.
    fn gather(&mut self, feed: &mut Feed) -> Result<Vec<Cut>> {
        let (mut cuts, mut rows) = (Vec::new(), 0);
        while rows < self.flow.rows {
            match feed.next()? {
                Some(Answer::Cut(cut)) => {
                    self.begin(&cut)?;
                    if !self.stream.is_any_time() {
                        self.go_on(&cut, feed)?;
                    }
                    rows += cut.range.len();
                    cuts.push(cut);
                }
                Some(Answer::NoRoom(image)) => {
                    self.opening -= 1;
                    self.to_open.push_front(image);
                    // Without an image that is open or on its way all memory is free, and the answer is another one.
                    self.is_full = self.opening > 0 || !self.open.is_empty();
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
        let (total, dim) = (cut.picture.crops.len() as u64, self.dim());
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
    fn go_on(&self, cut: &Cut, feed: &mut Feed) -> Result<()> {
        let (seen, total) = (cut.range.end, cut.picture.crops.len());
        if seen == total {
            return Ok(());
        }
        let step = self.stream.step(seen).min(self.flow.at_once);
        feed.cut(cut.image, cut.picture.clone(), seen..total.min(seen + step))
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
        Ok(self.in_flight.begin(cuts, &batch, &[self.stream.tap]))
    }

    /// Takes in the embeddings of patches, and says of each image whether these were enough.
    fn see(&mut self, cuts: &[Cut], rows: &Rows, feed: &mut Feed) -> Result<()> {
        let mut rest = &rows.values[..];
        for cut in cuts {
            let (these, others) = rest.split_at(cut.range.len() * rows.dim);
            rest = others;
            match self.take(cut, these)? {
                Some(reason) => self.finish(cut, reason)?,
                None if self.stream.is_any_time() => self.go_on(cut, feed)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Adds patches to an image; why it is done with, if it is.
    fn take(&mut self, cut: &Cut, rows: &[f32]) -> Result<Option<Reason>> {
        let (dim, limit) = (self.dim(), self.limit);
        let image = self.open.get_mut(&cut.image).context("patches of an image that is not open")?;
        let expired = || limit.is_some_and(|limit| cut.picture.begun.elapsed() >= limit);
        for ((number, crop), row) in cut.range.clone().zip(&cut.picture.crops[cut.range.clone()]).zip(rows.chunks(dim))
        {
            if self.stream.keep {
                self.rows_kept += 1;
                if self.rows_kept * dim as u64 * 4 > self.flow.kept {
                    let most = self.rows_kept - 1;
                    bail!(
                        "--memory-limit: expected to keep at most {most} embeddings of patches, got more; embed fewer images at a time"
                    );
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
        let image = self.open.remove(&cut.image).context("an image ended twice")?;
        let mean = image.state.mean().mean().context("a bag has a patch")?;
        if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
            return Err(anyhow!("{}: expected a finite embedding, got {value}", self.stream.dataset.name(cut.image)));
        }
        let (used, total) = (image.state.mean().count(), cut.picture.crops.len() as u64);
        let Open { rows: patches, crops, .. } = image;
        let number = cut.image;
        self.done.insert(number, Embedded { image: number, mean, patches, crops, used, total, reason });
        self.is_full = false;
        Ok(())
    }

    fn dim(&self) -> usize {
        self.stream.spec.model.dim(self.stream.tap)
    }
}

impl Streamed {
    /// Refuses if everything was left out.
    pub(crate) fn new(images: Vec<Embedded>, skipped: Vec<Skipped>) -> Result<Self> {
        match skipped.last() {
            Some(last) if images.is_empty() => {
                let last = reason(last);
                bail!("expected an image that can be used, got none of {}; the last: {last}", skipped.len())
            }
            _ => Ok(Streamed { images, skipped }),
        }
    }

    /// Says on standard error what was left out.
    pub(crate) fn tell(&self) {
        tell_skipped(&self.skipped);
    }
}

/// What a reason is called.
pub(crate) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Complete => "all patches",
        Reason::Tolerance => "tolerance",
        Reason::Most => "most patches",
        Reason::Deadline => "deadline",
        Reason::Decided => "decided",
        _ => "stopped",
    }
}
