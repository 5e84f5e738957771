//! Reference values for tests: Pillow's results for a small image (tests/reference/pillow.py).

use bagssl_core::patch::ImageSize;
use serde_json::Value;

use crate::image::Image;

/// Returns all reference values, and their input image.
pub(crate) fn pillow() -> (Value, Image) {
    let values: Value = serde_json::from_str(include_str!("../../tests/reference/pillow.json")).unwrap();
    let number = |name: &str| values[name].as_u64().unwrap() as u32;
    let size = ImageSize { height: number("height"), width: number("width") };
    let image = Image::new(size, bytes(&values["rgb"]));
    (values, image)
}

/// Converts a JSON list to bytes.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    value.as_array().unwrap().iter().map(|level| level.as_u64().unwrap() as u8).collect()
}

/// Panics if a value differs by more than one level.
#[track_caller]
pub(crate) fn within_a_level(what: &str, got: &[u8], expected: &Value) {
    let expected = bytes(expected);
    assert_eq!(got.len(), expected.len());
    let worst = got.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    let off = got.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert!(worst <= 1, "{what}: {worst} grey levels, {off} of {} differ", got.len());
}
