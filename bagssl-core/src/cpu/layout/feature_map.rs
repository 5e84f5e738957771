//! The memory layout of maps: `[image, row, pixel, channel]`, with a border of zeros.
#![allow(unsafe_code, reason = "several threads write disjoint parts of one map")]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::alloc;

/// Channels are padded to a multiple of this, so that they fill the vectors of every instruction
/// set. Inputs with fewer channels may stay unpadded.
pub(crate) const CHANNELS: usize = 16;

/// Memory aligned to cache lines, so that a pixel of [`CHANNELS`] values is one line. Large buffers
/// request huge pages where the system supports them, because reading large weights once is bound
/// by address translation.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a buffer owns its memory.
unsafe impl Send for Buffer {}
unsafe impl Sync for Buffer {}

/// Bytes of a cache line and of a huge page.
const CACHE_LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

impl Buffer {
    /// Allocates `len` zeros, rounded up to a multiple of [`CHANNELS`].
    pub(crate) fn new(len: usize) -> Self {
        let counted = len.checked_next_multiple_of(CHANNELS).filter(|&len| len <= isize::MAX as usize / 8);
        let Some(len) = counted else { alloc::handle_alloc_error(Layout::new::<f32>()) };
        if len == 0 {
            return Buffer { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has a nonzero size, and all of the new memory is written before it is
        // read.
        unsafe {
            let Some(start) = NonNull::new(alloc::alloc(layout).cast::<f32>()) else {
                alloc::handle_alloc_error(layout)
            };
            if layout.align() == HUGE_PAGE {
                ask_for_huge_pages(start.as_ptr().cast(), layout.size());
            }
            start.as_ptr().write_bytes(0, len);
            Buffer { start, len }
        }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.saturating_mul(size_of::<f32>());
        let align = if bytes >= 2 * HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        match Layout::from_size_align(bytes, align) {
            Ok(layout) => layout,
            Err(_) => alloc::handle_alloc_error(Layout::new::<f32>()),
        }
    }

    /// Grows to at least `len` values. Existing values are preserved, new values are zero.
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

    /// Returns a pointer to memory whose users agree on disjoint parts to write.
    pub(crate) fn shared_ptr(&self) -> *mut f32 {
        self.start.as_ptr()
    }

    fn as_slice(&self) -> &[f32] {
        // SAFETY: this number of values was initialized when the buffer was created.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the buffer is mutably borrowed.
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
    // SAFETY: advice on memory that was just allocated and is not yet in use. The result does not
    // matter.
    let _ = unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn ask_for_huge_pages(_: *mut u8, _: usize) {}

/// The dimensions of a map: its pixels, and the border that later layers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// `[height, width]`
    pub(crate) size: [usize; 2],
    /// Number of stored values per pixel.
    pub(crate) channels: usize,
    /// Number of border rows above and border pixels to the left.
    pub(crate) before: usize,
    /// `[rows, pixels]` including the border on all sides.
    pub(crate) extent: [usize; 2],
}

impl Form {
    /// Creates a map without a border.
    pub(crate) fn new(size: [usize; 2], channels: usize) -> Self {
        Form { size, channels, before: 0, extent: size }
    }

    /// Extends the border: zeros `before` the first pixel, and up to `after`, counted from the
    /// first pixel.
    pub(crate) fn with_border(self, before: usize, after: [usize; 2]) -> Self {
        let grow = before.saturating_sub(self.before);
        let current = self.extent.map(|extent| extent + grow);
        let before = self.before + grow;
        Form { before, extent: [0, 1].map(|axis| current[axis].max(before + after[axis])), ..self }
    }

    /// Returns the number of values per image.
    pub(crate) fn len(self) -> usize {
        self.extent[0] * self.extent[1] * self.channels
    }

    /// Returns the number of values of `images` images, or `None` if their bytes exceed the address
    /// space.
    pub(crate) fn len_of(self, images: usize) -> Option<usize> {
        let [height, width] = self.extent;
        let len = height.checked_mul(width)?.checked_mul(self.channels)?.checked_mul(images)?;
        len.checked_mul(4).filter(|&bytes| bytes <= isize::MAX as usize).map(|_| len)
    }

    /// Returns the map of this form at a memory location.
    pub(crate) fn at(self, memory: *mut f32) -> Map {
        let row = self.extent[1] * self.channels;
        Map {
            // The offset stays within the memory of the first image.
            start: memory.wrapping_add(self.before * (row + self.channels)),
            size: self.size,
            channels: self.channels,
            pixel: self.channels,
            row,
            image: self.len(),
        }
    }
}

/// A map that threads share. Each thread writes only its own pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map {
    /// The first pixel.
    pub(crate) start: *mut f32,
    /// `[height, width]`
    pub(crate) size: [usize; 2],
    /// Number of stored values per pixel.
    pub(crate) channels: usize,
    /// Distances in values between adjacent pixels, rows and images.
    pub(crate) pixel: usize,
    pub(crate) row: usize,
    pub(crate) image: usize,
}

// SAFETY: a `Map` is a pointer with sizes. Code that accesses memory through it states why that is
// sound.
unsafe impl Send for Map {}
unsafe impl Sync for Map {}

impl Map {
    /// Returns a pointer to a pixel, which may lie in the border.
    pub(crate) fn at(&self, image: usize, y: isize, x: isize) -> *mut f32 {
        self.start.wrapping_offset((image * self.image) as isize + y * self.row as isize + x * self.pixel as isize)
    }

    /// Returns the same map starting at a later image.
    pub(crate) fn image_on(self, image: usize) -> Map {
        Map { start: self.at(image, 0, 0), ..self }
    }

    /// Returns every `stride`-th pixel, starting at `(y, x)`.
    pub(crate) fn every(self, stride: [usize; 2], [y, x]: [usize; 2]) -> Map {
        let size =
            [self.size[0].saturating_sub(y).div_ceil(stride[0]), self.size[1].saturating_sub(x).div_ceil(stride[1])];
        let start = self.at(0, y as isize, x as isize);
        Map { start, size, pixel: self.pixel * stride[1], row: self.row * stride[0], ..self }
    }
}
