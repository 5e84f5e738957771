#![no_main]
//! A shard that is opened lists images whose classes are there and whose bytes are read; `image` decodes them.

use std::path::Path;

use bagssl_data::Dataset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(dataset) = Dataset::from_shard(bytes.to_vec(), Path::new("fuzz")) {
        for image in 0..dataset.len() {
            assert!((dataset.label(image) as usize) < dataset.classes().len());
            let _ = dataset.size_from_header(image);
        }
    }
});
