//! Thumbnails of images and patches, for reports.

use std::sync::Arc;

use bagssl_core::bag::Bag;
use bagssl_core::color::Color;
use bagssl_data::{BagConfig, BagLoader, Dataset, Image, OnBadImage};
use bagssl_eval::report::{SheetRow, Thumbnail, Tile};

use crate::error::Result;
use crate::evaluation::NearestPatches;

/// The maximum length of a thumbnail's longer side, in pixels.
const LARGEST: u32 = 96;

/// Draws the patches of a data set's images as thumbnails.
#[derive(Debug)]
pub struct Thumbnails {
    dataset: Arc<Dataset>,
    bags: BagLoader,
}

impl Thumbnails {
    /// Creates thumbnails of the patches of `bag`. `seed` is the seed of random bags. Callers must
    /// not ask for images that cannot be used.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if the bag does not fit the data set.
    pub fn new(dataset: Arc<Dataset>, bag: Bag, seed: u64, color: Color) -> Result<Self> {
        let config = BagConfig { bag, seed, color, on_bad_image: OnBadImage::Skip, ..BagConfig::default() };
        Ok(Thumbnails { bags: BagLoader::new(dataset.clone(), config)?, dataset })
    }

    /// Returns the number of patches per image.
    pub fn patches(&self) -> usize {
        self.bags.patches()
    }

    /// Returns the thumbnail of a patch, given as `[image, patch]`.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if the image cannot be read, decoded or cut.
    pub fn patch(&self, [image, patch]: [usize; 2]) -> Result<Tile> {
        let thumbnail = thumbnail(&self.bags.picture(image, patch)?)?;
        Ok(Tile { patch: Some(patch as u32), thumbnail, ..tile_of(&self.dataset, image) })
    }

    /// Returns the thumbnails of a patch and its nearest neighbors.
    ///
    /// # Errors
    /// The errors of [`Thumbnails::patch`].
    pub fn row(&self, near: &NearestPatches) -> Result<SheetRow> {
        let neighbors = near.nearest.iter().map(|&(place, similarity)| Ok((self.patch(place)?, similarity)));
        Ok(SheetRow { query: self.patch(near.query)?, neighbors: neighbors.collect::<Result<_>>()? })
    }
}

/// Returns the thumbnail of an entire image, in color.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) if the image cannot be read or decoded.
///
/// # Panics
/// If `image` is out of range.
pub fn image_thumbnail(dataset: &Dataset, image: usize) -> Result<Tile> {
    Ok(Tile { thumbnail: thumbnail(&*dataset.decode(image)?)?, ..tile_of(dataset, image) })
}

fn tile_of(dataset: &Dataset, image: usize) -> Tile {
    let class = dataset.classes()[dataset.label(image) as usize].clone();
    Tile { image: image as u32, patch: None, class, thumbnail: Thumbnail::default() }
}

fn thumbnail(image: &Image) -> Result<Thumbnail> {
    let image = image.shrink_to(LARGEST);
    Ok(Thumbnail::new(image.size().height, image.size().width, image.rgb().to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::patch::{PatchSide, PatchSpec};
    use bagssl_data::Split;

    /// Two rows and three columns of patches in an image that is wider than it is high: patch 5 is
    /// at the bottom right.
    #[test]
    fn the_patch_that_is_named_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let class = folder.path().join("val/a");
        std::fs::create_dir_all(&class).unwrap();
        let pixels = image::RgbImage::from_fn(12, 8, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, 7]));
        pixels.save(class.join("one.png")).unwrap();
        let dataset = Arc::new(Dataset::open(folder.path(), Split::Validation).unwrap());
        let spec = PatchSpec::new(PatchSide::Pixels(4), 4).unwrap();
        let of = |color| Thumbnails::new(dataset.clone(), Bag::Grid { spec, stride: 4 }, 0, color).unwrap();
        let tile = of(Color::Rgb).patch([0, 5]).unwrap();
        let expected: Vec<u8> = (4..8u8).flat_map(|y| (8..12u8).flat_map(move |x| [x * 20, y * 30, 7])).collect();
        assert_eq!(tile.thumbnail, Thumbnail::new(4, 4, expected).unwrap());
        assert_eq!((tile.image, tile.patch, tile.class.as_str(), of(Color::Rgb).patches()), (0, Some(5), "a", 6));
        let near = NearestPatches { query: [0, 1], nearest: vec![([0, 5], 0.5), ([0, 3], 0.25)] };
        let row = of(Color::Rgb).row(&near).unwrap();
        assert_eq!((row.query.patch, row.neighbors[0].0 == tile, row.neighbors[1].1), (Some(1), true, 0.25));
        assert_ne!(of(Color::Grey).patch([0, 5]).unwrap().thumbnail, tile.thumbnail);
    }
}
