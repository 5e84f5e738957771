//! Where maps lie in memory: `[image, row, pixel, channel]`, within a border of zeros.
#![allow(unsafe_code, reason = "several threads write disjoint parts of one map")]

use std::prelude::v1::*;

/// Channels are stored in multiples of this, so that every vector of every instruction set fits.
pub(super) const CHANNELS: usize = 16;

/// Memory in whole cache lines, so that a pixel of [`CHANNELS`] values is one line.
#[derive(Default, Clone)]
pub(super) struct Buffer(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through pointers to all lines")] [f32; CHANNELS]);

impl Buffer {
    /// Zeros.
    pub(super) fn new(len: usize) -> Self {
        Buffer(vec![Line([0.0; CHANNELS]); len.div_ceil(CHANNELS)])
    }

    /// At least so long; what is in it stays, new values are zeros.
    pub(super) fn grow(&mut self, len: usize) {
        if self.0.len() * CHANNELS < len {
            self.0.resize(len.div_ceil(CHANNELS), Line([0.0; CHANNELS]));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len() * CHANNELS
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: a line is 16 floats without padding.
        unsafe { core::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len()) }
    }
}

/// The form of a map: its pixels, and the border that those who read it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// `[height, width]`
    pub(super) size: [usize; 2],
    /// Values of a pixel as stored.
    pub(super) channels: usize,
    /// Rows above, and pixels to the left.
    pub(super) before: usize,
    /// `[rows, pixels]` with the border on all sides.
    pub(super) extent: [usize; 2],
}

impl Form {
    /// A map without border.
    pub(super) fn new(size: [usize; 2], channels: usize) -> Self {
        Form { size, channels, before: 0, extent: size }
    }

    /// Adds what a reader needs: zeros `before` it, and `after` counted from the first pixel.
    pub(super) fn with_border(self, before: usize, after: [usize; 2]) -> Self {
        let grow = before.saturating_sub(self.before);
        let have = self.extent.map(|extent| extent + grow);
        let before = self.before + grow;
        Form { before, extent: [0, 1].map(|axis| have[axis].max(before + after[axis])), ..self }
    }

    /// Values of an image.
    pub(super) fn len(self) -> usize {
        self.extent[0] * self.extent[1] * self.channels
    }

    /// A map of this form at some memory.
    pub(super) fn at(self, memory: *mut f32) -> Map {
        let row = self.extent[1] * self.channels;
        Map {
            // Within the memory of the first image.
            start: memory.wrapping_add(self.before * (row + self.channels)),
            size: self.size,
            channels: self.channels,
            pixel: self.channels,
            row,
            image: self.len(),
        }
    }
}

/// A map that threads share: each writes pixels of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    /// Its first pixel.
    pub(super) start: *mut f32,
    /// `[height, width]`
    pub(super) size: [usize; 2],
    /// Values of a pixel as stored.
    pub(super) channels: usize,
    /// Values from pixel to pixel, row to row, image to image.
    pub(super) pixel: usize,
    pub(super) row: usize,
    pub(super) image: usize,
}

// SAFETY: a `Map` is but a pointer with sizes; those who read and write through it say why that is sound.
unsafe impl Send for Map {}
unsafe impl Sync for Map {}

impl Map {
    /// A pixel. It may lie in the border.
    pub(super) fn at(&self, image: usize, y: isize, x: isize) -> *mut f32 {
        self.start.wrapping_offset((image * self.image) as isize + y * self.row as isize + x * self.pixel as isize)
    }

    /// The same map from a later image on.
    pub(super) fn from_image(self, image: usize) -> Map {
        Map { start: self.at(image, 0, 0), ..self }
    }

    /// Every `stride`-th pixel from `(y, x)` on.
    pub(super) fn every(self, stride: [usize; 2], [y, x]: [usize; 2]) -> Map {
        let size =
            [self.size[0].saturating_sub(y).div_ceil(stride[0]), self.size[1].saturating_sub(x).div_ceil(stride[1])];
        let start = self.at(0, y as isize, x as isize);
        Map { start, size, pixel: self.pixel * stride[1], row: self.row * stride[0], ..self }
    }
}
