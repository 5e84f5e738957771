#![no_main]
//! A `meta.mat` is read or refused; what is read has wnids of plain letters.

use bagssl_data::synsets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(synsets) = synsets(bytes) {
        assert!(synsets.iter().all(|synset| synset.wnid.is_ascii()));
    }
});
