//! Decoded images, and the limits that apply before one is decoded.

pub(crate) mod decoder;
pub(crate) mod sniff;
mod jpeg;
mod webp;
mod pixels;

pub use pixels::Image;
pub(crate) use pixels::luma;

/// The longest side of an image, in pixels.
pub const LONGEST_SIDE: u32 = 16_384;
/// The most bytes that decoding images may take at a time, if nobody says how many.
pub const MOST_BYTES: u64 = 512 << 20;

/// How images are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decode {
    /// Whether EXIF's orientation is applied. torchvision does not, and neither does the default.
    pub exif: bool,
}
