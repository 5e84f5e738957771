//! Decoded images, and the limits that are checked before decoding.

pub(crate) mod decoder;
pub(crate) mod sniff;
mod jpeg;
mod webp;
mod pixels;

pub use pixels::Image;
pub(crate) use pixels::luma;

/// The longest allowed side of an image in pixels.
pub(crate) const MAX_SIDE: u32 = 16_384;
/// The default memory limit for decoding images in bytes.
pub const MAX_BYTES: u64 = 512 << 20;

/// Settings for decoding images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decode {
    /// Whether to apply the EXIF orientation. The default is not to, as in torchvision.
    pub exif: bool,
}
