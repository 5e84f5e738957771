//! Data sets in their real layouts, and what is refused.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use bagssl_core::patch::ImageSize;
use bagssl_data::Error;
use bagssl_data::check::check;
use bagssl_data::dataset::{Dataset, Split};

fn png(width: u32, height: u32, red: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_pixel(width, height, image::Rgb([red, 20, 30]));
    image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

const FILES: [(&str, u8); 5] = [
    ("train/dog/b.png", 1),
    ("train/cat/a.PNG", 2),
    ("train/cat/deep/c.png", 3),
    ("val/dog/d.png", 4),
    ("val/ant/e.png", 5),
];

fn folder(root: &Path) {
    for (name, red) in FILES {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(5, 3, red)).unwrap();
    }
    fs::write(root.join("train/cat/notes.txt"), "no image").unwrap();
    fs::write(root.join("train/cat/.hidden.png"), "no image").unwrap();
}

fn tar(top: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        // Set as bytes: the crate would refuse a name that points outside.
        let full = format!("{top}{name}");
        header.as_mut_bytes()[..full.len()].copy_from_slice(full.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn check_folder_layout(train: &Dataset, validation: &Dataset, top: &str) {
    assert_eq!(train.classes(), ["ant", "cat", "dog"], "the classes of both halves");
    let names: Vec<_> = (0..train.len()).map(|image| train.name(image)).collect();
    assert_eq!(
        names,
        ["train/cat/a.PNG", "train/cat/deep/c.png", "train/dog/b.png"].map(|name| format!("{top}{name}"))
    );
    assert_eq!([0, 1, 2].map(|image| train.label(image)), [1, 1, 2]);
    let image = train.decode(1).unwrap();
    assert_eq!(image.size(), ImageSize { height: 3, width: 5 });
    assert_eq!(image.rgb()[..3], [3, 20, 30]);
    assert_eq!(validation.decode(0).unwrap().rgb()[0], 5);
    assert_eq!(validation.label(0), 0);
}

#[test]
fn a_folder_of_images() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path());
    let open = |split| Dataset::open(root.path(), split).unwrap();
    check_folder_layout(&open(Split::Train), &open(Split::Validation), "");
    let before = open(Split::Train).fingerprint();
    assert_eq!(before, open(Split::Train).fingerprint());
    fs::rename(root.path().join("train/dog/b.png"), root.path().join("train/cat/b.png")).unwrap();
    assert_ne!(before, open(Split::Train).fingerprint());
}

#[test]
fn the_same_in_a_tar() {
    let files = FILES.map(|(name, red)| (name, png(5, 3, red)));
    for top in ["", "./", "photos/"] {
        let bytes = tar(top, &files);
        let of = |split| Dataset::from_tar(bytes.clone(), Path::new("x.tar"), split).unwrap();
        check_folder_layout(&of(Split::Train), &of(Split::Validation), top);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let open = |split| Dataset::open(file.path(), split).unwrap();
        check_folder_layout(&open(Split::Train), &open(Split::Validation), top);
    }
}

/// A record's red plane counts its pixels row by row, green is 7, blue is the record's number.
fn records(labels: &[&[u8]]) -> Vec<u8> {
    let record = |(number, labels): (usize, &&[u8])| {
        let planes = (0..1024).map(|pixel| (pixel % 251) as u8).chain([7; 1024]).chain([number as u8; 1024]);
        labels.iter().copied().chain(planes).collect::<Vec<u8>>()
    };
    labels.iter().enumerate().flat_map(record).collect()
}

