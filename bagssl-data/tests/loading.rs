//! Loaders: what a batch holds, and that nothing but its address decides that.
#![cfg(feature = "embedded")]

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use bagssl_core::bag::{Bag, Views};
use bagssl_core::batch::{PatchBatch, PatchSource};
use bagssl_core::color::Color;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{MultiScale, PatchSide, PatchSpec};
use bagssl_data::{
    Augment, BagConfig, BagLoader, Blur, Budget, Dataset, Jitter, Loader, LoaderConfig, OnBadImage, Solarise, Split,
};

fn spec(side: u32, input: u32) -> PatchSpec {
    PatchSpec::new(PatchSide::Pixels(side), input).unwrap()
}

fn config(threads: usize) -> LoaderConfig {
    LoaderConfig {
        views: Views::FixedScale(spec(24, 10)),
        patches: 3,
        batch: 70,
        seed: 9,
        threads,
        augment: Augment {
            flip: 0.5,
            jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.2, probability: 0.8 }),
            grey: 0.2,
            blur: Some(Blur { probability: 0.1, sigma: (0.1, 2.0) }),
            solarise: Some(Solarise { probability: 0.1, threshold: 128 }),
        },
        ..LoaderConfig::default()
    }
}

fn tiles() -> Arc<Dataset> {
    Arc::new(Dataset::embedded(Split::Validation).unwrap())
}

fn all(loader: &Loader, epoch: u32, first: usize) -> Vec<PatchBatch> {
    loader.epoch(epoch, first).map(Result::unwrap).collect()
}

#[test]
fn batches_depend_on_no_thread_no_cache_and_no_beginning() {
    let expected = all(&Loader::new(tiles(), config(1)).unwrap(), 2, 0);
    assert_eq!(expected.len(), 3, "the last 60 of 270 images do not fill a batch");
    for threads in [2, 7] {
        let loader = Loader::new(tiles(), config(threads)).unwrap();
        assert_eq!(all(&loader, 2, 0), expected, "{threads} threads");
        assert_eq!(all(&loader, 2, 1), expected[1..], "from the second batch, images cached");
    }
    let uncached = Loader::new(tiles(), LoaderConfig { cache_bytes: 0, ..config(2) }).unwrap();
    assert_eq!(all(&uncached, 2, 0), expected);
}

/// Tiles of 12 KiB each, of which 42 fit in split of a budget of 1 MiB.
#[test]
fn the_cache_takes_at_most_half_of_the_budget() {
    let expected = all(&Loader::new(tiles(), config(1)).unwrap(), 2, 0);
    let budget = Budget::new(1 << 20);
    let dataset = Dataset::embedded(Split::Validation).unwrap().with_budget(budget.clone());
    let loader = Loader::new(Arc::new(dataset), config(4)).unwrap();
    for _ in 0..2 {
        assert_eq!(all(&loader, 2, 0), expected);
    }
    let left = (1 << 20) - 42 * 64 * 64 * 3;
    let is_free = |bytes| budget.try_take(bytes, "x").unwrap().is_some();
    assert!(is_free(left) && !is_free(left + 1));
    drop(loader);
    assert!(is_free(1 << 20));
}

/// An image that needs more than the other split: the cache makes way, and does not come back.
#[test]
fn a_large_image_is_not_waited_for_by_the_cache() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("train/a")).unwrap();
    let picture = |number: u32| root.path().join(format!("train/a/{number}.png"));
    (0..5).for_each(|number| image::RgbImage::new(120, 100).save(picture(number)).unwrap());
    image::RgbImage::new(400, 300).save(picture(5)).unwrap();
    let budget = Budget::new(500_000);
    let dataset = Dataset::open(root.path(), Split::Train).unwrap().with_budget(budget.clone());
    let loader = Loader::new(Arc::new(dataset), LoaderConfig { batch: 2, threads: 3, ..config(3) }).unwrap();
    for epoch in 0..3 {
        assert_eq!(all(&loader, epoch, 0).len(), 3);
    }
    assert!(budget.try_take(500_000, "x").unwrap().is_some(), "nothing is kept");
}

