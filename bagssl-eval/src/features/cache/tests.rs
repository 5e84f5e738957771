use super::*;
use crate::features::{Order, extract};
use bagssl_core::batch::BatchShape;
use bagssl_core::embed::Rows;
use std::cell::Cell;

type Batch = core::result::Result<PatchBatch, SourceError>;

/// Embeds a patch as its values, and as their sums. Counts the patches that pass through it.
#[derive(Default)]
struct Network {
    seen: Cell<usize>,
    /// Whether three batches are in flight at a time.
    queues: bool,
}

impl Network {
    /// Returns a network that finishes each batch before the next, and one that does not.
    fn both() -> [Self; 2] {
        [false, true].map(|queues| Network { queues, ..Network::default() })
    }
}

impl Embed for Network {
    fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
        self.seen.set(self.seen.get() + batch.shape().rows() * layers.len());
        let length = batch.shape().patch_len();
        let of = |layer: &FeatureLayer| match layer {
            FeatureLayer::Embedding => Rows { values: batch.data().to_vec(), dim: length },
            _ => Rows { values: batch.data().chunks(length).map(|patch| patch.iter().sum()).collect(), dim: 1 },
        };
        Ok(layers.iter().map(of).collect())
    }

    fn in_flight(&self) -> usize {
        if self.queues { 3 } else { 1 }
    }
}

const IMAGES: usize = 7;
/// The image that is missing from the batches, like an unreadable one.
const BROKEN: usize = 4;

/// Batches of two images with two patches of one row and three columns. All values are different.
fn batches(first: usize) -> impl Iterator<Item = Batch> {
    (first..IMAGES).step_by(2).map(|first| {
        let images: Vec<u32> =
            (first..IMAGES.min(first + 2)).filter(|&image| image != BROKEN).map(|i| i as u32).collect();
        let shape = BatchShape { images: images.len(), patches: 2, channels: 1, height: 1, width: 3 };
        let values = images.iter().flat_map(|&image| (0..6).map(move |i| (image * 10 + i) as f32)).collect();
        let labels = images.iter().map(|image| image % 3).collect();
        Ok(PatchBatch::new(shape, values, images, labels)?)
    })
}

const LAYERS: [FeatureLayer; 2] = [FeatureLayer::Embedding, FeatureLayer::Projection];

fn cache_in<'a>(folder: &'a Path, identity: &'a str) -> FeatureCache<'a> {
    FeatureCache { folder, identity, location: "here" }
}

fn in_memory() -> Vec<Features> {
    extract(&Network::default(), batches(0), &LAYERS, &mut |_| ()).unwrap()
}

#[test]
fn stored_features_equal_extracted_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (path, network) = (folder.path().join("made"), Network::default());
    let mut heard = vec![];
    let stored =
        cache_in(&path, "a").extract(&network, batches, &LAYERS, &mut |completed| heard.push(completed)).unwrap();
    assert_eq!(stored, in_memory());
    assert_eq!((stored[0].images(), heard), (&[0, 1, 2, 3, 5, 6][..], vec![0, 2, 4, 5, 6, 6]));
    // A second call with a single layer does not embed any patch again.
    let seen = network.seen.get();
    let again = cache_in(&path, "a").extract(&network, batches, &LAYERS[1..], &mut |_| ()).unwrap();
    assert_eq!((&again[0], network.seen.get()), (&stored[1], seen));
    // A new layer is extracted.
    let more = cache_in(&path, "a")
        .extract(&network, batches, &[FeatureLayer::FirstLayer, FeatureLayer::Embedding], &mut |_| ())
        .unwrap();
    assert_eq!((more[0].layer(), more[0].values()), (FeatureLayer::FirstLayer, stored[1].values()));
    assert_eq!((seen, network.seen.get()), (24, 24 + 12));
    let expected = npy::header(&npy::native('f'), &[6, 2, 3]);
    assert_eq!(std::fs::read(path.join("embedding.npy")).unwrap()[..128], expected);
}

