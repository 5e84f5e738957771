//! A checkpoint is evaluated on two splits.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bagssl::{
    Color, Dataset, EmbedOptions, Encoder, Error, EvalOptions, Evaluation, Event, FeatureLayer, Groups, OnBadImage,
    Patches, Space, Splits, View, evaluate, evaluate_baselines,
};
use bagssl_core::embed::Rows;
use bagssl_eval::{Knn, Linear, Samples};

use crate::support::{GOLDEN, four_patches, photographs};

/// The same accuracies by other means: images embedded one by one as a stream, and classifiers called by hand.
#[test]
fn accuracies_by_their_pieces() {
    let (encoder, splits) = (Encoder::load(GOLDEN).unwrap(), photographs());
    let evaluation = encoder.evaluate(&splits, &four_patches()).unwrap();
    let samples = |dataset: &Arc<Dataset>, patches| {
        let embedded = encoder.embed_dataset(dataset, &EmbedOptions { patches, ..EmbedOptions::default() }).unwrap();
        let values = embedded.images.iter().flat_map(|image| image.mean.clone()).collect();
        let labels = embedded.images.iter().map(|image| dataset.label(image.image)).collect();
        Samples::new(Rows { values, dim: encoder.dim() }, labels).unwrap()
    };
    for (patches, view, count) in
        [(Patches::Grid { stride: Some(32) }, View::Patches, 4), (Patches::Whole, View::Whole, 1)]
    {
        let [train, test] = [&splits.train, &splits.test].map(|dataset| samples(dataset, patches));
        let knn = Knn::default().evaluate(&train, &test).unwrap();
        let linear = Linear::default().evaluate(&train, &test).unwrap();
        let key = (Space::Embedding, Color::Rgb, view, count);
        let got = evaluation.accuracies.iter().find(|it| (it.space, it.color, it.view, it.patches) == key).unwrap();
        assert_eq!((got.knn, got.linear), (knn.accuracy, linear.accuracy), "{view:?}");
        let [details, _] = got.details.as_ref().unwrap();
        let interval = details.interval.unwrap();
        assert!(details.top5 == knn.top5 && interval.low <= got.knn && got.knn <= interval.high);
    }
    // One, four and the whole, in color and in grayscale.
    assert_eq!(evaluation.accuracies.len(), 2 * 3);
    assert_eq!(evaluation.mean_of_patches(FeatureLayer::Embedding, Color::Rgb), Some(&evaluation.accuracies[1]));
    assert_eq!(evaluation.mean_of_patches(FeatureLayer::Projection, Color::Rgb), None);
    assert_eq!(evaluation.convergence.iter().map(|it| it.patches).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(evaluation.neighbors[&Space::Embedding].len(), 9, "a patch of each class");

    let json = serde_json::to_value(&evaluation).unwrap();
    assert_eq!(serde_json::from_value::<Evaluation>(json.clone()).unwrap(), evaluation);
    let json = json.to_string();
    assert!(["scores", "colour", "neighbours", "found"].iter().all(|key| json.contains(&format!("\"{key}\":"))));
}

#[test]
fn all_layers_of_any_network() {
    let layers = [FeatureLayer::Embedding, FeatureLayer::Projection];
    let (encoder, splits) = (Encoder::load_layers(GOLDEN, &layers).unwrap(), photographs());
    let model = encoder.model("golden");
    assert_eq!(model.evaluated_layers(&EvalOptions::default().protocol), layers);
    let one = EvalOptions { patches: Some(Patches::Random(1)), ..EvalOptions::default() };
    let evaluation = evaluate(&model, &splits, &layers, &one).unwrap();
    assert_eq!(evaluation, encoder.evaluate(&splits, &one).unwrap());
    let spaces: Vec<Space> = evaluation.health.keys().copied().collect();
    assert_eq!(spaces, [Space::Embedding, Space::Projection]);
    // One patch and the whole, of both layers, in color and in grayscale.
    assert_eq!(evaluation.accuracies.len(), 2 * 2 * 2);

    let none = evaluate(&model, &splits, &[], &one);
    assert!(matches!(none, Err(Error::Setting { name: "layers", .. })), "{none:?}");
    let of_none = EvalOptions { patches: Some(Patches::Random(0)), ..one };
    assert!(matches!(encoder.evaluate(&splits, &of_none), Err(Error::Setting { name: "random", .. })));
    let tiles = EvalOptions { groups: Groups::Tiles, ..one };
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let error = encoder.evaluate(&Splits::open(folder.path()).unwrap(), &tiles).unwrap_err();
    assert!(matches!(&error, Error::NotTiles { image } if image == "val/a/0.png"), "{error}");
}

/// Three pictures of each of two classes in each split: reddish ones in class a, bluish ones in class b.
fn pictures(folder: &Path) {
    for split in ["train", "val"] {
        for (class, [red, blue]) in [("a", [200, 20]), ("b", [20, 200])] {
            let path = folder.join(split).join(class);
            std::fs::create_dir_all(&path).unwrap();
            for number in 0..3 {
                let pixel = |x: u32, y: u32| image::Rgb([red + number, (x * y) as u8 % 16, blue + (x + y) as u8 % 16]);
                image::RgbImage::from_fn(40, 33, pixel).save(path.join(format!("{number}.png"))).unwrap();
            }
        }
    }
}

#[test]
fn baselines_see_color() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let splits = Splits::open(folder.path()).unwrap();
    let baselines = evaluate_baselines(&splits, &EvalOptions::default()).unwrap();
    for accuracies in [&baselines.pixels, &baselines.histogram] {
        assert_eq!(accuracies.iter().map(|it| it.color).collect::<Vec<_>>(), [Color::Rgb, Color::Grey]);
        assert_eq!((accuracies[0].knn, accuracies[0].linear), (100.0, 100.0));
        assert!(accuracies.iter().all(|it| (it.space, it.view, it.patches) == (Space::Input, View::Whole, 1)));
    }
    assert_eq!(splits.chance(), 50.0);
}

