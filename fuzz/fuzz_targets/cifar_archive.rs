#![no_main]
//! A `.tar.gz` that is accepted as CIFAR's has labels of its list, and images.

use std::path::Path;

use bagssl_data::{Dataset, Split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for split in Split::ALL {
        if let Ok(dataset) = Dataset::from_cifar_archive(bytes, Path::new("fuzz"), split) {
            for image in 0..dataset.len() {
                assert!((dataset.label(image) as usize) < dataset.classes().len());
                assert_eq!(dataset.decode(image).unwrap().rgb().len(), 32 * 32 * 3);
            }
        }
    }
});
