//! Pictures in the report: thumbnails as data URIs, and the sheets that contain them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, same_length};
use crate::report::outcome::{Method, Space};

/// A small image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thumbnail {
    height: u32,
    width: u32,
    rgb: Vec<u8>,
}

impl Thumbnail {
    /// Creates a thumbnail from RGB pixels, `[height, width, channel]`.
    ///
    /// # Errors
    /// [`Error::Empty`] without pixels, and [`Error::Length`] if the length of `rgb` does not match
    /// the size.
    pub fn new(height: u32, width: u32, rgb: Vec<u8>) -> Result<Self> {
        if height == 0 || width == 0 {
            return Err(Error::Empty("thumbnail pixels"));
        }
        same_length("thumbnail bytes", height as usize * width as usize * 3, rgb.len())?;
        Ok(Thumbnail { height, width, rgb })
    }

    /// Returns the width and the height of the picture if its longer side is drawn with length
    /// `side`.
    pub(crate) fn within(&self, side: f64) -> [f64; 2] {
        let (height, width) = (f64::from(self.height), f64::from(self.width));
        [width, height].map(|length| length * side / height.max(width))
    }

    /// Returns the image as a PNG in a data URI.
    pub(crate) fn data_uri(&self) -> Result<String> {
        Ok(format!("data:image/png;base64,{}", STANDARD.encode(self.png()?)))
    }

    fn png(&self) -> Result<Vec<u8>> {
        let refused = |error: png::EncodingError| Error::Thumbnail(error.to_string());
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(refused)?;
        writer.write_image_data(&self.rgb).map_err(refused)?;
        writer.finish().map_err(refused)?;
        Ok(bytes)
    }
}

/// A picture with its class. The pixels are not part of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tile {
    /// The image's index in its data set.
    pub image: u32,
    /// The patch's index in its bag; `None` for the whole image.
    pub patch: Option<u32>,
    /// The name of the class.
    pub class: String,
    /// The picture.
    #[serde(skip)]
    pub thumbnail: Thumbnail,
}

/// A patch and its nearest neighbors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SheetRow {
    /// The patch.
    pub query: Tile,
    /// The neighbors with their cosine similarities, in descending order.
    #[serde(rename = "neighbours")]
    pub neighbors: Vec<(Tile, f32)>,
}

/// The nearest neighbors of some patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// The method that produced the features.
    pub model: Method,
    /// The layer of the features.
    pub space: Space,
    /// The rows, one per query.
    pub rows: Vec<SheetRow>,
}

/// An image and its bag of patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BagSheet {
    /// A title that says how the patches were drawn, such as "training, with augmentation".
    pub title: String,
    /// The image.
    pub image: Tile,
    /// Its patches.
    pub patches: Vec<Tile>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows and three columns, decoded by another crate.
    #[test]
    fn a_thumbnail_survives() {
        let rgb: Vec<u8> = (0..18).map(|i| i * 14).collect();
        let thumbnail = Thumbnail::new(2, 3, rgb.clone()).unwrap();
        let uri = thumbnail.data_uri().unwrap();
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let image = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!((image.width(), image.height(), image.into_raw()), (3, 2, rgb));
    }

    #[test]
    fn lengths_must_fit() {
        assert!(Thumbnail::new(2, 3, vec![0; 17]).is_err());
        assert!(Thumbnail::new(0, 3, vec![]).is_err());
    }
}
