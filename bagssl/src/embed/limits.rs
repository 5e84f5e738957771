//! How many images and patches are on their way at a time, so that the memory suffices.

use std::sync::Arc;

use bagssl_core::bag::{Bag, Grid};
use bagssl_core::batch::{BatchShape, PatchBatch};
use bagssl_core::embed::Embed;
use bagssl_core::memory::{MemoryUse, process_memory};
use bagssl_core::patch::{Crop, ImageSize};
use bagssl_data::{Budget, MIB};

use super::{ImageEmbedding, Stream};
use crate::error::{Error, Result};

/// Patches of an image that are cut at once where all of them are wanted. Where memory is limited or an image may be looked at in
/// part, the network looks at patches as soon as there are as many.
pub(super) const ROWS: usize = 64;
/// The most patches that it then looks at: one fewer are not enough, and the next cut brings as many as a cut may have.
const MOST_ROWS: usize = 2 * ROWS - 1;
/// Bytes that the patches of a batch may have.
const WAITING: u64 = 1024 * MIB;
/// Patches of an image that has few.
const FEW: usize = 16;
/// Memory that is not accounted for: stacks of threads, what the allocator keeps.
const SLACK: u64 = 16 * MIB;

/// How images flow to the network.
pub(super) struct Flow {
    /// Threads that decode and cut.
    pub(super) threads: usize,
    /// Images that are open at a time.
    pub(super) open: usize,
    /// Patches that are enough for the network to look at.
    pub(super) rows: usize,
    /// The most patches of an image that are cut at once.
    pub(super) at_once: usize,
    /// The memory for images.
    pub(super) budget: Arc<Budget>,
    /// The most embeddings of patches that are kept.
    pub(super) kept: u64,
}

impl Stream<'_> {
    /// Under a limit the network looks at a batch, and what the program then holds is taken from the limit.
    pub(super) fn flow(&self, network: &dyn Embed) -> Result<Flow> {
        let count = self.dataset.len();
        let threads = if self.options.threads == 0 { cores() } else { self.options.threads }.clamp(1, count.max(1));
        let side = self.spec.patch.input() as usize;
        let shape = BatchShape { images: 1, patches: MOST_ROWS, channels: 3, height: side, width: side };
        let patch = (shape.patch_len() * 4) as u64;
        // Of large patches fewer wait for the network at a time.
        let most = (WAITING / patch).max(1) as usize;
        let at_once = ROWS.min(most);
        // Twice the images that fill a batch: one half is cut while the network looks at the other.
        let open = if self.is_any_time() { 2 * ROWS / self.step(0) } else { threads + 2 };
        let memory = || process_memory().ok_or(Error::UnknownMemory);
        let Some(limit) = self.options.memory_limit else {
            let rows = if self.is_any_time() { ROWS } else { network.rows([side, side]).max(ROWS) }.min(most);
            // As many images as fill the batches on their way and the next, if each has a few patches.
            let filling = if rows > ROWS { (network.in_flight() + 1) * rows / FEW } else { 0 };
            let open = open.max(filling).min(most).clamp(1, count.max(1));
            return Ok(Flow { threads, open, rows, at_once, budget: self.dataset.budget(), kept: u64::MAX });
        };
        let open = open.clamp(1, count.max(1));
        // The means, once as rows, once as the array and once as the bytes of the file; the network's batch; what a look at a class
        // takes; and what the caller does.
        let results = 3 * (count * self.dim() * 4) as u64 + (count * size_of::<ImageEmbedding>()) as u64;
        let look = self.options.decide.map_or(0, |(classifier, _)| classifier.work_bytes());
        let results = (results + MOST_ROWS as u64 * patch).saturating_add(look);
        let results = results.saturating_add(self.options.reserved);
        // Before any of it is taken, it is compared; the network's own maps are measured then.
        let before = memory()?;
        let known = (before.current + 2 * patch + SLACK).saturating_add(results);
        if limit < known {
            return Err(Error::MemoryLimit { needed: known, limit, what: "the network and the results" });
        }
        let batch = PatchBatch::new(shape, vec![0.0; shape.rows() * shape.patch_len()], vec![0], vec![0])?;
        network.embed(&batch, &[self.tap()]).map_err(Error::Network)?;
        drop(batch);
        let MemoryUse { current: now, peak: most } = memory()?;
        // What the network took once it takes again, while images and patches have theirs.
        // The peak counts only if the network has raised it: an earlier one is somebody else's.
        let peak = if most > before.peak { most } else { now };
        let taken = (now.max(peak) + SLACK).saturating_add(results);
        let needed = taken.saturating_add(2 * patch);
        if limit < needed {
            return Err(Error::MemoryLimit { needed, limit, what: "the network and the results" });
        }
        let rest = limit - taken;
        let waiting = |(open, at_once): &(usize, usize)| 2 * (open * at_once) as u64 * patch;
        let halves = |most: usize| core::iter::successors(Some(most), |&n| (n > 1).then_some(n / 2));
        let choices = halves(open).flat_map(|open| halves(ROWS).map(move |at_once| (open, at_once)));
        let (open, at_once) = choices.into_iter().find(|choice| waiting(choice) <= rest / 4).unwrap_or((1, 1));
        let rest = rest - waiting(&(open, at_once)).min(rest);
        // Kept rows are three times there at the end, as the means are; their places may have room for twice as many.
        let kept = (3 * self.dim() * 4 + 2 * size_of::<Crop>()) as u64;
        let (images, kept) = if self.options.keep_patches { (rest / 2, rest / 2 / kept) } else { (rest, u64::MAX) };
        Ok(Flow { threads, open, rows: ROWS, at_once, budget: Budget::new(images), kept })
    }
}

impl Stream<'_> {
    /// The memory of an image besides its pixels, while it is open: the list of its patches and their order, and under a limit its mean
    /// so far and the search for its class.
    pub(super) fn bytes_beside(&self, size: ImageSize) -> u64 {
        const OF_PATCH: u64 = (size_of::<Crop>() + size_of::<u32>()) as u64;
        let patches = match self.options.patches.bag(&self.spec.patch, size) {
            Ok(Bag::Grid { spec, stride }) => Grid::new(spec, size, stride).map_or(0, Grid::patches) as u64,
            Ok(Bag::Random { patches, .. }) => u64::from(patches),
            // Whole images have one; that there are none is said when they are listed.
            Ok(_) | Err(_) => 1,
        };
        let crops = patches.saturating_mul(OF_PATCH);
        if self.options.memory_limit.is_none() {
            return crops;
        }
        // A mean has two vectors.
        let mean = 2 * (self.dim() * size_of::<f64>()) as u64;
        let used = self.options.stop.rule().map_or(patches, |(rule, _)| rule.max_patches.min(patches));
        let search = self.options.decide.map_or(0, |(classifier, _)| classifier.search_bytes(used));
        crops.saturating_add(mean).saturating_add(search)
    }
}

/// The cores that this program may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}
