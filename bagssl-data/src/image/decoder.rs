//! Decoding of one image: its format, the memory that decoding needs, and its pixels.

use std::io::Cursor;

use bagssl_core::patch::ImageSize;
use image::error::{LimitError, LimitErrorKind};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result, one_line};
use crate::image::{Decode, Image, MAX_BYTES, MAX_SIDE, jpeg, sniff, webp};
use crate::memory::Budget;

/// The memory in bytes for metadata before a PNG's pixels, beyond the file's own size. Color
/// profiles are compressed.
const HEADER: u64 = 4 << 20;
/// The memory in bytes that every decoder needs: tables and a few rows.
const LITTLE: u64 = 64 << 10;

/// An image whose header has been read.
pub(crate) struct PreparedImage<'a> {
    bytes: &'a [u8],
    name: &'a str,
    format: ImageFormat,
    decoder: Box<dyn ImageDecoder + 'a>,
}

impl<'a> PreparedImage<'a> {
    /// Returns the memory for an encoded image of `length` bytes before its format is known: the
    /// bytes and the decoders' copies of them.
    pub(crate) fn read_memory(length: u64) -> u64 {
        length.saturating_mul(3).saturating_add(LITTLE)
    }

    /// Reads the header of a JPEG, PNG, WebP, BMP or GIF.
    ///
    /// # Errors
    /// [`Error::Image`] with the given name if there is no header, or a side is 0 or longer than
    /// [`MAX_SIDE`].
    pub(crate) fn new(bytes: &'a [u8], name: &'a str) -> Result<Self> {
        let failed = |error| without_header(name, bytes, error);
        let mut reader =
            ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| failed(error.into()))?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(HEADER + 2 * bytes.len() as u64);
        reader.limits(limits.clone());
        let format = reader.format().unwrap_or(ImageFormat::Tiff);
        let decoder = reader.into_decoder().map_err(failed)?;
        limits.check_dimensions(decoder.dimensions().0, decoder.dimensions().1).map_err(failed)?;
        let prepared = PreparedImage { bytes, name, format, decoder: Box::new(decoder) };
        let ImageSize { height, width } = prepared.size();
        if height.min(width) == 0 {
            return Err(refuse(name, "at least one pixel", format!("{height}x{width}")));
        }
        Ok(prepared)
    }

    /// The size in the header, before any EXIF rotation.
    pub(crate) fn size(&self) -> ImageSize {
        let (width, height) = self.decoder.dimensions();
        ImageSize { height, width }
    }

    /// Returns the most bytes that decoding needs, besides those of [`PreparedImage::read_memory`].
    ///
    /// # Errors
    /// [`Error::Image`] if the header is incomplete or contradictory.
    pub(crate) fn decode_memory(&self, decode: Decode) -> Result<u64> {
        let ImageSize { height, width } = self.size();
        let (pixels, decoded) = (u64::from(height) * u64::from(width), self.decoder.total_bytes());
        let scratch = match self.format {
            // A progressive decoder, and one for components in separate scans, stores all
            // coefficients with 16 bits each. The check before decoding needs one bit each.
            ImageFormat::Jpeg => match jpeg::header(self.bytes) {
                Some((frame, _)) if (frame.width, frame.height) != (width, height) => {
                    return Err(refuse(
                        self.name,
                        "a JPEG with one size",
                        format!("also {}x{}", frame.height, frame.width),
                    ));
                }
                Some((frame, in_rows)) if in_rows && !frame.progressive => 0,
                Some((frame, _)) => frame.blocks() * 64 * 2,
                None => pixels * 4 * 2,
            },
            ImageFormat::WebP => webp::decode_memory(self.bytes, (width, height)).ok_or_else(|| {
                refuse(self.name, "a complete WebP", format!("{} bytes without its end", self.bytes.len()))
            })?,
            // A frame that is smaller than the image needs a second buffer.
            ImageFormat::Gif => decoded,
            _ => 0,
        };
        let into_rgb = if self.decoder.color_type() == ColorType::Rgb8 { 0 } else { 3 * pixels };
        let turned = if decode.exif { decoded } else { 0 };
        Ok(decoded + scratch + into_rgb.max(turned))
    }

    /// Decodes the pixels. Drops transparency, and applies the EXIF orientation if requested.
    /// Checks that a JPEG is complete, unless `is_verified` says that it is known to be.
    ///
    /// # Errors
    /// [`Error::Image`] if the image cannot be decoded, is truncated or damaged.
    pub(crate) fn decode(self, decode: Decode, is_verified: bool) -> Result<Image> {
        let PreparedImage { bytes, name, format, mut decoder } = self;
        let failed = |error| failed(name, bytes.len(), error);
        if format == ImageFormat::Jpeg && !is_verified {
            jpeg::check(bytes).map_err(|got| refuse(name, "a complete JPEG", got))?;
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(decoder.total_bytes());
        decoder.set_limits(limits).map_err(failed)?;
        let orientation = match decode.exif {
            true => decoder.orientation().map_err(failed)?,
            false => Orientation::NoTransforms,
        };
        let mut decoded = DynamicImage::from_decoder(decoder).map_err(failed)?;
        decoded.apply_orientation(orientation);
        let rgb = decoded.into_rgb8();
        let size = ImageSize { height: rgb.height(), width: rgb.width() };
        Ok(Image::new(size, rgb.into_raw()))
    }
}

