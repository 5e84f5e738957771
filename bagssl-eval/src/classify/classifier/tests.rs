//! Tests of classifiers: storing and searching.

use bagssl_core::random::{Address, Purpose};

use super::*;
use crate::classify::probe::Linear;

const DIM: usize = 3;

/// An image of class 1 or 4 as the embeddings of its patches, `[patch, dim]`.
fn image(number: u32, patches: usize) -> (Rows, u32) {
    let mut random = Address { seed: 5, image: number, ..Address::default() }.stream(Purpose::Evaluation);
    let label = [1, 4][random.below(2) as usize];
    let center = if label == 1 { [2.0, 0.5, 1.0] } else { [0.5, 2.0, 1.0] };
    let values = (0..patches * DIM).map(|i| (center[i % DIM] + 0.8 * random.normal_pair().0) as f32).collect();
    (Rows { values, dim: DIM }, label)
}

fn mean(rows: &Rows) -> Vec<f32> {
    let mean = |d: usize| rows.values.iter().skip(d).step_by(DIM).sum::<f32>() / rows.len() as f32;
    (0..DIM).map(mean).collect()
}

fn classifiers() -> [Classifier; 2] {
    let images: Vec<(Rows, u32)> = (100..140).map(|number| image(number, 64)).collect();
    let values = images.iter().flat_map(|(rows, _)| mean(rows)).collect();
    let train = Samples::new(Rows { values, dim: DIM }, images.iter().map(|(_, label)| *label).collect()).unwrap();
    let names: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
    let new = |kind| Classifier::new(kind, names.clone(), "net".into()).unwrap();
    let linear = ClassifierKind::Linear(Linear::default().fit(&train).unwrap());
    [new(linear), new(ClassifierKind::Neighbors(Knn { neighbors: 5, temperature: 0.1 }, train))]
}

#[test]
fn early_decisions_agree_with_all_patches() {
    for classifier in classifiers() {
        let (mut early, mut alike) = (0, 0);
        for number in 0..50 {
            let (patches, _) = image(number, 200);
            let mut search = classifier.search(200, 8, 0.95).unwrap();
            let used = 1 + patches.values.chunks(DIM).position(|patch| search.push(patch).unwrap()).unwrap();
            let seen = Rows { values: patches.values[..used * DIM].to_vec(), dim: DIM };
            early += usize::from(used < 200);
            alike +=
                usize::from(classifier.predict(&mean(&seen)).unwrap() == classifier.predict(&mean(&patches)).unwrap());
        }
        assert!(early > 40 && alike >= 48, "{}: {early} early, {alike} alike", classifier.describe());
    }
}

#[test]
fn last_patch_decides() {
    for classifier in classifiers() {
        let mut search = classifier.search(3, 2, 0.9999).unwrap();
        let far = [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0]];
        assert_eq!(far.map(|patch| search.push(&patch).unwrap()), [false, false, true]);
        assert!(classifier.search(3, 1, 0.9).is_err() && classifier.search(3, 2, 1.5).is_err());
    }
}

/// A refused patch is not added: the next one is still the first.
#[test]
fn each_patch_is_checked() {
    for classifier in classifiers() {
        let mut search = classifier.search(3, 2, 0.9999).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let error = search.push(&[1.0, bad, 1.0]).unwrap_err();
            assert!(matches!(error, Error::NotFinite { index: 1, .. }), "{error}");
        }
        assert!(matches!(search.push(&[1.0]), Err(Error::Length { expected: DIM, got: 1, .. })));
        let far = [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0]];
        assert_eq!(far.map(|patch| search.push(&patch).unwrap()), [false, false, true]);
        let error = search.push(&far[0]).unwrap_err();
        assert!(matches!(error, Error::Core(_)), "{error}");
        assert_eq!(error.to_string(), "grid patches: expected length 3, got 4");
    }
}

/// Of 200 patches: two logits of 8 bytes each, or an embedding of three values of 4 bytes; a vector
/// that grows may have twice its length.
#[test]
fn the_memory_of_a_search_by_hand() {
    let [linear, neighbors] = classifiers();
    assert_eq!([&linear, &neighbors].map(|by| by.search_bytes(200)), [2 * 200 * 16, 2 * 200 * 12]);
    assert_eq!([&linear, &neighbors].map(|by| [by.search_bytes(0), by.search_bytes(u64::MAX)]), [[0, u64::MAX]; 2]);
    // Weights and biases of two classes; their logits and sums; the patch.
    assert_eq!(linear.work_bytes(), 8 * (2 * 4) + 8 * (4 * 2 + 3));
    // 40 samples of three values, twice; 72 bytes for each; four tangents; nine rows.
    assert_eq!(neighbors.work_bytes(), 2 * 4 * 120 + 72 * 40 + 4 * 24 + 9 * (12 + 64));
    for classifier in [linear, neighbors] {
        let mut search = classifier.search(200, 8, 0.9999).unwrap();
        for patch in image(3, 150).0.values.chunks(DIM) {
            search.push(patch).unwrap();
        }
        let SearchKind::Neighbors(NeighborSearch { embeddings, .. }) = search.0 else { continue };
        assert!(4 * embeddings.values.capacity() as u64 <= classifier.search_bytes(150));
    }
}

