//! The grid that images have in common, or the image that has another.

use std::io::Cursor;
use std::path::Path;

use bagssl_core::bag::Bag;
use bagssl_core::patch::{PatchSide, PatchSpec};
use bagssl_data::{BagConfig, BagLoader, Dataset, Decode, OnBadImage, Split, common_grid};

const FAIL: OnBadImage = OnBadImage::Fail;
const SKIP: OnBadImage = OnBadImage::Skip;

/// Patches of 4 pixels.
fn spec() -> PatchSpec {
    PatchSpec::new(PatchSide::Pixels(4), 4).unwrap()
}

fn png(height: u32, width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::RgbImage::new(width, height).write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// Images `val/x/0.png` and so on.
fn dataset(files: &[Vec<u8>]) -> Dataset {
    let mut builder = tar::Builder::new(Vec::new());
    for (index, bytes) in files.iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, format!("val/x/{index}.png"), bytes.as_slice()).unwrap();
    }
    Dataset::from_tar(builder.into_inner().unwrap(), Path::new("grids"), Split::Validation).unwrap()
}

/// Rows and columns at a stride of 4.
fn layout(datasets: &[&Dataset], on_bad_image: OnBadImage) -> Result<(u32, u32), String> {
    let grid = common_grid(datasets, spec(), 4, on_bad_image).map_err(|error| error.to_string())?;
    Ok((grid.rows(), grid.columns()))
}

/// 8x12 and 9x15 pixels have 2 rows and 3 columns of patches; 12x8 has as many patches, but 3 rows.
#[test]
fn a_turned_image_has_as_many_patches_and_another_grid() {
    let (wide, also_wide) = (dataset(&[png(8, 12), png(9, 15)]), dataset(&[png(8, 13)]));
    assert_eq!(layout(&[&wide, &also_wide], FAIL), Ok((2, 3)));
    let expected = "expected a grid of 2x3 patches (rows x columns), as in val/x/0.png, got 3x2 in an image of 12x8";
    let mixed = dataset(&[png(8, 12), png(8, 12), png(12, 8)]);
    for on_bad_image in [FAIL, SKIP] {
        let error = layout(&[&mixed], on_bad_image).unwrap_err();
        assert!(error.starts_with(&format!("val/x/2.png: {expected}")), "{error}");
    }
    let error = layout(&[&wide, &dataset(&[png(12, 8)])], FAIL).unwrap_err();
    assert!(error.starts_with(&format!("val/x/0.png: {expected}")), "the other half: {error}");

    // Their bags are as good for a mean as any.
    let config = BagConfig { bag: Bag::Grid { spec: spec(), stride: 4 }, input: 4, ..BagConfig::default() };
    let loader = BagLoader::new(mixed.into(), config).unwrap();
    assert_eq!((loader.patches(), loader.batches().map(|batch| batch.unwrap().images().len()).sum()), (6, 3));
}

/// No image, one that is smaller than a patch, one that is cut short after its header.
#[test]
fn unusable_images_count_only_if_they_fail() {
    let mut short = png(12, 8);
    short.truncate(short.len() - 30);
    let bad = [b"no image".to_vec(), png(3, 12), short];
    for bad in &bad {
        for files in [[bad.clone(), png(8, 12)], [png(8, 12), bad.clone()]] {
            let dataset = dataset(&files);
            assert_eq!(layout(&[&dataset], SKIP), Ok((2, 3)));
            assert!(layout(&[&dataset], FAIL).unwrap_err().contains("val/x/"));
        }
    }
    let error = layout(&[&dataset(&bad)], SKIP).unwrap_err();
    assert_eq!(error, "grids: expected a usable image, got none");
}

/// A JPEG of 19x26 that EXIF turns (tests/reference/decode.py).
#[test]
fn exif_turns_the_grid_where_it_turns_the_image() {
    let reference: serde_json::Value = serde_json::from_str(include_str!("reference/decode.json")).unwrap();
    let case = reference["cases"].as_array().unwrap().iter().find(|case| case["name"] == "jpeg, turned").unwrap();
    let text = case["file"].as_str().unwrap();
    let turned = (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    let stored = dataset(&[png(19, 26), turned]);
    assert_eq!(layout(&[&stored], FAIL), Ok((4, 6)));
    let shown = stored.with_decode(Decode { exif: true });
    assert!(layout(&[&shown], FAIL).unwrap_err().contains("got 6x4 in an image of 26x19"));
}
