//! How many images and patches are on their way at a time, so that the memory suffices.

use std::sync::Arc;

use bagssl_core::bag::{Bag, Grid};
use bagssl_core::batch::{BatchShape, PatchBatch};
use bagssl_core::embed::Embed;
use bagssl_core::memory::{MemoryUse, process_memory};
use bagssl_core::patch::{Crop, ImageSize};
use bagssl_data::{Budget, MIB};

use super::{EmbedJob, ImageEmbedding};
use crate::error::{Error, Result};

/// Patches of an image that are cut at once where all of them are wanted. Where memory is limited or an image may be looked at in
/// part, the network looks at patches as soon as there are as many.
pub(super) const ROWS: usize = 64;
/// The most patches that it then looks at: one fewer are not enough, and the next cut brings as many as a cut may have.
const MAX_ROWS: usize = 2 * ROWS - 1;
/// Bytes that the patches of a batch may have.
const MAX_BATCH_BYTES: u64 = 1024 * MIB;
/// Patches of an image that has few.
const FEW_PATCHES: usize = 16;
/// Memory that is not accounted for: stacks of threads, what the allocator keeps.
const SLACK: u64 = 16 * MIB;

/// How images flow to the network.
pub(super) struct Limits {
    /// Threads that decode and cut.
    pub(super) threads: usize,
    /// Images that are open at a time.
    pub(super) open: usize,
    /// Patches that are enough for the network to look at.
    pub(super) rows: usize,
    /// The most patches of an image that are cut at once.
    pub(super) crops_per_request: usize,
    /// The memory for images.
    pub(super) budget: Arc<Budget>,
    /// The maximum number of stored embeddings of patches.
    pub(super) max_stored_rows: u64,
}

impl EmbedJob<'_> {
    /// Under a limit the network looks at a batch, and what the program then holds is taken from the limit.
    pub(super) fn limits(&self, network: &dyn Embed) -> Result<Limits> {
        let count = self.dataset.len();
        let threads = if self.options.threads == 0 { cores() } else { self.options.threads }.clamp(1, count.max(1));
        let side = self.spec.patch.input() as usize;
        let shape = BatchShape { images: 1, patches: MAX_ROWS, channels: 3, height: side, width: side };
        let patch = (shape.patch_len() * 4) as u64;
        // Of large patches fewer wait for the network at a time.
        let max = (MAX_BATCH_BYTES / patch).max(1) as usize;
        let crops_per_request = ROWS.min(max);
        // Twice the images that fill a batch: one half is cut while the network looks at the other.
        let open = if self.is_anytime() { 2 * ROWS / self.next_patch_count(0) } else { threads + 2 };
        let memory = || process_memory().ok_or(Error::UnknownMemory);
        let Some(limit) = self.options.memory_limit else {
            let rows = if self.is_anytime() { ROWS } else { network.rows([side, side]).max(ROWS) }.min(max);
            // As many images as fill the batches on their way and the next, if each has a few patches.
            let filling = if rows > ROWS { (network.in_flight() + 1) * rows / FEW_PATCHES } else { 0 };
            let open = open.max(filling).min(max).clamp(1, count.max(1));
            return Ok(Limits {
                threads,
                open,
                rows,
                crops_per_request,
                budget: self.dataset.budget(),
                max_stored_rows: u64::MAX,
            });
        };
        let open = open.clamp(1, count.max(1));
        // The means, once as rows, once as the array and once as the bytes of the file; the network's batch; what a look at a class
        // takes; and what the caller does.
        let results = 3 * (count * self.dim() * 4) as u64 + (count * size_of::<ImageEmbedding>()) as u64;
        let look = self.options.decide.map_or(0, |(classifier, _)| classifier.work_bytes());
        let results = (results + MAX_ROWS as u64 * patch).saturating_add(look);
        let results = results.saturating_add(self.options.reserved);
        // Before any of it is taken, it is compared; the network's own maps are measured then.
        let before = memory()?;
        let known = (before.current + 2 * patch + SLACK).saturating_add(results);
        if limit < known {
            return Err(Error::MemoryLimit { needed: known, limit, what: "the network and the results" });
        }
        let batch = PatchBatch::new(shape, vec![0.0; shape.rows() * shape.patch_len()], vec![0], vec![0])?;
        network.embed(&batch, &[self.layer()]).map_err(Error::Network)?;
        drop(batch);
        let MemoryUse { current: now, peak: peak_now } = memory()?;
        // What the network took once it takes again, while images and patches have theirs.
        // The peak counts only if the network has raised it: an earlier one is somebody else's.
        let peak = if peak_now > before.peak { peak_now } else { now };
        let taken = (now.max(peak) + SLACK).saturating_add(results);
        let needed = taken.saturating_add(2 * patch);
        if limit < needed {
            return Err(Error::MemoryLimit { needed, limit, what: "the network and the results" });
        }
        let rest = limit - taken;
        let waiting = |(open, crops_per_request): &(usize, usize)| 2 * (open * crops_per_request) as u64 * patch;
        let halvings = |max: usize| core::iter::successors(Some(max), |&n| (n > 1).then_some(n / 2));
        let choices =
            halvings(open).flat_map(|open| halvings(ROWS).map(move |crops_per_request| (open, crops_per_request)));
        let (open, crops_per_request) =
            choices.into_iter().find(|choice| waiting(choice) <= rest / 4).unwrap_or((1, 1));
        let rest = rest - waiting(&(open, crops_per_request)).min(rest);
        // Kept rows are three times there at the end, as the means are; their places may have room for twice as many.
        let max_stored_rows = (3 * self.dim() * 4 + 2 * size_of::<Crop>()) as u64;
        let (images, max_stored_rows) =
            if self.options.keep_patches { (rest / 2, rest / 2 / max_stored_rows) } else { (rest, u64::MAX) };
        Ok(Limits { threads, open, rows: ROWS, crops_per_request, budget: Budget::new(images), max_stored_rows })
    }
}

impl EmbedJob<'_> {
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
