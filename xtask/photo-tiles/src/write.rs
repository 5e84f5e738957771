//! The files that tiles are written to.

use anyhow::{Context, Result};
use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::lanczos::resized;
use super::tiles::{TILE, Tile};

/// ImageFolder in a tar, by class, scale, row and column.
pub(crate) fn tar(top: &str, classes: &[String], halves: &[Vec<Tile>; 2]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (half, tiles) in ["train", "val"].into_iter().zip(halves) {
        let mut tiles: Vec<&Tile> = tiles.iter().collect();
        tiles.sort_by_key(|tile| (tile.label, tile.scale, tile.row, tile.column));
        for tile in tiles {
            let Tile { scale, row, column, .. } = tile;
            let name = format!("{top}/{half}/{}/s{scale}-x{column:02}-y{row:02}.jpg", classes[tile.label]);
            let bytes = jpeg(&tile.pixels)?;
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes.as_slice())?;
        }
    }
    archive.into_inner().context("the tar cannot be ended")
}

/// JPEG of quality 90 with colors at half the size, as Pillow writes it.
fn jpeg(tile: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(tile.as_raw(), TILE as u16, TILE as u16, ColorType::Rgb)?;
    Ok(bytes)
}

/// CIFAR-100's records: a coarse and a fine label, and the planes of the tile at half its size.
pub(crate) fn cifar(tiles: &[Tile]) -> Vec<u8> {
    let mut records = Vec::new();
    for tile in tiles {
        let small = resized(&tile.pixels, TILE / 2, TILE / 2);
        records.extend([(tile.label / 5) as u8, tile.label as u8]);
        for channel in 0..3 {
            records.extend(small.pixels().map(|pixel| pixel.0[channel]));
        }
    }
    records
}
