#![no_main]
//! An image that is decoded has as many bytes as its size says.

use bagssl_data::image::Image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = Image::decode(bytes, "fuzz") {
        let size = image.size();
        assert_eq!(image.rgb().len(), size.height as usize * size.width as usize * 3);
    }
});