#[test]
fn results_from_files_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let stored = cache_in(folder.path(), "a").extract(&Network::default(), batches, &LAYERS, &mut |_| ()).unwrap();
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    for (stored, memory) in stored.iter().zip(in_memory()) {
        let order = Order::Random { seed: 3 };
        assert_eq!(stored.mean_of(1, order).unwrap(), memory.mean_of(1, order).unwrap());
        let [stored, memory] = [stored, &memory].map(|features| features.samples(2, order).unwrap());
        assert_eq!(stored.hold_out(0.4, 1).unwrap(), memory.hold_out(0.4, 1).unwrap());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
}

/// With one patch, the mean needs no file of its own.
#[test]
fn one_patch_is_its_own_mean() {
    let folder = tempfile::tempdir().unwrap();
    let shape = BatchShape { images: 1, patches: 1, channels: 1, height: 1, width: 3 };
    let single = |first: usize| {
        (first as u32..3).map(move |image| Ok(PatchBatch::new(shape, vec![image as f32; 3], vec![image], vec![0])?))
    };
    let stored = cache_in(folder.path(), "a").extract(&Network::default(), single, &LAYERS[..1], &mut |_| ()).unwrap();
    let mean = stored[0].mean().unwrap();
    assert_eq!((mean.values.as_ptr(), mean.len()), (stored[0].values().as_ptr(), 3));
    assert_eq!(mean.row(2), [2.0; 3]);
    assert!(stored[0].mean_of(2, Order::Given).is_err());
}

/// Stops before each batch in turn, with surplus bytes in an array.
#[test]
fn interrupted_extraction_resumes() {
    for (stop, network) in (0..4).flat_map(|stop| Network::both().map(|network| (stop, network))) {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path(), "a");
        let failing = |first| batches(first).take(stop).chain([Err("gone".into())]);
        let error = cache.extract(&network, failing, &LAYERS, &mut |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "gone");
        // Append surplus bytes, as if the process had been killed.
        let path = folder.path().join("embedding.npy");
        let mut longer = std::fs::read(&path).unwrap();
        longer.extend([1, 2, 3, 4, 5]);
        std::fs::write(&path, longer).unwrap();
        let mut from = None;
        let on = |first| {
            from = Some(first);
            batches(first)
        };
        let whole = cache.extract(&network, on, &LAYERS, &mut |_| ()).unwrap();
        assert_eq!((whole, from), (in_memory(), Some([0, 2, 4, 6][stop])));
        assert_eq!(network.seen.get(), 24);
    }
}

/// A network that copies the folder when image 2 passes through it.
struct Copying<'a> {
    network: Network,
    from: &'a Path,
    to: &'a Path,
}

impl Embed for Copying<'_> {
    fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
        if batch.images()[0] == 2 {
            for entry in std::fs::read_dir(self.from)? {
                let entry = entry?;
                std::fs::copy(entry.path(), self.to.join(entry.file_name()))?;
            }
        }
        self.network.embed(batch, layers)
    }

    fn in_flight(&self) -> usize {
        self.network.in_flight()
    }
}

/// One layer stopped after image 3, in the middle of a batch; the other is new. Only that batch is
/// embedded again for the first layer.
#[test]
fn only_incomplete_layers_are_extracted() {
    Network::both().into_iter().for_each(lagging);
}