#[test]
fn an_epoch_shows_each_image_once_in_another_order() {
    let loader = Loader::new(tiles(), LoaderConfig { batch: 90, ..config(2) }).unwrap();
    let images =
        |epoch| -> Vec<u32> { all(&loader, epoch, 0).iter().flat_map(|batch| batch.images().to_vec()).collect() };
    let (first, second) = (images(0), images(1));
    assert_ne!(first, second);
    let mut sorted = first;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..270));
    let other = Loader::new(tiles(), LoaderConfig { batch: 90, seed: 10, ..config(2) }).unwrap();
    assert_ne!(all(&other, 1, 0)[0].images(), &second[..90]);
}

/// The parts of workers, one after the other, are the whole batch, also where an image is skipped.
#[test]
fn parts_of_a_batch_are_those_of_the_whole() {
    let skipping =
        LoaderConfig { views: Views::FixedScale(spec(2, 2)), batch: 6, on_bad_image: OnBadImage::Skip, ..config(3) };
    for (dataset, config, parts) in
        [(tiles(), config(3), [0..20, 20..60, 60..70]), (gradients_but(13, 4), skipping, [0..1, 1..5, 5..6])]
    {
        let loader = Loader::new(dataset, config).unwrap();
        let expected = all(&loader, 2, 1);
        let parts = parts.map(|images| {
            let part = loader.part(images.clone());
            assert_eq!((part.shape().images, part.batches_per_epoch()), (images.len(), loader.batches_per_epoch()));
            all(&part, 2, 1)
        });
        for (number, whole) in expected.iter().enumerate() {
            assert_eq!(parts.each_ref().map(|part| part[number].images()).concat(), whole.images());
            assert_eq!(parts.each_ref().map(|part| part[number].labels()).concat(), whole.labels());
            assert_eq!(parts.each_ref().map(|part| part[number].data()).concat(), whole.data());
        }
    }
}

#[test]
fn an_epoch_may_be_left_early() {
    let loader = Loader::new(tiles(), LoaderConfig { batch: 10, ..config(3) }).unwrap();
    let mut batches = loader.epoch(0, 0);
    batches.next().unwrap().unwrap();
    drop(batches);
}

/// A loader meets it wherever the epoch's order puts it: the batches before it come, then one error that names it.
#[test]
fn a_broken_image_ends_the_epoch_with_its_name() {
    let dataset = gradients_and(&[(5, 9); 12], Some("val/x/broken.jpg"));
    assert_eq!(dataset.len(), 13);
    for threads in [1, 5] {
        let config = LoaderConfig { views: Views::FixedScale(spec(2, 2)), batch: 2, ..config(threads) };
        let loader = Loader::new(dataset.clone(), config).unwrap();
        // 13 images in batches of 2: in some epochs the last one is left out.
        let ends: Vec<Option<String>> =
            (0..6).map(|epoch| loader.epoch(epoch, 0).last().unwrap().err().map(|error| error.to_string())).collect();
        assert!(
            ends.iter().flatten().all(|error| error.contains("val/x/broken.jpg: expected a complete JPEG")),
            "{ends:?}"
        );
        assert!(ends.iter().flatten().count() >= 4);
    }
    let config = BagConfig { input: 4, batch: 5, threads: 3, ..BagConfig::default() };
    let all: Vec<_> = BagLoader::new(dataset, config).unwrap().batches().collect();
    assert_eq!(all.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    assert!(all[2].as_ref().unwrap_err().to_string().contains("val/x/broken.jpg"));
}

#[test]
fn a_patch_that_does_not_fit_a_later_image_names_it() {
    let config = LoaderConfig { views: Views::FixedScale(spec(4, 4)), batch: 2, ..config(2) };
    let loader = Loader::new(gradients(&[(5, 9), (3, 9)]), config).unwrap();
    let error = loader.epoch(0, 0).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("val/x/1.png: patch of 4x4 pixels does not fit into an image of 3x9"), "{error}");
}

