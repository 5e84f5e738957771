//! Images of any sizes on their way to their embeddings: decoded and cut on threads, ahead of the network by a bounded
//! number of patches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bagssl_core::anytime::{AnyTime, Next, Reason, Rule};
use bagssl_core::bag::{Bag, Grid};
use bagssl_core::batch::{BatchShape, PatchBatch};
use bagssl_core::checkpoint::Spec;
use bagssl_core::embed::{Embed, Rows, Tap};
use bagssl_core::patch::Crop;
use bagssl_core::random::Address;
use bagssl_data::bags::Cutter;
use bagssl_data::dataset::Dataset;
use bagssl_eval::classifier::{Classifier, Search};

use crate::bag::BagArgs;
use crate::memory::{self, Budget, Taken};
use crate::work;

/// Which patches are looked at, and until when.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct StopArgs {
    /// Look at patches in random order, and stop when the mean's standard error is below this share of its length
    #[arg(long, value_name = "SHARE")]
    tolerance: Option<f64>,
    /// Look at patches in random order, and at no more than N (at least 2)
    #[arg(long, value_name = "N")]
    max_patches: Option<u64>,
    /// Look at patches in random order, and stop when an image has taken so long
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
    fn rule(&self) -> Option<(Rule, Option<Duration>)> {
        if self.tolerance.is_none() && self.max_patches.is_none() && self.deadline_ms.is_none() {
            return None;
        }
        let most = self.max_patches.unwrap_or(u64::MAX);
        let least = Rule::default().least.min(most);
        let rule = Rule { tolerance: self.tolerance.unwrap_or(0.0), least, most };
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
    pub(crate) tap: Tap,
    /// Whether the embedding of each patch is wanted too.
    pub(crate) keep: bool,
    pub(crate) threads: usize,
    /// Bytes of memory that all of it may take.
    pub(crate) memory: Option<u64>,
    pub(crate) quiet: bool,
}

/// An image that has been looked at.
pub(crate) struct Embedded {
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

/// Patches that are cut at once: all that a step of the network takes, or few enough to stop soon.
const AT_ONCE: usize = 64;
const AT_ONCE_ANY_TIME: usize = 16;
/// Pieces of work that wait for the network, for each thread that cuts.
const WAITING: usize = 2;
/// Memory that is not accounted for: stacks of threads, what the allocator keeps.
const SLACK: u64 = 16 * memory::MIB;
/// Patches before which no class is decided.
const LEAST: u64 = 8;

/// How images flow to the network: threads, patches that each cuts at once, and the memory for images, if it is limited.
struct Flow {
    threads: usize,
    at_once: usize,
    budget: Option<Budget>,
    /// Bytes that kept embeddings may take.
    kept: u64,
}

/// Some patches of an image.
struct Cut {
    image: usize,
    /// Patches of the image in all.
    total: usize,
    crops: Vec<Crop>,
    values: Vec<f32>,
    enough: Arc<AtomicBool>,
}

/// An image of which patches come in.
struct Open<'a> {
    state: AnyTime,
    search: Option<Search<'a>>,
    rows: Rows,
    crops: Vec<Crop>,
    begun: Instant,
}