fn lagging(network: Network) {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache_in(folder.path(), "a");
    let shape = BatchShape { images: 1, patches: 2, channels: 1, height: 1, width: 3 };
    let single = |image: u32| {
        let values = (0..6).map(|i| (image * 10 + i) as f32).collect();
        Ok(PatchBatch::new(shape, values, vec![image], vec![image % 3])?)
    };
    let some = |_| (0..3).map(single).chain([Err("gone".into())]);
    cache.extract(&Network::default(), some, &LAYERS[..1], &mut |_| ()).unwrap_err();

    let copy = tempfile::tempdir().unwrap();
    let network = Copying { network, from: folder.path(), to: copy.path() };
    let mut heard = vec![];
    let whole = cache.extract(&network, batches, &LAYERS, &mut |completed| heard.push(completed)).unwrap();
    assert_eq!(whole, in_memory());
    // Six images of two patches for the new layer; images 2, 3, 5 and 6 for the other one.
    assert_eq!((network.network.seen.get(), heard), (12 + 8, vec![0, 2, 4, 5, 6, 6]));

    // The state between the truncation and the next save is valid: an extraction can resume from
    // it.
    let cache = super::FeatureCache { folder: copy.path(), identity: "a", location: "here" };
    assert_eq!(cache.extract(&Network::default(), batches, &LAYERS, &mut |_| ()).unwrap(), in_memory());
}

#[test]
fn foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |identity: &str| {
        cache_in(folder.path(), identity).extract(&Network::default(), batches, &LAYERS[..1], &mut |_| ())
    };
    run("a").unwrap();
    let error = run("b").unwrap_err().to_string();
    assert!(error.ends_with("embedding.json: expected features of b, got of a"), "{error}");

    let state = folder.path().join("embedding.json");
    let text = std::fs::read_to_string(&state).unwrap();
    for (from, to, expected) in [
        ("\"format\": 2", "\"format\": 1", "expected format 2, got 1"),
        ("\"images\": 6", "\"images\": 7", "embedding.npy: expected 7 images of 24 bytes, got a shorter file"),
        ("\"images\": 6", "\"images\": 18446744073709551615", "expected the shape of an array"),
        ("\"dim\": 3", "\"dim\": 0", "expected the shape of an array, got 6 x 2 x 0"),
        ("\"dim\": 3", "\"dim\": 2", "embedding.npy: expected 96 bytes of 6 images, got 144"),
        ("\"patches\": 2", "\"patches\": 3", "embedding.npy: expected 6 images of 36 bytes, got a shorter file"),
        ("\"next\": 7", "\"next\": 5", "expected the shape of an array"),
        ("{", "", "expected the state of an extraction"),
    ] {
        let changed = text.replacen(from, to, 1);
        // With a valid digest, as if the state had been written this way.
        let signed = serde_json::from_str::<writer::State>(&changed).map_or(changed, |state| state.text());
        std::fs::write(&state, signed).unwrap();
        let error = run("a").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(&state, text).unwrap();
    for name in ["embedding.npy", "embedding.images.npy"] {
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&[b'x'; 128], &whole[128..]].concat()).unwrap();
        let error = run("a").unwrap_err().to_string();
        assert!(error.ends_with(&format!("{name}: expected the header of this array, got another")), "{error}");
        std::fs::write(&path, whole).unwrap();
    }
    assert!(run("a").is_ok());
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(cache_in(&file, "a").extract(&Network::default(), batches, &LAYERS, &mut |_| ()).is_err());
}

#[test]
fn second_process_waits_and_reuses_features() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache_in(folder.path(), "a");
    assert!(!cache.is_in_use());
    std::thread::scope(|scope| {
        let mut second = None;
        let inside = |first| {
            assert!(cache.is_in_use());
            let thread = scope.spawn(|| {
                let network = Network::default();
                let features = cache.extract(&network, batches, &LAYERS, &mut |_| ()).unwrap();
                (features, network.seen.get())
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!thread.is_finished());
            second = Some(thread);
            batches(first)
        };
        cache.extract(&Network::default(), inside, &LAYERS, &mut |_| ()).unwrap();
        assert_eq!(second.unwrap().join().unwrap(), (in_memory(), 0));
    });
    assert!(!cache.is_in_use());
}

