#![no_main]
//! A list of images that is read is printed as one that is read alike.

use std::path::Path;

use bagssl_data::lists::{parse, print};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(images) = parse(bytes, Path::new("fuzz")) {
        assert_eq!(parse(print(&images).as_bytes(), Path::new("fuzz")).unwrap(), images);
    }
});