/// Values of a view by hand: the whole of a 5x9 image as it is, but for the normalization.
#[test]
fn a_view_without_augmentation_is_the_crop() {
    let config = LoaderConfig {
        views: Views::FixedScale(spec(5, 5)),
        patches: 4,
        batch: 1,
        normalization: Normalization::new([0.0; 3], [1.0 / 255.0; 3]).unwrap(),
        augment: Augment::default(),
        ..config(2)
    };
    let loader = Loader::new(gradients(&[(5, 9)]), config).unwrap();
    let batch = all(&loader, 0, 0).remove(0);
    for patch in 0..4 {
        let values = batch.patch(0, patch);
        let left = values[0];
        assert!((0..5).any(|column| (left - 10.0 * column as f32).abs() < 1e-3), "{left}");
        for row in 0..5 {
            for column in 0..5 {
                let (red, green) = (values[row * 5 + column], values[25 + row * 5 + column]);
                assert!((red - left - 10.0 * column as f32).abs() < 1e-3 && (green - 10.0 * row as f32).abs() < 1e-3);
            }
        }
    }
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let refused = |config: LoaderConfig, words: &str| {
        let error = Loader::new(tiles(), config).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(LoaderConfig { batch: 271, ..config(1) }, "batch.images: expected 1 to 270");
    refused(LoaderConfig { batch: 0, ..config(1) }, "batch.images");
    refused(LoaderConfig { patches: 0, ..config(1) }, "batch.patches");
    refused(LoaderConfig { views: Views::FixedScale(spec(65, 8)), ..config(1) }, "patch of 65x65 pixels does not fit");
    refused(LoaderConfig { augment: Augment { flip: 2.0, ..Augment::default() }, ..config(1) }, "augment.flip");
}

/// A tar of images that are as wide as they are marked: red is the column, green the row.
fn gradients(sizes: &[(u32, u32)]) -> Arc<Dataset> {
    gradients_and(sizes, None)
}

/// The same, and a JPEG cut short under that name.
fn gradients_and(sizes: &[(u32, u32)], broken: Option<&str>) -> Arc<Dataset> {
    let mut builder = tar::Builder::new(Vec::new());
    for (index, &(height, width)) in sizes.iter().enumerate() {
        let image =
            image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 * 10, y as u8 * 10, index as u8]));
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, format!("val/x/{index}.png"), bytes.as_slice()).unwrap();
    }
    if let Some(name) = broken {
        let mut bytes = Vec::new();
        image::RgbImage::new(40, 30).write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Jpeg).unwrap();
        bytes.truncate(bytes.len() - 9);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    Arc::new(Dataset::from_tar(builder.into_inner().unwrap(), Path::new("gradients"), Split::Validation).unwrap())
}

#[test]
fn a_bag_is_cut_by_rows_then_columns() {
    let identity = Normalization::new([0.0; 3], [1.0 / 255.0; 3]).unwrap();
    let config = BagConfig {
        bag: Bag::Grid { spec: spec(2, 2), stride: 3 },
        input: 2,
        normalization: identity,
        batch: 2,
        ..BagConfig::default()
    };
    let loader = BagLoader::new(gradients(&[(5, 9), (5, 9), (5, 9)]), config).unwrap();
    assert_eq!((loader.patches(), loader.images()), (6, 3));
    let batches: Vec<PatchBatch> = loader.batches().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.images().to_vec()).collect::<Vec<_>>(), [vec![0, 1], vec![2]]);
    // Patch 4 of 2x3: row 1, column 1, at (3, 3). Values are [channel, height, width].
    let close = |got: &[f32], expected: &[f32]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
    let patch = batches[0].patch(1, 4);
    assert!(close(patch, &[30.0, 40.0, 30.0, 40.0, 30.0, 30.0, 40.0, 40.0, 1.0, 1.0, 1.0, 1.0]), "{patch:?}");
    let picture = loader.picture(1, 4).unwrap();
    assert_eq!(picture.rgb(), [30, 30, 1, 40, 30, 1, 30, 40, 1, 40, 40, 1]);
    assert!(loader.picture(1, 6).is_err());
}

