//! Where maps lie in memory: `[image, row, pixel, channel]`, within a border of zeros.
#![allow(unsafe_code, reason = "several threads write disjoint parts of one map")]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::alloc;

/// Channels are stored in multiples of this, so that every vector of every instruction set fits.
pub(crate) const CHANNELS: usize = 16;

/// Memory in whole cache lines, so that a pixel of [`CHANNELS`] values is one line. Large ones ask for huge pages, where
/// the system has them: weights that are read once through a small cache are bound by the translation of addresses.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a buffer owns its memory.
unsafe impl Send for Buffer {}
unsafe impl Sync for Buffer {}

/// Bytes of a cache line, and of a huge page.
const LINE: usize = 64;
const HUGE: usize = 2 << 20;

impl Buffer {
    /// Zeros.
    pub(crate) fn new(len: usize) -> Self {
        let counted = len.checked_next_multiple_of(CHANNELS).filter(|&len| len <= isize::MAX as usize / 8);
        let Some(len) = counted else { alloc::handle_alloc_error(Layout::new::<f32>()) };
        if len == 0 {
            return Buffer { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has a size; all of the new memory is written before it is read.
        unsafe {
            let Some(start) = NonNull::new(alloc::alloc(layout).cast::<f32>()) else {
                alloc::handle_alloc_error(layout)
            };
            if layout.align() == HUGE {
                ask_for_huge_pages(start.as_ptr().cast(), layout.size());
            }
            start.as_ptr().write_bytes(0, len);
            Buffer { start, len }
        }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.saturating_mul(size_of::<f32>());
        let align = if bytes >= 2 * HUGE { HUGE } else { LINE };
        match Layout::from_size_align(bytes, align) {
            Ok(layout) => layout,
            Err(_) => alloc::handle_alloc_error(Layout::new::<f32>()),
        }
    }

    /// At least so long; what is in it stays, new values are zeros.
    pub(crate) fn grow(&mut self, len: usize) {
        if self.len < len {
            let mut longer = Buffer::new(len);
            longer.as_mut_slice()[..self.len].copy_from_slice(self.as_slice());
            *self = longer;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.start.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.start.as_ptr()
    }

    /// The same for memory whose users agree on who writes what.
    pub(crate) fn shared_ptr(&self) -> *mut f32 {
        self.start.as_ptr()
    }

    fn as_slice(&self) -> &[f32] {
        // SAFETY: that many values were written when the buffer was made.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the buffer is borrowed alone.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer::new(0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `new` with the layout of this length.
            unsafe { alloc::dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
        }
    }
}

#[cfg(all(feature = "std", target_os = "linux"))]
fn ask_for_huge_pages(start: *mut u8, len: usize) {
    // SAFETY: advice on memory that was just allocated and holds nothing; what the system makes of it does not matter.
    let _ = unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn ask_for_huge_pages(_: *mut u8, _: usize) {}

/// The form of a map: its pixels, and the border that those who read it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// `[height, width]`
    pub(crate) size: [usize; 2],
    /// Values of a pixel as stored.
    pub(crate) channels: usize,
    /// Rows above, and pixels to the left.
    pub(crate) before: usize,
    /// `[rows, pixels]` with the border on all sides.
    pub(crate) extent: [usize; 2],
}

impl Form {
    /// A map without border.
    pub(crate) fn new(size: [usize; 2], channels: usize) -> Self {
        Form { size, channels, before: 0, extent: size }
    }

    /// Adds what a reader needs: zeros `before` it, and `after` counted from the first pixel.
    pub(crate) fn with_border(self, before: usize, after: [usize; 2]) -> Self {
        let grow = before.saturating_sub(self.before);
        let have = self.extent.map(|extent| extent + grow);
        let before = self.before + grow;
        Form { before, extent: [0, 1].map(|axis| have[axis].max(before + after[axis])), ..self }
    }

    /// Values of an image.
    pub(crate) fn len(self) -> usize {
        self.extent[0] * self.extent[1] * self.channels
    }

    /// Values of so many images, if an address can count their bytes.
    pub(crate) fn len_of(self, images: usize) -> Option<usize> {
        let [height, width] = self.extent;
        let len = height.checked_mul(width)?.checked_mul(self.channels)?.checked_mul(images)?;
        len.checked_mul(4).filter(|&bytes| bytes <= isize::MAX as usize).map(|_| len)
    }

    /// A map of this form at some memory.
    pub(crate) fn at(self, memory: *mut f32) -> Map {
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
pub(crate) struct Map {
    /// Its first pixel.
    pub(crate) start: *mut f32,
    /// `[height, width]`
    pub(crate) size: [usize; 2],
    /// Values of a pixel as stored.
    pub(crate) channels: usize,
    /// Values from pixel to pixel, row to row, image to image.
    pub(crate) pixel: usize,
    pub(crate) row: usize,
    pub(crate) image: usize,
}

// SAFETY: a `Map` is but a pointer with sizes; those who read and write through it say why that is sound.
unsafe impl Send for Map {}
unsafe impl Sync for Map {}

impl Map {
    /// A pixel. It may lie in the border.
    pub(crate) fn at(&self, image: usize, y: isize, x: isize) -> *mut f32 {
        self.start.wrapping_offset((image * self.image) as isize + y * self.row as isize + x * self.pixel as isize)
    }

    /// The same map from a later image on.
    pub(crate) fn image_on(self, image: usize) -> Map {
        Map { start: self.at(image, 0, 0), ..self }
    }

    /// Every `stride`-th pixel from `(y, x)` on.
    pub(crate) fn every(self, stride: [usize; 2], [y, x]: [usize; 2]) -> Map {
        let size =
            [self.size[0].saturating_sub(y).div_ceil(stride[0]), self.size[1].saturating_sub(x).div_ceil(stride[1])];
        let start = self.at(0, y as isize, x as isize);
        Map { start, size, pixel: self.pixel * stride[1], row: self.row * stride[0], ..self }
    }
}
