//! Pictures in the report: small images as data URIs, and the sheets they stand in.

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
    /// Joins pixels, `[height, width, channel]` (red, green, blue), to their size.
    ///
    /// # Errors
    /// [`Error::Empty`] without pixels, [`Error::Length`] if the lengths do not fit.
    pub fn new(height: u32, width: u32, rgb: Vec<u8>) -> Result<Self> {
        if height == 0 || width == 0 {
            return Err(Error::Empty("pixels of a thumbnail"));
        }
        same_length("bytes of a thumbnail", height as usize * width as usize * 3, rgb.len())?;
        Ok(Thumbnail { height, width, rgb })
    }

    /// Width and height of the picture where its longer side is drawn so long.
    pub(crate) fn within(&self, side: f64) -> [f64; 2] {
        let (height, width) = (f64::from(self.height), f64::from(self.width));
        [width, height].map(|length| length * side / height.max(width))
    }

    /// The image as PNG in a data URI.
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
    /// The patch's index in its bag; none for the whole image.
    pub patch: Option<u32>,
    /// The class's name.
    pub class: String,
    /// What it looks like.
    #[serde(skip)]
    pub thumbnail: Thumbnail,
}

/// A patch and those nearest to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SheetRow {
    /// The patch.
    pub query: Tile,
    /// The nearest first, with their cosine similarity.
    #[serde(rename = "neighbours")]
    pub neighbors: Vec<(Tile, f32)>,
}

/// Nearest neighbors of some patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// What made the features.
    pub model: Method,
    /// Where they were taken.
    pub space: Space,
    /// A row for each query.
    pub rows: Vec<SheetRow>,
}

/// An image and the patches that stand for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BagSheet {
    /// Whose patches they are: "training, with augmentation", for instance.
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