#[test]
fn bags_of_different_sizes_are_refused_with_the_image() {
    let config =
        BagConfig { bag: Bag::Grid { spec: spec(2, 2), stride: 1 }, input: 2, batch: 1, ..BagConfig::default() };
    let loader = BagLoader::new(gradients(&[(5, 9), (5, 8)]), config.clone()).unwrap();
    let results: Vec<_> = loader.batches().collect();
    let error = results[1].as_ref().unwrap_err().to_string();
    assert!(
        error.contains("val/x/1.png: expected a bag of 32 patches") && error.contains("28 in an image of 5x8"),
        "{error}"
    );
    assert!(BagLoader::new(gradients(&[(1, 9)]), config).is_err());
}

#[test]
fn grey_bags_are_grey_and_multi_scale_views_differ() {
    let config = BagConfig { bag: Bag::Center, input: 8, color: Color::Grey, ..BagConfig::default() };
    let batch = BagLoader::new(tiles(), config).unwrap().batches().next().unwrap().unwrap();
    let patch = batch.patch(3, 0);
    assert_eq!(patch[..64], patch[64..128]);
    assert_eq!(patch[..64], patch[128..]);
    let views = Views::MultiScale(MultiScale::new((0.08, 1.0), (0.75, 4.0 / 3.0), 10).unwrap());
    let multi = Loader::new(tiles(), LoaderConfig { views, ..config_plain() }).unwrap();
    let fixed = Loader::new(tiles(), config_plain()).unwrap();
    assert_ne!(all(&multi, 0, 0)[0].data(), all(&fixed, 0, 0)[0].data());
}

fn config_plain() -> LoaderConfig {
    LoaderConfig { augment: Augment::default(), ..config(1) }
}

/// Fourteen images of which one is broken: the others' patches are the same bits as without it, for any number of threads.
#[test]
fn a_skipped_image_is_listed_and_changes_no_other() {
    let config = |threads| LoaderConfig {
        views: Views::FixedScale(spec(2, 2)),
        batch: 2,
        on_bad_image: OnBadImage::Skip,
        ..config(threads)
    };
    let whole = |batch: &PatchBatch, place| -> Vec<Vec<f32>> {
        (0..3).map(|patch| batch.patch(place, patch).to_vec()).collect()
    };
    let loader = Loader::new(gradients(&[(5, 9); 14]), config(1)).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for batch in all(&loader, 1, 0) {
        batch
            .images()
            .iter()
            .enumerate()
            .for_each(|(place, image)| drop(expected.insert(*image, whole(&batch, place))));
    }
    assert!(loader.skipped().is_empty());
    let mut first: Option<Vec<PatchBatch>> = None;
    for threads in [1, 2, 7] {
        let dataset = gradients_but(14, 9);
        let broken = (0..14).find(|image| dataset.name(*image) == "val/x/9.png").unwrap() as u32;
        let loader = Loader::new(dataset, config(threads)).unwrap();
        let batches = all(&loader, 1, 0);
        assert_eq!(batches.len(), 7);
        let skipped = loader.skipped();
        assert_eq!((skipped.len(), skipped[0].image, skipped[0].times), (1, broken, 1));
        assert_eq!(skipped[0].name, "val/x/9.png");
        assert!(skipped[0].reason.contains("val/x/9.png: expected a JPEG, PNG"), "{skipped:?}");
        for batch in &batches {
            for (place, image) in batch.images().iter().enumerate() {
                assert_ne!(*image, broken);
                assert_eq!(whole(batch, place), expected[image], "image {image}");
            }
        }
        assert_eq!(all(&loader, 1, 3), batches[3..], "from the fourth batch");
        assert_eq!(*first.get_or_insert_with(|| batches.clone()), batches, "{threads} threads");
    }
}

