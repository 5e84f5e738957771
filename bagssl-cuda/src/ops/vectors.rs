//! Operations on many vectors in a few launches: squared lengths, running statistics and
//! concatenation. Also the similarity of projections.

use bagssl_core::plan::NORM_MOMENTUM;
use burn::tensor::{DType, TensorMetadata};

use super::map::arguments;
use crate::runtime::driver::Grid;
use crate::runtime::job::{Cube, Job, Slot};

/// Has the layout of the struct in `source/vectors.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Vector {
    at: u64,
    count: i64,
    first: i64,
}

/// Has the layout of the struct in `source/vectors.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    value: u64,
    batch: u64,
    to: u64,
    count: i64,
    factor: f32,
}

/// The maximum number of entries that fit in the arguments of a launch.
const VECTORS: usize = 160;
const RUNNINGS: usize = 80;

/// The number of values of a vector that a block squares.
const CHUNK: i64 = 16384;

/// Computes the squared length of each vector.
pub(crate) fn squares(vectors: Vec<Cube>) -> Cube {
    let mut job = Job::new("squared lengths", &vectors[0]);
    let (to, shown) = job.write(&[vectors.len()], DType::F32);
    let read: Vec<(Slot, i64)> = vectors
        .into_iter()
        .map(|vector| {
            let count = vector.meta.num_elements() as i64;
            (job.read_contiguous(vector), count)
        })
        .collect();
    for (number, chunk) in read.chunks(VECTORS).enumerate() {
        let (chunk, firsts) = (chunk.to_vec(), first_chunks(chunk.iter().map(|&(_, count)| count)));
        let chunks = firsts[chunk.len()];
        let (parts, _) = job.write(&[chunks as usize], DType::F32);
        job.then(move |context, at| {
            let mut table = [Vector::default(); VECTORS];
            for ((entry, &(slot, count)), &first) in table.iter_mut().zip(&chunk).zip(&firsts) {
                *entry = Vector { at: at.of(slot), count, first };
            }
            let blocks = u32::try_from(chunks).map_err(|_| format!("vectors: too many values, {chunks} chunks"))?;
            let (parts, to) = (at.of(parts), at.of(to) + (number * VECTORS * size_of::<f32>()) as u64);
            // SAFETY: each used entry of the table points to `count` f32 values, aligned to 16
            // bytes. `parts` has a value per chunk, and the output has a value per vector.
            unsafe {
                let arguments = arguments![table, chunk.len() as i32, parts];
                context.launch("vectors_squares", ([blocks, 1], 256), arguments)?;
                let shape = ([chunk.len() as u32, 1], 256);
                context.launch("vectors_squares_merge", shape, arguments![table, parts, to])
            }
        });
    }
    job.submit();
    shown
}

/// Concatenates vectors.
pub(crate) fn join(vectors: Vec<Cube>) -> Cube {
    let counts: Vec<i64> = vectors.iter().map(|vector| vector.meta.num_elements() as i64).collect();
    let mut job = Job::new("joined vectors", &vectors[0]);
    let (to, shown) = job.write(&[counts.iter().sum::<i64>() as usize], DType::F32);
    let firsts = counts.iter().scan(0, |next, count| Some(std::mem::replace(next, *next + count)));
    let read = vectors.into_iter().map(|vector| job.read_contiguous(vector)).collect::<Vec<_>>();
    let places: Vec<(Slot, i64, i64)> =
        read.into_iter().zip(&counts).zip(firsts).map(|((slot, &count), first)| (slot, count, first)).collect();
    for chunk in places.chunks(VECTORS) {
        let chunk = chunk.to_vec();
        job.then(move |context, at| {
            let mut table = [Vector::default(); VECTORS];
            for (entry, &(slot, count, first)) in table.iter_mut().zip(&chunk) {
                *entry = Vector { at: at.of(slot), count, first };
            }
            let longest = chunk.iter().map(|&(_, count, _)| count).max().unwrap_or(1) as u64;
            // SAFETY: each used entry of the table points to `count` f32 values. The counts add up
            // to the output's length.
            unsafe { context.launch("vectors_join", (across(longest, chunk.len()), 256), arguments![table, at.of(to)]) }
        });
    }
    job.submit();
    shown
}

/// Returns a grid with blocks along the longest vector, for each vector.
fn across(longest: u64, count: usize) -> Grid {
    [longest.div_ceil(256).clamp(1, 64) as u32, count as u32]
}

/// Returns the index of the first chunk of each vector of a launch, followed by the total number of
/// chunks.
fn first_chunks(counts: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut firsts = vec![0];
    firsts.extend(counts.scan(0, |next, count| {
        *next += (count as u64).div_ceil(CHUNK as u64) as i64;
        Some(*next)
    }));
    firsts
}