fn refuse(name: &str, expected: &str, got: String) -> Error {
    Error::Image { name: name.into(), expected: expected.into(), got }
}

fn failed(name: &str, length: usize, error: ImageError) -> Error {
    refuse(name, IMAGE, format!("{length} bytes: {}", one_line(&error)))
}

const IMAGE: &str = "a JPEG, PNG, WebP, BMP or GIF image";

/// Returns the error for an image without a readable header: the detected file type or the size of
/// the image.
fn without_header(name: &str, bytes: &[u8], error: ImageError) -> Error {
    let is_too_long = |error: &LimitError| error.kind() == LimitErrorKind::DimensionError;
    match &error {
        ImageError::Limits(limit) if is_too_long(limit) => {
            let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok();
            let got = match reader.and_then(|reader| reader.into_dimensions().ok()) {
                Some((width, height)) => format!("{height}x{width}"),
                None => "more".into(),
            };
            refuse(name, &format!("an image of at most {MAX_SIDE} pixels a side"), got)
        }
        ImageError::Unsupported(_) => match sniff::file_kind(bytes).and_then(|what| what.split(';').next()) {
            Some(what) => refuse(name, IMAGE, format!("{} bytes: {what}", bytes.len())),
            None => failed(name, bytes.len(), error),
        },
        _ => failed(name, bytes.len(), error),
    }
}

impl Image {
    /// Decodes an image with the default settings; see [`Image::decode_with`].
    ///
    /// # Errors
    /// The errors of [`Image::decode_with`].
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        Self::decode_with(bytes, name, Decode::default())
    }

    /// Decodes a JPEG, PNG, WebP, BMP or GIF (its first frame). Drops transparency, and applies the
    /// EXIF orientation if requested.
    ///
    /// # Errors
    /// [`Error::Image`](crate::Error::Image) with the given name if the image cannot be decoded, is
    /// truncated or damaged, has no pixels, has a side of more than 16384 pixels, or exceeds [`MAX_BYTES`].
    pub fn decode_with(bytes: &[u8], name: &str, decode: Decode) -> Result<Self> {
        let prepared = PreparedImage::new(bytes, name)?;
        let needs = prepared.decode_memory(decode)?;
        // A budget of its own limits the memory of this one image. The caller's other images are
        // not counted.
        let _room = Budget::new(MAX_BYTES).take(needs, name)?;
        prepared.decode(decode, false)
    }

    /// Returns the size in an image's header. The image itself may still be damaged.
    ///
    /// # Errors
    /// [`Error::Image`](crate::Error::Image) with the given name if there is no valid header.
    pub fn size_from_header(bytes: &[u8], name: &str) -> Result<ImageSize> {
        Ok(PreparedImage::new(bytes, name)?.size())
    }
}