#[test]
fn bad_features_are_named_and_others_stored() {
    struct Bad;
    impl Embed for Bad {
        fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
            let mut rows = Network::default().embed(batch, layers)?;
            if batch.images().contains(&3) {
                rows[0].values[11] = f32::NAN;
            }
            Ok(rows)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = cache_in(folder.path(), "a");
    let error = cache.extract(&Bad, batches, &LAYERS, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(error, "embedding: expected a finite number as value 2 of image 3, patch 1, got NaN");
    let mut from = 0;
    let whole = cache
        .extract(
            &Network::default(),
            |first| {
                from = first;
                batches(first)
            },
            &LAYERS,
            &mut |_| (),
        )
        .unwrap();
    assert_eq!((whole, from), (in_memory(), 2));
    let none = tempfile::tempdir().unwrap();
    let nothing = super::FeatureCache { folder: none.path(), identity: "a", location: "here" }.extract(
        &Bad,
        |_| std::iter::empty(),
        &LAYERS,
        &mut |_| (),
    );
    assert!(matches!(nothing, Err(Error::Empty(_))));
}

#[test]
fn batches_have_to_follow_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache_in(folder.path(), "a");
    let some = |first| batches(first).take(1).chain([Err("gone".into())]);
    cache.extract(&Network::default(), some, &LAYERS, &mut |_| ()).unwrap_err();
    let again = cache.extract(&Network::default(), |_| batches(0), &LAYERS, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(again, "batches: expected ascending images from 2 on, got [0, 1]");
    assert_eq!(cache.extract(&Network::default(), batches, &LAYERS, &mut |_| ()).unwrap(), in_memory());
}

/// One layer has all images. For the other layer, the source ends earlier.
#[test]
fn layers_have_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache_in(folder.path(), "a");
    cache.extract(&Network::default(), batches, &LAYERS[..1], &mut |_| ()).unwrap();
    let fewer = |first| batches(first).take(2);
    let error = cache.extract(&Network::default(), fewer, &LAYERS, &mut |_| ()).unwrap_err().to_string();
    assert!(error.ends_with("projection: expected the 6 images of embedding, got others"), "{error}");
}

/// An array of unknown origin is not overwritten.
#[test]
fn an_array_without_its_state_is_refused() {
    for name in ["embedding.npy", "embedding.images.npy"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, b"mine").unwrap();
        let error =
            cache_in(folder.path(), "a").extract(&Network::default(), batches, &LAYERS, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(&format!("{name}: expected ")), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}

/// Flips bits in different places of each kind of file, for complete and for incomplete features.
#[test]
fn flipped_bits_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache_in(folder.path(), "a");
    let run = || cache.extract(&Network::default(), batches, &LAYERS[..1], &mut |_| ());
    let flip = |name: &str| {
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        // The header of an incomplete array is rewritten, so skip it.
        let first = if name.ends_with(".npy") { npy::LENGTH } else { 0 };
        for number in 0..200 {
            let place = first + number * (whole.len() - first) / 200;
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (number % 8);
            std::fs::write(&path, &flipped).unwrap();
            let error = run().expect_err(&format!("bit {} of byte {place} of {name}", number % 8)).to_string();
            assert!(error.contains(name), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), flipped, "nothing is lost");
        }
        std::fs::write(&path, whole).unwrap();
    };
    let some = |first| batches(first).take(2).chain([Err("gone".into())]);
    cache.extract(&Network::default(), some, &LAYERS[..1], &mut |_| ()).unwrap_err();
    ["embedding.npy", "embedding.images.npy", "embedding.json"].into_iter().for_each(flip);
    assert_eq!(run().unwrap()[0], in_memory()[0]);
    ["embedding.npy", "embedding.images.npy", "embedding.json"].into_iter().for_each(flip);
    assert_eq!(run().unwrap()[0], in_memory()[0]);
}

/// Pipes are refused, because opening them would block.
#[cfg(unix)]
#[test]
fn pipes_are_refused() {
    for name in ["lock", "embedding.json", "embedding.npy"] {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error =
            cache_in(folder.path(), "a").extract(&Network::default(), batches, &LAYERS, &mut |_| ()).unwrap_err();
        assert!(!cache_in(folder.path(), "a").is_in_use());
        assert!(error.to_string().contains(name), "{error}");
    }
}