/// What a call says: the number of images that it embeds or reads, and the other events in words.
fn listen(call: impl FnOnce(&(dyn Fn(Event<'_>) + Sync))) -> (u64, Vec<String>) {
    let heard = Mutex::new((0, Vec::new()));
    call(&|event| {
        let mut heard = heard.lock().unwrap();
        match event {
            Event::Embedded(images) => heard.0 += images,
            Event::Skipped(skipped) => heard.1.extend(skipped.iter().map(|it| format!("skipped {it}"))),
            Event::Planned(images) => heard.1.push(format!("planned {images}")),
            other => heard.1.push(format!("{other:?}")),
        }
    });
    heard.into_inner().unwrap()
}

#[test]
fn cached_features_are_reused_and_skipped_images_reported() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    std::fs::write(folder.path().join("val/b/2.png"), "no picture").unwrap();
    let (encoder, cache) = (Encoder::load(GOLDEN).unwrap(), folder.path().join("cache"));
    let evaluate = |splits: &Splits, options: EvalOptions<'_>| {
        let mut evaluation = None;
        let heard = listen(|on_event| {
            let on_event = Some(on_event);
            evaluation = Some(encoder.evaluate(splits, &EvalOptions { on_event, ..options }).unwrap());
        });
        (evaluation.unwrap(), heard)
    };
    let skip = EvalOptions { on_bad_image: OnBadImage::Skip, ..EvalOptions::default() };
    let splits = Splits::open(folder.path()).unwrap();
    let in_memory = evaluate(&splits, skip);
    // Both splits, colors and views: 6 training and 5 test images.
    let (_, (embedded, notes)) = &in_memory;
    assert_eq!((*embedded, notes.len(), notes[0].as_str()), (11 * 4, 1 + 4, "planned 48"), "{notes:?}");
    assert!(notes[1..].iter().all(|note| note.starts_with("skipped") && note.contains("val/b/2.png")), "{notes:?}");

    let cached = EvalOptions { feature_cache: Some(&cache), ..skip };
    assert_eq!(evaluate(&splits, cached), in_memory);
    let (again, (_, notes)) = evaluate(&splits, cached);
    assert_eq!((&again, notes.len()), (&in_memory.0, 1 + 4));
    assert!(notes[1..].iter().all(|note| note == "SkippedBefore(1)"), "{notes:?}");

    // Another image of the same name.
    std::fs::copy(folder.path().join("val/b/1.png"), folder.path().join("val/b/2.png")).unwrap();
    let (_, (_, notes)) = evaluate(&Splits::open(folder.path()).unwrap(), cached);
    assert!(notes[1..].iter().all(|note| note.contains("ImagesChanged") && note.contains("is_cached: false")));
    assert_eq!(notes.len(), 1 + 4, "of the test images: {notes:?}");

    std::fs::write(folder.path().join("val/b/2.png"), "no picture").unwrap();
    assert!(encoder.evaluate(&splits, &EvalOptions::default()).unwrap_err().to_string().contains("val/b/2.png"));
}