/// Skips count when their batch is given out; where nothing can be used, skipping ends too.
#[test]
fn skips_are_counted_per_batch_and_bounded() {
    let config =
        LoaderConfig { views: Views::FixedScale(spec(2, 2)), batch: 2, on_bad_image: OnBadImage::Skip, ..config(3) };
    let loader = Loader::new(gradients_but(14, 9), config.clone()).unwrap();
    let at = all(&loader, 0, 0).len();
    let times = |loader: &Loader| loader.skipped().first().map_or(0, |skipped| skipped.times);
    assert_eq!((at, times(&loader)), (7, 1));
    assert_eq!((all(&loader, 1, 0).len(), times(&loader)), (7, 2));
    let loader = Loader::new(gradients_but(14, 9), config.clone()).unwrap();
    let whole = Loader::new(gradients(&[(5, 9); 14]), config.clone()).unwrap();
    let broken = loader.skipped().first().map_or(13, |skipped| skipped.image);
    assert_eq!(broken, 13, "9.png is the last by name");
    let place = all(&whole, 0, 0).iter().position(|batch| batch.images().contains(&broken)).unwrap();
    for (number, batch) in loader.epoch(0, 0).enumerate() {
        batch.unwrap();
        assert_eq!(times(&loader), u64::from(number >= place), "batch {number}");
    }

    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("train/a")).unwrap();
    let picture = |number: u32| root.path().join(format!("train/a/{number}.png"));
    (0..6).for_each(|number| image::RgbImage::new(8, 6).save(picture(number)).unwrap());
    let dataset = Arc::new(Dataset::open(root.path(), Split::Train).unwrap());
    let loader = Loader::new(dataset, LoaderConfig { cache_bytes: 0, ..config }).unwrap();
    // They vanish during the run: first one, then all.
    std::fs::remove_file(picture(2)).unwrap();
    assert_eq!(all(&loader, 0, 0).len(), 3);
    assert_eq!(loader.skipped()[0].name, "train/a/2.png");
    (0..6).filter(|number| *number != 2).for_each(|number| std::fs::remove_file(picture(number)).unwrap());
    let error = loader.epoch(1, 0).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("expected a usable image, got none in 6 tries"), "{error}");
}

#[test]
fn bags_skip_broken_images() {
    let config = BagConfig { input: 4, batch: 3, threads: 3, on_bad_image: OnBadImage::Skip, ..BagConfig::default() };
    let loader = BagLoader::new(gradients_but(7, 6), config.clone()).unwrap();
    let images: Vec<Vec<u32>> = loader.batches().map(|batch| batch.unwrap().images().to_vec()).collect();
    assert_eq!(images, [vec![0, 1, 2], vec![3, 4, 5]], "of the third batch nothing is left");
    assert_eq!(loader.skipped().iter().map(|skipped| skipped.image).collect::<Vec<_>>(), [6]);
    let loader = BagLoader::new(gradients_but(7, 0), config).unwrap();
    let images: Vec<Vec<u32>> = loader.batches().map(|batch| batch.unwrap().images().to_vec()).collect();
    assert_eq!(images, [vec![1, 2], vec![3, 4, 5], vec![6]]);
}