/// From pairs of a running statistic and a batch statistic, the latter multiplied by its factor,
/// computes the new running statistics.
pub(crate) fn running(inputs: Vec<Cube>, factors: &[f32]) -> Vec<Cube> {
    let mut job = Job::new("running statistics", &inputs[0]);
    let (mut places, mut outputs, mut inputs) = (Vec::new(), Vec::new(), inputs.into_iter());
    for &factor in factors {
        let mut next = || inputs.next().expect("two of each, which have been counted");
        let (value, batch) = (next(), next());
        let count = value.meta.num_elements();
        let (to, shown) = job.write(&[count], DType::F32);
        places.push(([job.read_contiguous(value), job.read_contiguous(batch), to], count as i64, factor));
        outputs.push(shown);
    }
    for chunk in places.chunks(RUNNINGS) {
        let chunk = chunk.to_vec();
        job.then(move |context, at| {
            let mut table = [Running::default(); RUNNINGS];
            for (entry, &(slots, count, factor)) in table.iter_mut().zip(&chunk) {
                let [value, batch, to] = slots.map(|slot| at.of(slot));
                *entry = Running { value, batch, to, count, factor };
            }
            let longest = chunk.iter().map(|&(_, count, _)| count).max().unwrap_or(1) as u64;
            let shape = (across(longest, chunk.len()), 256);
            let (kept, momentum) = ((1.0 - NORM_MOMENTUM) as f32, NORM_MOMENTUM as f32);
            // SAFETY: each used entry of the table points to three vectors of `count` f32 values.
            unsafe { context.launch("vectors_running", shape, arguments![table, kept, momentum]) }
        });
    }
    job.submit();
    outputs
}

/// From projections `[image, patch, dim]`, computes the mean cosine similarity of different images;
/// 0 for one image.
pub(crate) fn similarity(projections: Cube) -> Cube {
    let shape = projections.shape();
    let [images, patches, dim] = [shape[0], shape[1], shape[2]];
    let mut job = Job::new("similarity", &projections);
    let from = job.read_contiguous(projections);
    let (inverses, _) = job.write(&[images * patches], DType::F32);
    // Holds one f64 per dimension.
    let (pairs, _) = job.write(&[2 * dim], DType::F32);
    let (to, shown) = job.write(&[1], DType::F32);
    job.then(move |context, at| {
        let [from, inverses, pairs, to] = [from, inverses, pairs, to].map(|slot| at.of(slot));
        let rows = (images * patches) as i64;
        let blocks =
            u32::try_from((rows as u64).div_ceil(8)).map_err(|_| format!("similarity: too many rows, {rows}"))?;
        let (images, patches, dim) = (images as i64, patches as i32, dim as i32);
        let count = count_of_pairs(images, patches);
        // SAFETY: the projections have `images * patches * dim` values. The buffers have room for a
        // value per row, an f64 per dimension, and the result.
        unsafe {
            context.launch("similarity_lengths", ([blocks, 1], 256), arguments![from, inverses, rows, dim])?;
            let shape = ([(dim as u32).div_ceil(32), 1], 1024);
            context.launch("similarity_columns", shape, arguments![from, inverses, pairs, images, patches, dim])?;
            context.launch("similarity_mean", ([1, 1], 32), arguments![pairs, to, dim, count])
        }
    });
    job.submit();
    shown
}

/// Returns the number of ordered pairs of patches of different images, or 1 if there are none.
fn count_of_pairs(images: i64, patches: i32) -> f64 {
    (images as f64 * (images - 1) as f64 * f64::from(patches) * f64::from(patches)).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_fit_into_the_arguments_of_a_launch() {
        assert_eq!([size_of::<Vector>(), size_of::<Running>()], [24, 40]);
        assert!(VECTORS * size_of::<Vector>() + 16 <= 4096 && RUNNINGS * size_of::<Running>() + 8 <= 4096);
    }

    #[test]
    fn each_vector_has_chunks_of_its_own() {
        assert_eq!(first_chunks([1, CHUNK, 0, CHUNK + 1].into_iter()), [0, 1, 2, 2, 4]);
        assert_eq!(first_chunks([].into_iter()), [0]);
        // Sizes beyond 32 bits, and the maximum length.
        assert_eq!(first_chunks([1 << 40, 3].into_iter()), [0, 1 << 26, (1 << 26) + 1]);
        assert_eq!(first_chunks([i64::MAX].into_iter())[1], 1 << 49);
    }

    #[test]
    fn pairs_are_of_different_images() {
        assert_eq!([count_of_pairs(3, 2), count_of_pairs(1, 5)], [24.0, 1.0]);
    }
}
