//! Computes the embeddings of all patches of an image in one pass.

use std::prelude::v1::*;

use crate::cpu::{Executor, ExecutorOptions, Threads, WeightSource};
use crate::error::{Error, Result};
use crate::patch::ImageSize;
use crate::plan::{Plan, ReceptiveField};

/// Embeds all patches of an image with an encoder without padding (BagNets). A patch's embedding
/// does not depend on its surroundings, so one pass over the image gives the same result as one
/// pass per patch.
///
/// The side of a patch is that of the encoder's receptive field, or larger by a multiple of its
/// stride. The embedding of a larger patch is the mean over the receptive fields in it, as with the
/// encoder's own global mean.
#[derive(Debug)]
pub struct Dense {
    executor: Executor,
    field: ReceptiveField,
    /// Number of receptive fields per patch in each direction.
    fields: usize,
    side: usize,
}

/// The embeddings of a grid of patches.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseRows {
    /// `[row, column, dim]`
    pub values: Vec<f32>,
    /// Number of rows and columns of patches.
    pub grid: [usize; 2],
    /// The length of an embedding.
    pub dim: usize,
}

/// The maximum side, in pixels, of the part of an image that is encoded at once. It bounds the
/// working memory.
const MAX_PIECE_SIDE: usize = 256;

impl Dense {
    /// Packs an encoder's weights for patches of `side` pixels.
    ///
    /// # Errors
    /// [`Error::Plan`] naming the first layer with padding, [`Error::Setting`] if `side` is not the
    /// receptive field's side plus a multiple of its stride, and like [`Executor::new`].
    pub fn new(plan: &Plan, source: &mut WeightSource<'_>, side: usize, options: ExecutorOptions) -> Result<Self> {
        let (plan, field) = plan.dense()?;
        if side < field.side || !(side - field.side).is_multiple_of(field.stride) {
            return Err(Error::Setting {
                name: "dense patch side",
                expected: "the receptive field's side plus a multiple of its stride",
                got: format!("{side} with a receptive field of side {} and stride {}", field.side, field.stride),
            });
        }
        let fields = (side - field.side) / field.stride + 1;
        let size = options.size.map(|length| length.clamp(field.side, MAX_PIECE_SIDE.max(field.side)));
        Ok(Dense {
            executor: Executor::new(&plan, source, ExecutorOptions { batch: 1, size, ..options })?,
            field,
            fields,
            side,
        })
    }

    /// Returns the step from one patch to the next, in pixels.
    pub fn stride(&self) -> usize {
        self.field.stride
    }

    /// Returns the side of a patch in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Returns the number of rows and columns of patches of an image.
    ///
    /// # Errors
    /// [`Error::PatchTooLarge`] if not a single patch fits.
    pub fn grid(&self, image: ImageSize) -> Result<[usize; 2]> {
        let count = |length: u32| Some((length as usize).checked_sub(self.side)? / self.field.stride + 1);
        match (count(image.height), count(image.width)) {
            (Some(rows), Some(columns)) => Ok([rows, columns]),
            _ => Err(Error::PatchTooLarge { patch: self.side as u32, height: image.height, width: image.width }),
        }
    }

    /// Computes the embedding of every patch on the grid. Patch `(row, column)` starts at pixel
    /// `(row * stride, column * stride)`. The image is encoded in overlapping pieces with sides of
    /// at most 256 pixels (or one receptive field, if that is larger).
    ///
    /// # Shapes
    /// - `image`: `[channel, height, width]`, normalized
    ///
    /// # Errors
    /// [`Error::PatchTooLarge`] if not a single patch fits, [`Error::Length`] if `image` does not
    /// have this size.
    pub fn encode(&self, image: &[f32], size: ImageSize, threads: &dyn Threads) -> Result<DenseRows> {
        let grid = self.grid(size)?;
        let (height, width) = (size.height as usize, size.width as usize);
        let channels = match self.executor.plan().input() {
            crate::plan::Kind::Map(channels) | crate::plan::Kind::Rows(channels) => channels,
        };
        let expected = channels * height * width;
        if image.len() != expected {
            return Err(Error::Length { name: "image values", expected, got: image.len() });
        }
        let ReceptiveField { side, stride } = self.field;
        let dim = self.executor.plan().output_dim();
        // Number of receptive fields in each direction. A patch has one or more.
        let all = grid.map(|patches| patches + self.fields - 1);
        let most = (MAX_PIECE_SIDE.max(side) - side) / stride + 1;
        let mut fields = vec![0.0; all[0] * all[1] * dim];
        let mut workspace = None;
        let mut piece = Vec::new();
        let mut output = Vec::new();
        for top in (0..all[0]).step_by(most) {
            for left in (0..all[1]).step_by(most) {
                let part = [most.min(all[0] - top), most.min(all[1] - left)];
                let pixels = part.map(|fields| (fields - 1) * stride + side);
                piece.clear();
                for channel in 0..channels {
                    for row in 0..pixels[0] {
                        let start = (channel * height + top * stride + row) * width + left * stride;
                        piece.extend_from_slice(&image[start..][..pixels[1]]);
                    }
                }
                let mut space = match workspace.take() {
                    Some(space) if crate::cpu::Workspace::size(&space) == pixels => space,
                    _ => self.executor.workspace(1, pixels, threads)?,
                };
                output.clear();
                self.executor.run_into(&mut space, &piece, threads, &mut output)?;
                workspace = Some(space);
                for (row, values) in output.chunks_exact(part[1] * dim).enumerate() {
                    fields[((top + row) * all[1] + left) * dim..][..part[1] * dim].copy_from_slice(values);
                }
            }
        }
        let values = if self.fields == 1 { fields } else { window_means(&fields, all, dim, self.fields) };
        Ok(DenseRows { values, grid, dim })
    }
}

/// Computes the means over all windows of `side` by `side` vectors of a grid.
fn window_means(fields: &[f32], [rows, columns]: [usize; 2], dim: usize, side: usize) -> Vec<f32> {
    let out = [rows - side + 1, columns - side + 1];
    // Sum along rows, then along columns, both in f64.
    let mut along = vec![0.0_f64; rows * out[1] * dim];
    for row in 0..rows {
        for column in 0..out[1] {
            let sums = &mut along[(row * out[1] + column) * dim..][..dim];
            for field in fields[(row * columns + column) * dim..][..side * dim].chunks_exact(dim) {
                sums.iter_mut().zip(field).for_each(|(sum, &value)| *sum += f64::from(value));
            }
        }
    }
    let share = 1.0 / (side * side) as f64;
    let mut means = Vec::with_capacity(out[0] * out[1] * dim);
    for row in 0..out[0] {
        for value in 0..out[1] * dim {
            let sum: f64 = (row..row + side).map(|row| along[row * out[1] * dim + value]).sum();
            means.push((sum * share) as f32);
        }
    }
    means
}
