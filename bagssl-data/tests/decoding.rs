//! Files of every kind decode as Pillow decodes them (tests/reference/decode.py).

use bagssl_core::patch::ImageSize;
use bagssl_data::{Decode, Image};
use serde_json::Value;

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn reference() -> Value {
    serde_json::from_str(include_str!("reference/decode.json")).unwrap()
}

/// Where more than a level is allowed, the file says so: in JPEGs of color the inverse cosine transform and then the colors
/// are rounded, the chroma of some and of lossy WebP is brought to full size by another filter, and CMYK is rounded twice.
#[test]
fn files_of_every_kind_are_pillows() {
    let reference = reference();
    let mut wrong = Vec::new();
    for case in reference["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let image = Image::decode(&hex(&case["file"]), name).unwrap();
        assert_eq!(image.size(), ImageSize { height: 19, width: 26 }, "{name}");
        let expected = hex(&case["rgb"]);
        let worst = image.rgb().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if u64::from(worst) > case["within"].as_u64().unwrap() {
            wrong.push(format!("{name}: {worst} grey levels"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// EXIF's orientation 6: what is to be shown is the stored picture turned clockwise by a quarter.
#[test]
fn orientation_is_applied_if_that_is_asked_for() {
    let reference = reference();
    let cases = reference["cases"].as_array().unwrap();
    let file = hex(&cases.iter().find(|case| case["name"] == "jpeg, turned").unwrap()["file"]);
    let stored = Image::decode(&file, "x").unwrap();
    let shown = Image::decode_with(&file, "x", Decode { exif: true }).unwrap();
    assert_eq!(shown.size(), ImageSize { height: 26, width: 19 });
    let pixel = |image: &Image, row: usize, column: usize| {
        image.rgb()[(row * image.size().width as usize + column) * 3..][..3].to_vec()
    };
    for (row, column) in [(0, 0), (0, 18), (25, 0), (7, 4)] {
        assert_eq!(pixel(&shown, row, column), pixel(&stored, 18 - column, row));
    }
}
