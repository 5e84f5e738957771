//! The input gradient of a strided convolution as ordinary convolutions, one per phase of the
//! stride.

use crate::plan::Window;

/// The pixels of one axis with the same offset modulo the stride, and the kernel taps that reach
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase {
    /// The first tap that reaches these pixels. The others follow at intervals of the stride.
    pub(crate) tap: usize,
    /// The number of taps.
    pub(crate) taps: usize,
    /// The distance by which the window starts before the first pixel's position in the gradient;
    /// negative if it starts after it.
    pub(crate) before: isize,
    /// The number of pixels of this phase.
    pub(crate) length: usize,
    /// The distance between adjacent taps, and between adjacent pixels of the phase.
    pub(crate) stride: usize,
}

impl Phase {
    /// Pixel `stride * i + phase` of an input of `size` pixels receives tap `tap + stride * j` of
    /// gradient `i + shift - j`.
    pub(crate) fn new(window: Window, axis: usize, phase: usize, size: usize) -> Self {
        let (kernel, stride, padding) = (window.kernel[axis], window.stride[axis], window.padding[axis]);
        let (tap, shift) = ((phase + padding) % stride, (phase + padding) / stride);
        let taps = kernel.saturating_sub(tap).div_ceil(stride);
        let length = size.saturating_sub(phase).div_ceil(stride);
        Phase { tap, taps, before: taps as isize - 1 - shift as isize, length, stride }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 taps, stride 2, padding 1 over 5 pixels: outputs 0 to 2 read pixels -1..1, 1..3, 3..5.
    /// Pixels 0, 2, 4 are reached only by the middle tap. Pixels 1 and 3 are reached by the last
    /// tap of one output and the first tap of the next.
    #[test]
    fn phases_by_hand() {
        let window = Window::square(3, 2, 1);
        let phase = |phase| Phase::new(window, 0, phase, 5);
        assert_eq!(phase(0), Phase { tap: 1, taps: 1, before: 0, length: 3, stride: 2 });
        assert_eq!(phase(1), Phase { tap: 0, taps: 2, before: 0, length: 2, stride: 2 });
        // A kernel of one pixel never reaches the second pixel of each pair.
        assert_eq!(Phase::new(Window::square(1, 2, 0), 1, 1, 4).taps, 0);
    }
}