/// Random bags of images of 5x9, the fifth broken: from an image on, each is what it is in the whole.
#[test]
fn bags_do_not_depend_on_where_one_begins() {
    let bag = Bag::Random { spec: spec(3, 4), patches: 2 };
    let config = BagConfig {
        bag,
        input: 4,
        batch: 2,
        threads: 2,
        seed: 5,
        on_bad_image: OnBadImage::Skip,
        ..BagConfig::default()
    };
    let loader = BagLoader::new(gradients_but(7, 4), config).unwrap();
    let all = |first: usize| -> Vec<(u32, Vec<f32>)> {
        let batches = loader.batches_from(first).map(Result::unwrap);
        let of = |batch: &PatchBatch| {
            let length = batch.data().len() / batch.images().len();
            batch.images().iter().copied().zip(batch.data().chunks(length).map(<[f32]>::to_vec)).collect::<Vec<_>>()
        };
        batches.flat_map(|batch| of(&batch)).collect()
    };
    let whole = all(0);
    assert_eq!(whole.iter().map(|(image, _)| *image).collect::<Vec<_>>(), [0, 1, 2, 3, 5, 6]);
    for first in 0..9 {
        let expected: Vec<_> = whole.iter().filter(|(image, _)| *image as usize >= first).cloned().collect();
        assert_eq!(all(first), expected, "from image {first}");
    }
}

/// So many gradients of 5x9, of which one is no image.
fn gradients_but(count: usize, broken: usize) -> Arc<Dataset> {
    let mut builder = tar::Builder::new(Vec::new());
    for index in 0..count {
        let picture = image::RgbImage::from_fn(9, 5, |x, y| image::Rgb([x as u8 * 10, y as u8 * 10, index as u8]));
        let mut bytes = Vec::new();
        picture.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        let bytes = if index == broken { b"no image".to_vec() } else { bytes };
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, format!("val/x/{index}.png"), bytes.as_slice()).unwrap();
    }
    Arc::new(Dataset::from_tar(builder.into_inner().unwrap(), Path::new("gradients"), Split::Validation).unwrap())
}

/// An image that changes after its digest was taken ends the work, also where bad ones are left out; when it is what it was, all is.
#[test]
fn changed_images_are_not_skipped() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set/val/x");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("1.bmp");
    let write = |path: &Path, red: u8, width: u32| {
        image::RgbImage::from_pixel(width, 6, image::Rgb([red, 2, 3])).save(path).unwrap();
    };
    (0..4).for_each(|number| write(&folder.join(format!("{number}.bmp")), number, 8));
    let tar_path = root.path().join("set.tar");
    let pack = |red: u8, time: std::time::SystemTime| {
        write(&path, red, 8);
        let mut builder = tar::Builder::new(std::fs::File::create(&tar_path).unwrap());
        (0..4).for_each(|number| {
            let name = format!("val/x/{number}.bmp");
            builder.append_path_with_name(folder.join(format!("{number}.bmp")), name).unwrap();
        });
        builder.into_inner().unwrap().set_modified(time).unwrap();
    };
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    pack(1, then);
    for place in [root.path().join("set"), tar_path.clone()] {
        for on_bad_image in [OnBadImage::Fail, OnBadImage::Skip] {
            let dataset = Arc::new(Dataset::open(&place, Split::Validation).unwrap());
            let config = BagConfig { input: 4, batch: 1, on_bad_image, ..BagConfig::default() };
            let loader = BagLoader::new(dataset.clone(), config).unwrap();
            let images = || loader.batches().map(|batch| batch.map(|batch| batch.images().to_vec()));
            let whole = [vec![0], vec![1], vec![2], vec![3]];
            dataset.fingerprint();
            // The archive has the length and the time that it had.
            pack(9, then);
            let error = images().find_map(Result::err).unwrap().to_string();
            assert!(error.contains("val/x/1.bmp: expected the image as it was when the run began"), "{error}");
            assert!(error.contains("got a changed one") && loader.skipped().is_empty(), "{error}");
            pack(1, then);
            assert_eq!(images().map(Result::unwrap).collect::<Vec<_>>(), whole);
            // Another length, or another time of the archive.
            write(&path, 1, 9);
            std::fs::File::options().append(true).open(&tar_path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            let error = images().find_map(Result::err).unwrap().to_string();
            assert!(error.contains("got a changed one"), "{error}");
            pack(1, then);
        }
    }
}