impl Stream<'_> {
    /// Embeds all images, in the order of the data set.
    pub(crate) fn run(&self, network: &dyn Embed) -> Result<Vec<Embedded>> {
        self.stop.check()?;
        let count = self.dataset.len();
        let flow = self.flow(network)?;
        let bar = if self.quiet { indicatif::ProgressBar::hidden() } else { work::bar("embed", count) };
        let next = AtomicUsize::new(0);
        let (sender, receiver) = sync_channel(WAITING * flow.threads);
        let done = std::thread::scope(|scope| {
            for _ in 0..flow.threads {
                let (sender, next, flow) = (sender.clone(), &next, &flow);
                scope.spawn(move || {
                    let spec = self.spec;
                    let mut cutter = Cutter::new(spec.patch.input(), spec.filter, spec.normalisation);
                    loop {
                        let image = next.fetch_add(1, Ordering::Relaxed);
                        // A closed channel means that nobody wants more.
                        if image >= count || self.cut(image, flow, &mut cutter, &sender).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            self.collect(network, flow.kept, receiver, &bar)
        });
        bar.finish_and_clear();
        done
    }

    /// The network's side: patches come in, in the order of each image's, images among each other.
    fn collect(
        &self,
        network: &dyn Embed,
        kept: u64,
        cuts: std::sync::mpsc::Receiver<Result<Cut>>,
        bar: &indicatif::ProgressBar,
    ) -> Result<Vec<Embedded>> {
        let dim = self.spec.model.dim(self.tap);
        let side = self.spec.patch.input() as usize;
        let (rule, limit) = match self.stop.rule() {
            Some((rule, limit)) => (rule, limit),
            None => (Rule { tolerance: 0.0, least: 2, most: u64::MAX }, None),
        };
        let mut open: BTreeMap<usize, Open<'_>> = BTreeMap::new();
        let mut done: BTreeMap<usize, Embedded> = BTreeMap::new();
        let mut rows_kept = 0_u64;
        for cut in cuts {
            let cut = cut?;
            if done.contains_key(&cut.image) {
                continue;
            }
            let image = match open.entry(cut.image) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Open {
                    state: AnyTime::new(dim, cut.total as u64, rule)?,
                    search: self.search(cut.total as u64)?,
                    rows: Rows { values: Vec::new(), dim },
                    crops: Vec::new(),
                    begun: Instant::now(),
                }),
            };
            let shape = BatchShape { images: 1, patches: cut.crops.len(), channels: 3, height: side, width: side };
            let batch = PatchBatch::new(shape, cut.values, vec![0], vec![0])?;
            let rows = network.embed(&batch, &[self.tap]).map_err(anyhow::Error::from_boxed)?.remove(0);
            let expired = || limit.is_some_and(|limit| image.begun.elapsed() >= limit);
            for (crop, row) in cut.crops.into_iter().zip(rows.values.chunks(dim)) {
                if self.keep {
                    rows_kept += 1;
                    if rows_kept * dim as u64 * 4 > kept {
                        bail!(
                            "--memory-limit: expected to keep at most {} embeddings of patches, got more; embed fewer images at a time",
                            rows_kept - 1
                        );
                    }
                    image.rows.values.extend(row);
                    image.crops.push(crop);
                }
                let mut next = image.state.push(row, expired)?;
                if let Some(search) = &mut image.search
                    && search.push(row)?
                    && next == Next::Continue
                {
                    next = Next::Stop(Reason::Decided);
                }
                if let Next::Stop(reason) = next {
                    cut.enough.store(true, Ordering::Relaxed);
                    let Some(Open { state, rows, crops, .. }) = open.remove(&cut.image) else {
                        return Err(anyhow!("an image was looked at twice"));
                    };
                    let mean = state.mean().mean().context("a bag has a patch")?;
                    let (used, total) = (state.mean().count(), cut.total as u64);
                    let embedded = Embedded { mean, patches: rows, crops, used, total, reason };
                    done.insert(cut.image, embedded);
                    self.check_finite(cut.image, &done[&cut.image].mean)?;
                    bar.inc(1);
                    break;
                }
            }
        }
        Ok(done.into_values().collect())
    }

    /// How images are to flow, so that the memory suffices. Under a limit the network looks at a batch, and what the
    /// program then holds is taken from it.
    fn flow(&self, network: &dyn Embed) -> Result<Flow> {
        let threads = if self.threads == 0 { work::cores() } else { self.threads }.clamp(1, self.dataset.len().max(1));
        let at_once = if self.is_any_time() { AT_ONCE_ANY_TIME } else { AT_ONCE };
        let Some(limit) = self.memory else { return Ok(Flow { threads, at_once, budget: None, kept: u64::MAX }) };
        let side = self.spec.patch.input() as usize;
        let shape = BatchShape { images: 1, patches: at_once, channels: 3, height: side, width: side };
        let batch = PatchBatch::new(shape, vec![0.0; shape.rows() * shape.patch_len()], vec![0], vec![0])?;
        network.embed(&batch, &[self.tap]).map_err(anyhow::Error::from_boxed)?;
        let (now, most) = memory::held()?;
        // The means, once as rows, once as the array and once as the bytes of the file.
        let results = 3 * (self.dataset.len() * self.spec.model.dim(self.tap) * 4) as u64;
        let patch = (shape.patch_len() * 4) as u64;
        let needed = now.max(most) + results + (1 + WAITING as u64 + 1) * patch + SLACK;
        if limit < needed {
            let (needed, limit) = (needed.div_ceil(memory::MIB), limit / memory::MIB);
            bail!(
                "--memory-limit: expected at least {needed} MiB, which the network and the results take, got {limit}"
            );
        }
        let rest = limit - now - results - SLACK;
        let waiting =
            |(threads, at_once): &(usize, usize)| ((1 + WAITING) * threads + 1) as u64 * *at_once as u64 * patch;
        let halves = |most: usize| core::iter::successors(Some(most), |&n| (n > 1).then_some(n / 2));
        // Fewer patches at once cost less time than fewer threads, down to a few.
        let choices = halves(threads).flat_map(|threads| halves(at_once).map(move |at_once| (threads, at_once)));
        let fits = |choice: &(usize, usize)| waiting(choice) <= rest / 4;
        let (threads, at_once) = choices.into_iter().find(fits).unwrap_or((1, 1));
        let rest = rest - waiting(&(threads, at_once)).min(rest);
        // Kept rows are three times there at the end, as the means are.
        let (images, kept) = if self.keep { (rest / 2, rest / 6) } else { (rest, u64::MAX) };
        Ok(Flow { threads, at_once, budget: Some(Budget::new(images)), kept })
    }

    /// Whether an image may be looked at in part.
    fn is_any_time(&self) -> bool {
        self.stop.rule().is_some() || self.decide.is_some()
    }

    /// The search for the class of an image of so many patches, if one was asked for.
    fn search(&self, patches: u64) -> Result<Option<Search<'_>>> {
        let Some((classifier, confidence)) = self.decide else { return Ok(None) };
        Ok(Some(classifier.search(patches, LEAST, confidence)?))
    }

    fn check_finite(&self, image: usize, mean: &[f32]) -> Result<()> {
        match mean.iter().find(|value| !value.is_finite()) {
            None => Ok(()),
            Some(value) => Err(anyhow!("{}: expected a finite embedding, got {value}", self.dataset.name(image))),
        }
    }

    /// The cutting side: an image's patches, some at a time, until there are enough. An error is sent and ends it.
    fn cut(
        &self,
        image: usize,
        flow: &Flow,
        cutter: &mut Cutter,
        sender: &SyncSender<Result<Cut>>,
    ) -> std::result::Result<(), Closed> {
        let prepared = flow.room_for(self.dataset, image).and_then(|room| Ok((room, self.prepare(image)?)));
        let (_room, (picture, crops)) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = sender.send(Err(error));
                return Err(Closed);
            }
        };
        let total = crops.len();
        let enough = Arc::new(AtomicBool::new(false));
        for crops in crops.chunks(flow.at_once) {
            if enough.load(Ordering::Relaxed) {
                break;
            }
            let mut values = Vec::new();
            crops.iter().for_each(|&crop| cutter.cut(&picture, crop, &mut values));
            let cut = Cut { image, total, crops: crops.to_vec(), values, enough: enough.clone() };
            sender.send(Ok(cut)).map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// An image, and its crops in the order in which they are looked at.
    fn prepare(&self, image: usize) -> Result<(bagssl_data::image::Image, Vec<Crop>)> {
        let picture = self.dataset.decode(image)?;
        let named = || self.dataset.name(image).to_string();
        let address = Address { image: image as u32, ..Address::default() };
        let bag = if self.whole {
            Bag::Whole
        } else {
            self.bag.for_image(&self.spec.patch, picture.size()).with_context(named)?
        };
        let crops = match bag {
            Bag::Grid { spec, stride } if self.is_any_time() => {
                let grid = Grid::new(spec, picture.size(), stride).with_context(named)?;
                grid.order(address).map(|patch| grid.crop(patch)).collect()
            }
            bag => bag.crops(picture.size(), address).with_context(named)?,
        };
        Ok((picture, crops))
    }
}

impl Flow {
    /// Waits for the memory that an image takes, if it is limited.
    fn room_for(&self, dataset: &Dataset, image: usize) -> Result<Option<Taken<'_>>> {
        let Some(budget) = &self.budget else { return Ok(None) };
        budget.take(dataset.decoding_bytes(image)?, dataset.name(image)).map(Some)
    }
}

/// Nobody takes what is sent.
struct Closed;

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