#[test]
fn classifier_file_round_trip() {
    for classifier in classifiers() {
        let file = classifier.to_bytes().unwrap();
        assert_eq!(Classifier::from_bytes(&file).unwrap(), classifier);
        assert_eq!((classifier.dim(), classifier.network(), classifier.classes()[4].as_str()), (DIM, "net", "e"));
    }
}

/// A file of format 1, which has no digest, as versions before wrote it.
fn without_digest(file: &[u8]) -> Vec<u8> {
    with_header(file, &[], |json| {
        let (json, _) = bagssl_core::checkpoint::digest::split(json).unwrap();
        json.replacen("\"format_version\":2", "\"format_version\":1", 1)
    })
}

/// The same tensors, with the changed JSON and other entries in the metadata.
fn with_header(file: &[u8], others: &[(&str, &str)], change: impl Fn(&str) -> String) -> Vec<u8> {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(file).unwrap();
    let mut entries = metadata.metadata().clone().unwrap();
    let json = entries.get_mut("bagssl-classifier").unwrap();
    *json = change(json);
    entries.extend(others.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())));
    safetensors::serialize(safetensors::SafeTensors::deserialize(file).unwrap().tensors(), Some(entries)).unwrap()
}

#[test]
fn a_file_of_format_1_is_read() {
    for classifier in classifiers() {
        let new = classifier.to_bytes().unwrap();
        let old = without_digest(&new);
        assert!(old.len() < new.len() && Classifier::from_bytes(&old).unwrap() == classifier);
        let error = |file: &[u8]| Classifier::from_bytes(file).unwrap_err().to_string();
        let later = with_header(&new, &[], |json| json.replacen("version\":2", "version\":3", 1));
        assert_eq!(error(&later), "format version: expected 2 or 1, got 3");
        let none = with_header(&old, &[], |json| json.replacen("version\":1", "version\":2", 1));
        assert_eq!(error(&none), "metadata: expected a digest at the end of the metadata, got none");
        let more = with_header(&new, &[("note", "mine")], |json| json.to_string());
        assert_eq!(error(&more), "metadata: expected \"bagssl-classifier\" only, got also \"note\"");
    }
}

#[test]
fn a_flipped_bit_is_noticed() {
    for classifier in classifiers() {
        let file = classifier.to_bytes().unwrap();
        let mut random = Address { seed: 9, ..Address::default() }.stream(Purpose::Evaluation);
        for flip in 0..200 {
            let bit = random.below(8 * file.len() as u32) as usize;
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Classifier::from_bytes(&flipped).is_err(), "flip {flip}, of bit {bit}");
        }
        // All bits of a number.
        for bit in 0..64 {
            let (mut flipped, last) = (file.clone(), file.len() - 8);
            flipped[last + bit / 8] ^= 1 << (bit % 8);
            let error = Classifier::from_bytes(&flipped).unwrap_err().to_string();
            assert!(error.starts_with("the file is corrupt: expected digest "), "{error}");
        }
    }
}

/// Any changed byte of a file without a digest gives a classifier or an error, but no panic. A
/// truncated file never gives a classifier.
#[test]
fn broken_files_are_refused() {
    for classifier in classifiers() {
        let file = without_digest(&classifier.to_bytes().unwrap());
        assert!((0..file.len()).step_by(7).all(|length| Classifier::from_bytes(&file[..length]).is_err()));
        for at in 0..file.len() {
            let mut broken = file.clone();
            broken[at] ^= 0x11;
            if let Ok(other) = Classifier::from_bytes(&broken) {
                let _ = other.predict(&[1.0; DIM]);
            }
        }
    }
    let other = safetensors::serialize(Vec::<(&str, safetensors::tensor::TensorView<'_>)>::new(), None).unwrap();
    let error = Classifier::from_bytes(&other).unwrap_err().to_string();
    assert_eq!(error, "file: expected a classifier, with metadata \"bagssl-classifier\", got none");
    let names = vec!["only".to_string()];
    let kind = classifiers()[0].kind.clone();
    assert!(Classifier::new(kind, names, String::new()).unwrap_err().to_string().contains("a name for class 4"));
}
