#![no_main]
//! An image that is decoded has the size that its header says, and as many bytes. Large ones, which are slow, are for the tests.

use bagssl_data::Image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    const MAX_PIXELS: u64 = 1 << 20;
    let told = Image::size_from_header(bytes, "fuzz");
    if told.as_ref().is_ok_and(|size| u64::from(size.height) * u64::from(size.width) > MAX_PIXELS) {
        return;
    }
    if let Ok(image) = Image::decode(bytes, "fuzz") {
        let size = image.size();
        assert_eq!(told.unwrap(), size);
        assert_eq!(image.rgb().len(), size.height as usize * size.width as usize * 3);
    }
});
