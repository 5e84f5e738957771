#![no_main]
//! CIFAR records that are accepted have labels of the list, and are images. The first byte says the layout, the second the
//! length of the list, which comes next; the rest are records.

use std::path::Path;

use bagssl_data::{Cifar, Dataset};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [layout, length, rest @ ..] = bytes else { return };
    let Some((list, records)) = rest.split_at_checked(usize::from(*length)) else { return };
    let layout = if layout % 2 == 0 { Cifar::Ten } else { Cifar::Hundred };
    if let Ok(dataset) = Dataset::from_cifar(records.to_vec(), list, layout, Path::new("fuzz")) {
        for image in 0..dataset.len() {
            assert!((dataset.label(image) as usize) < dataset.classes().len());
            assert_eq!(dataset.decode(image).unwrap().rgb().len(), 32 * 32 * 3);
        }
    }
});