#[test]
fn cifar_10_and_100() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(root.path().join(name), bytes).unwrap();
    for batch in 1..=5 {
        write(&format!("data_batch_{batch}.bin"), &records(&[&[batch], &[0]]));
    }
    write("test_batch.bin", &records(&[&[9]]));
    write("batches.meta.txt", b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n");
    let train = Dataset::open(root.path(), Split::Train).unwrap();
    assert_eq!((train.len(), train.classes().len()), (10, 10));
    assert_eq!([0, 1, 2, 8].map(|image| train.label(image)), [1, 0, 2, 5]);
    let image = train.decode(3).unwrap();
    assert_eq!(image.rgb()[..6], [0, 7, 1, 1, 7, 1]);
    assert_eq!(image.rgb()[32 * 3], 32, "the second row");
    assert_eq!(Dataset::open(root.path(), Split::Validation).unwrap().label(0), 9);

    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(root.path().join(name), bytes).unwrap();
    // Coarse 0, fine 2: the fine label is the class. A list may be shorter than 100.
    write("train.bin", &records(&[&[0, 2], &[1, 0]]));
    write("test.bin", &records(&[&[0, 1]]));
    write("fine_label_names.txt", b"a\nb\nc\n");
    let train = Dataset::open(root.path(), Split::Train).unwrap();
    assert_eq!([train.label(0), train.label(1)], [2, 0]);
    assert_eq!(train.decode(1).unwrap().rgb()[..3], [0, 7, 1]);

    write("train.bin", &records(&[&[0, 3]]));
    refused(Dataset::open(root.path(), Split::Train), &["train.bin", "label 3 of 3 in record 0"]);
    write("train.bin", &records(&[&[0, 2]])[1..]);
    refused(Dataset::open(root.path(), Split::Train), &["train.bin", "3073 bytes, not a multiple of 3074"]);
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted") };
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
}

#[test]
fn what_is_no_data_set_is_refused() {
    let root = tempfile::tempdir().unwrap();
    refused(Dataset::open(&root.path().join("nothing"), Split::Train), &["nothing"]);
    refused(
        Dataset::open(root.path(), Split::Train),
        &["expected a folder with train/ and val/", "no image under train/"],
    );
    let from = |bytes: Vec<u8>| Dataset::from_tar(bytes, Path::new("x.tar"), Split::Train);
    refused(
        from(b"this is no tar, but long enough to be looked at ".repeat(20)),
        &["x.tar", "expected a folder, or a .tar"],
    );
    refused(from(Vec::new()), &["x.tar", "no image under train/"]);
    let image = png(2, 2, 0);
    refused(from(tar("", &[("train/cat/../../../x.png", image.clone())])), &["points outside"]);
    refused(from(tar("", &[("/train/cat/x.png", image.clone())])), &["points outside"]);
    let twice = [("train/cat/x.png", image.clone()), ("train/cat/x.png", image.clone())];
    refused(from(tar("", &twice)), &["two images named train/cat/x.png"]);
    let mut cut = tar("", &[("train/cat/x.png", vec![7; 5000])]);
    cut.truncate(2000);
    refused(from(cut), &["x.tar"]);
}

#[test]
fn broken_images_are_found_and_named() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path());
    fs::write(root.path().join("train/dog/z.jpg"), &png(40, 30, 1)[..60]).unwrap();
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    let report = check(&dataset, &|| {});
    assert_eq!((report.images, report.broken.len()), (4, 1));
    assert!(report.broken[0].contains("train/dog/z.jpg"), "{:?}", report.broken);
    assert_eq!(report.classes["cat"], 2);
    assert_eq!((report.height, report.width), (Some((3, 3)), Some((5, 5))));
    let (mean, std) = (report.mean.unwrap(), report.std.unwrap());
    // Reds 1, 2 and 3: mean 2, deviation the root of 2 / 3.
    assert!((mean[0] - 2.0 / 255.0).abs() < 1e-9 && (std[0] - (2.0_f64 / 3.0).sqrt() / 255.0).abs() < 1e-9);
    assert!((mean[2] - 30.0 / 255.0).abs() < 1e-9 && std[2] < 1e-6);
}

#[cfg(feature = "embedded")]
#[test]
fn the_embedded_photographs_are_whole() {
    for (split, images) in [(Split::Train, 900), (Split::Validation, 270)] {
        let dataset = Dataset::embedded(split).unwrap();
        assert_eq!((dataset.len(), dataset.classes().len()), (images, 9));
        let report = check(&dataset, &|| {});
        assert!(report.broken.is_empty());
        assert!(report.classes.values().all(|&count| count == images / 9));
        assert_eq!((report.height, report.width), (Some((64, 64)), Some((64, 64))));
    }
    let attribution = include_str!("../data/ATTRIBUTION.md");
    for class in Dataset::embedded(Split::Train).unwrap().classes() {
        assert!(attribution.contains(class.as_str()), "{class} has no attribution");
    }
}
