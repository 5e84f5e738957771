#![no_main]
//! A parquet file that is opened lists rows whose classes are there, and whose images are read or refused.

use std::path::Path;

use bagssl_data::Dataset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(dataset) = Dataset::from_parquet(bytes.to_vec(), Path::new("fuzz")) {
        for image in 0..dataset.len().min(64) {
            assert!((dataset.label(image) as usize) < dataset.classes().len());
            let _ = dataset.size_from_header(image);
        }
    }
});
