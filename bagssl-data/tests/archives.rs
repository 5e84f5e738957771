//! Data sets as they are distributed: archives and shards, made small.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use bagssl_data::{Columns, Dataset, Error, Format, OnBadImage, Split};
use proptest::prelude::*;

fn picture(width: u32, height: u32, red: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_pixel(width, height, image::Rgb([red, 20, 30]));
    image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted") };
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
}

/// Records whose labels are these bytes; red counts the pixels, green is 7, blue the record's number.
fn records(labels: &[&[u8]]) -> Vec<u8> {
    let record = |(number, labels): (usize, &&[u8])| {
        let planes = (0..1024).map(|pixel| (pixel % 251) as u8).chain([7; 1024]).chain([number as u8; 1024]);
        labels.iter().copied().chain(planes).collect::<Vec<u8>>()
    };
    labels.iter().enumerate().flat_map(record).collect()
}

fn cifar_10() -> Vec<(String, Vec<u8>)> {
    let file = |name: &str, bytes: Vec<u8>| (format!("cifar-10-batches-bin/{name}"), bytes);
    let mut files = vec![file("batches.meta.txt", b"airplane\nbird\ncat\n\n".to_vec())];
    files.extend((1..=5).rev().map(|batch| file(&format!("data_batch_{batch}.bin"), records(&[&[batch % 3], &[0]]))));
    files.push(file("readme.html", b"not read".to_vec()));
    files.push(file("test_batch.bin", records(&[&[2]])));
    files
}

#[test]
fn cifar_straight_from_its_archives() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("cifar-10-binary.tar.gz");
    fs::write(&path, gzip(&tar(&cifar_10()))).unwrap();
    let train = Dataset::open(&path, Split::Train).unwrap();
    assert_eq!((train.len(), train.format()), (10, Format::CifarArchive));
    assert_eq!(train.classes(), ["airplane", "bird", "cat"]);
    assert_eq!((0..10).map(|image| train.label(image)).collect::<Vec<_>>(), [1, 0, 2, 0, 0, 0, 1, 0, 2, 0]);
    assert_eq!(train.name(3), "data_batch_2.bin/1");
    assert_eq!(train.decode(3).unwrap().rgb()[..6], [0, 7, 1, 1, 7, 1]);
    assert_eq!(Dataset::open(&path, Split::Validation).unwrap().label(0), 2);

    // The same images from the unpacked folder are the same data set.
    for (name, bytes) in cifar_10() {
        fs::write(root.path().join(name.rsplit('/').next().unwrap()), bytes).unwrap();
    }
    assert_eq!(Dataset::open(root.path(), Split::Train).unwrap().fingerprint(), train.fingerprint());

    let hundred = [
        ("cifar-100-binary/fine_label_names.txt".to_string(), b"apple\nbear\n".to_vec()),
        ("cifar-100-binary/coarse_label_names.txt".to_string(), b"fruit\n".to_vec()),
        ("cifar-100-binary/train.bin".to_string(), records(&[&[0, 1]])),
        ("cifar-100-binary/test.bin".to_string(), records(&[&[0, 0]])),
    ];
    let open = |split| Dataset::from_cifar_archive(&gzip(&tar(&hundred)), Path::new("c"), split).unwrap();
    assert_eq!((open(Split::Train).label(0), open(Split::Validation).label(0)), (1, 0));
}

#[test]
fn a_damaged_cifar_archive_is_refused() {
    let open = |bytes: &[u8]| Dataset::from_cifar_archive(bytes, Path::new("c.tar.gz"), Split::Train);
    let files = cifar_10();
    let whole = gzip(&tar(&files));
    for length in [0, 5, 20, whole.len() / 2, whole.len() - 1] {
        refused(open(&whole[..length]), &["c.tar.gz: expected a complete .tar.gz"]);
    }
    let mut wrong = whole.clone();
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    refused(open(&wrong), &["c.tar.gz: expected a complete .tar.gz"]);
    refused(open(&gzip(&tar(&files[..3]))), &["expected the files of CIFAR-10", "no data_batch_1.bin"]);
    refused(open(&gzip(&tar(&files[1..]))), &["no list of classes", "gunzip to get a .tar"]);
    let python = [("cifar-10-batches-py/data_batch_1".to_string(), b"\x80\x02".to_vec())];
    refused(open(&gzip(&tar(&python))), &["got the Python version; use the binary version"]);
    refused(open(&gzip(&tar(&[&files[..], &files[..1]].concat()))), &["batches.meta.txt: expected each file once"]);
    let short: Vec<_> = files.iter().map(|(name, bytes)| (name.clone(), bytes[..bytes.len() - 1].to_vec())).collect();
    refused(open(&gzip(&tar(&short))), &["data_batch_1.bin", "not a multiple of 3073"]);
}

fn shard(samples: &[(&str, &[u8])]) -> Vec<u8> {
    tar(&samples.iter().map(|(name, bytes)| ((*name).to_string(), bytes.to_vec())).collect::<Vec<_>>())
}

#[test]
fn shards_of_a_web_dataset() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, c) = (picture(5, 3, 1), picture(5, 3, 2), picture(5, 3, 3));
    let write = |name: &str, samples: &[(&str, &[u8])]| fs::write(root.path().join(name), shard(samples)).unwrap();
    write(
        "in-train-000.tar",
        &[("x/b.png", &b), ("x/b.cls", b"1\n"), ("x/b.json", b"{}"), ("a.PNG", &a), ("a.cls", b"0")],
    );
    write("in-train-001.tar", &[("a.mask.png", b"not read"), ("a.cls", b"2"), ("a.png", &c)]);
    write("in-val-000.tar", &[("z.cls", b"4"), ("z.png", &a)]);
    let whole = root.path().to_path_buf();
    let (glob, braces) = (whole.join("in-*.tar"), whole.join("in-{train,val}-{000..000}.tar"));
    for (path, images) in [(&whole, 3), (&glob, 3), (&braces, 2)] {
        let train = Dataset::open(path, Split::Train).unwrap();
        assert_eq!((train.len(), train.format(), Dataset::is_set(path)), (images, Format::WebDataset, true));
        assert_eq!(train.classes(), ["0", "1", "2", "3", "4"], "the classes of both halves");
        assert_eq!([train.name(0), train.name(1)], ["in-train-000.tar/a.PNG", "in-train-000.tar/x/b.png"]);
        assert_eq!((train.label(1), train.decode(1).unwrap().rgb()[0]), (1, 2));
        let last = images - 1;
        assert_eq!((train.label(last) as usize, train.decode(last).unwrap().rgb()[0] as usize), (last, images));
        assert_eq!(Dataset::open(path, Split::Validation).unwrap().label(0), 4);
    }
    let one = whole.join("in-train-001.tar");
    assert_eq!(Dataset::open(&one, Split::Train).unwrap().len(), 1);
    refused(Dataset::open(&one, Split::Validation), &["expected files with train and files with val", "none with val"]);
    refused(Dataset::open(&whole.join("in-train-{000..002}.tar"), Split::Train), &["no in-train-002.tar"]);
    refused(Dataset::open(&whole.join("no*.tar"), Split::Train), &["a pattern that matches files, got none"]);

    let train = Dataset::open(&one, Split::Train).unwrap();
    write("in-train-001.tar", &[]);
    refused(train.decode(0), &["in-train-001.tar/a.png: expected an unchanged file"]);
}

#[test]
fn shards_with_faults_are_refused_by_the_name_of_the_entry() {
    let from = |samples: &[(&str, &[u8])]| Dataset::from_shard(shard(samples), Path::new("s.tar"));
    let image = picture(2, 2, 1);
    refused(
        from(&[("a.png", &image), ("b.png", &image), ("b.cls", b"1")]),
        &["s.tar/a.png: expected a .cls beside the image, got none"],
    );
    refused(from(&[("a.cls", b"1")]), &["s.tar/a.cls: expected an image beside the .cls, got none"]);
    refused(from(&[("a.png", &image), ("a.jpg", &image), ("a.cls", b"1")]), &["s.tar/a.jpg: expected a unique key"]);
    refused(from(&[("a.png", &image), ("a.cls", b"1"), ("a.cls", b"1")]), &["s.tar/a.cls: expected a unique key"]);
    for label in [&b"cat"[..], b"-1", b"", b"1048576", b"\xff", &[b'1'; 65]] {
        refused(from(&[("a.png", &image), ("a.cls", label)]), &["s.tar/a.cls: expected a class number"]);
    }
    refused(
        from(&[("a.txt", b"1")]),
        &["s.tar: expected shards with images, got none, but 1 extra file of a sample (a.txt)"],
    );
    let whole = shard(&[("a.png", &image), ("a.cls", b"1")]);
    for length in [100, 512, 700, 1600, whole.len() - 1024] {
        refused(Dataset::from_shard(whole[..length].to_vec(), Path::new("s.tar")), &["s.tar"]);
    }
}

fn reference(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)).unwrap()
}

#[test]
fn parquet_as_hugging_face_writes_it() {
    let (names, numbers) = (["ant", "bee", "cat"], ["0", "1", "2"]);
    for (name, classes) in [
        ("snappy", names),
        ("plain", names),
        ("gzip2", numbers),
        ("zstd", names),
        ("lz4", names),
        ("brotli", names),
        ("delta", names),
        ("delta2", numbers),
    ] {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        for file in ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0.parquet"] {
            fs::write(root.path().join(file), reference(&format!("{name}.parquet"))).unwrap();
        }
        let train = Dataset::open(root.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.format()), (22, Format::Parquet), "{name}");
        assert_eq!(train.classes(), classes);
        for image in [10, 0, 3, 4, 21, 7, 11] {
            assert_eq!(train.decode(image).unwrap().rgb()[..3], [image as u8 % 11, 20, 30], "{name} {image}");
            assert_eq!(train.label(image) as usize, image % 11 % 3);
        }
        assert_eq!(train.name(12), "data/train-00001-of-00002.parquet/1");
        let pattern = root.path().join("data/{train-00000-of-00002,test-0}.parquet");
        assert_eq!(Dataset::open(&pattern, Split::Train).unwrap().len(), 11);
        let one = root.path().join("data/test-0.parquet");
        assert_eq!(Dataset::open(&one, Split::Validation).unwrap().len(), 11);
        refused(Dataset::open(&one, Split::Train), &["none with train"]);
    }
}

/// A mask comes before the image, and labels are no whole numbers: what is taken is said, and can be chosen.
#[test]
fn a_changed_byte_changes_the_fingerprint_of_parquet() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("train.parquet");
    let mut bytes = reference("plain.parquet");
    let fingerprint = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let from_file = Dataset::open(&path, Split::Train).unwrap();
        let from_memory = Dataset::from_parquet(bytes.to_vec(), &path).unwrap();
        assert_eq!(from_file.len(), from_memory.len());
        from_file.fingerprint()
    };
    let before = fingerprint(&bytes);
    let dataset = Dataset::open(&path, Split::Train).unwrap();
    assert_eq!(dataset.fingerprint(), before);
    // The last pixel data of the first image, far from the footer.
    let at = bytes.windows(4).position(|name| name == b"IEND").unwrap() - 10;
    bytes[at] ^= 1;
    assert_ne!(before, fingerprint(&bytes));
}

/// Rows have no bytes of their own in a file: their pages are compared, also where length and time of the file are the same.
#[test]
fn rows_of_parquet_that_change_on_the_way_are_no_bad_images() {
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    for name in ["plain.parquet", "snappy.parquet", "gzip2.parquet", "delta.parquet"] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("train.parquet");
        let write = |bytes: &[u8], time| {
            fs::write(&path, bytes).unwrap();
            fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        let whole = reference(name);
        write(&whole, then);
        for on_bad_image in [OnBadImage::Fail, OnBadImage::Skip] {
            let dataset = Dataset::open(&path, Split::Train).unwrap();
            // The page of the first row is in memory before the digests are taken.
            dataset.decode(0).unwrap();
            let fingerprint = dataset.fingerprint();
            let judged = |image| on_bad_image.judge(dataset.decode(image));
            let changed = |image: usize| {
                let error = judged(image).unwrap_err().to_string();
                let start = format!(
                    "{}: train.parquet/{image}: expected the image as it was when the run began",
                    path.display()
                );
                assert!(error.starts_with(&start), "{name}: {error}");
            };
            // Each byte of the file is another, but for those of the footer, which has been read.
            let mut damaged = whole.clone();
            damaged.iter_mut().take(whole.len() / 2).for_each(|byte| *byte ^= 1);
            write(&damaged, then);
            changed(0);
            write(&whole, then);
            assert_eq!(judged(0).unwrap().unwrap().rgb()[..3], [0, 20, 30], "{name}");
            write(&whole, std::time::UNIX_EPOCH);
            changed(10);
            write(&whole, then);
            assert!(judged(10).unwrap().is_ok(), "{name}");
            let again = Dataset::open(&path, Split::Train).unwrap();
            assert_eq!(again.fingerprint(), fingerprint);
        }
    }
}

#[test]
fn columns_of_parquet_are_found_or_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("train.parquet");
    fs::write(&path, reference("columns.parquet")).unwrap();
    let open = |image: Option<&str>, label: Option<&str>| {
        let columns = Columns { image: image.map(Into::into), label: label.map(Into::into) };
        Dataset::open_with(&path, Split::Train, &columns)
    };
    let found = open(None, None).unwrap();
    let columns = "images in image, no labels (label is double, not int32 or int64)";
    assert_eq!(found.describe(), format!("Hugging Face parquet, train.parquet, {columns}: 11 images without classes"));
    assert_eq!(found.decode(7).unwrap().rgb()[0], 7);
    let masks = open(Some("mask"), Some("kind")).unwrap();
    assert_eq!((masks.decode(7).unwrap().rgb()[0], masks.label(7), masks.classes().len()), (200, 1, 2));
    assert!(
        masks.describe().contains("images in mask, labels in kind: 11 images of 2 classes"),
        "{}",
        masks.describe()
    );
    assert_eq!(open(Some("photo"), None).unwrap().decode(7).unwrap().rgb()[0], 107);
    refused(
        open(Some("picture"), None),
        &["--image-column: a column of byte arrays", "photo (byte array), label (double)"],
    );
    refused(open(None, Some("label")), &["--label-column: a column of int32 or int64", "label (double)"]);
    let of_tar = Dataset::open_with(
        Path::new("x-{0..1}.tar"),
        Split::Train,
        &Columns { image: Some("image".into()), label: None },
    );
    refused(of_tar, &["column: expected parquet files", "got WebDataset with column image"]);
}

#[test]
fn parquet_with_faults_is_refused() {
    let from = |bytes: Vec<u8>| Dataset::from_parquet(bytes, Path::new("p.parquet"));
    refused(
        from(reference("unlabelled.parquet")),
        &["p.parquet: expected a label for all images or for none, got memory/0 with one and memory/2 without"],
    );
    refused(
        from(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n".to_vec()),
        &["got a Git LFS pointer"],
    );
    let whole = reference("snappy.parquet");
    for length in [0, 3, 11, 12, 500, whole.len() - 1] {
        refused(from(whole[..length].to_vec()), &["p.parquet: expected a complete parquet file"]);
    }
}

const META: &[u8] = include_bytes!("reference/meta.mat");
const NUMBERS: &str = "ILSVRC2012_validation_ground_truth.txt";

/// The archives of an ImageNet of three classes; of n02084071 there is no training image.
fn imagenet(root: &Path) {
    let class = |wnid: &str, reds: &[u8]| {
        let file = |red: &u8| (format!("{wnid}_{red}.JPEG"), picture(5, 3, *red));
        (format!("{wnid}.tar"), tar(&reds.iter().map(file).collect::<Vec<_>>()))
    };
    let train = [class("n02119789", &[7, 3]), class("n01440764", &[1, 2])];
    fs::write(root.join("ILSVRC2012_img_train.tar"), tar(&train)).unwrap();
    let file = |number: u8| (format!("ILSVRC2012_val_{number:08}.JPEG"), picture(5, 3, 100 + number));
    fs::write(root.join("ILSVRC2012_img_val.tar"), tar(&[file(2), file(1), file(3)])).unwrap();
    let data = |name: &str, bytes: &[u8]| (format!("ILSVRC2012_devkit_t12/data/{name}"), bytes.to_vec());
    let devkit = tar(&[data("meta.mat", META), data(NUMBERS, b"3\n1\n2\n")]);
    fs::write(root.join("ILSVRC2012_devkit_t12.tar.gz"), gzip(&devkit)).unwrap();
}

fn check_imagenet(train: &Dataset, validation: &Dataset) {
    for half in [train, validation] {
        assert_eq!(half.classes(), ["n01440764", "n02084071", "n02119789"]);
    }
    let all = |half: &Dataset| -> Vec<(u32, u8)> {
        (0..half.len()).map(|image| (half.label(image), half.decode(image).unwrap().rgb()[0])).collect()
    };
    assert_eq!(all(train), [(0, 1), (0, 2), (2, 3), (2, 7)]);
    assert_eq!(all(validation), [(1, 101), (2, 102), (0, 103)], "numbers 3, 1 and 2 of the devkit");
}

#[test]
fn imagenet_as_distributed() {
    let root = tempfile::tempdir().unwrap();
    imagenet(root.path());
    let archive = root.path().join("ILSVRC2012_img_train.tar");
    let open = |path: &Path| {
        check_imagenet(&Dataset::open(path, Split::Train).unwrap(), &Dataset::open(path, Split::Validation).unwrap());
    };
    open(root.path());
    let index = root.path().join("ILSVRC2012_img_train.tar.bagssl-index");
    let kept = fs::read(&index).unwrap();
    open(&archive);
    assert_eq!(Dataset::open(root.path(), Split::Train).unwrap().name(1), "n01440764/n01440764_2.JPEG");
    // A damaged index is made again, and so is one of an archive that has changed.
    fs::write(&index, &kept[..kept.len() - 1]).unwrap();
    open(root.path());
    assert_eq!(fs::read(&index).unwrap(), kept);
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, [&bytes[..], &[0; 512]].concat()).unwrap();
    open(root.path());
    assert_ne!(fs::read(&index).unwrap(), kept);
}

#[test]
fn imagenet_without_what_it_needs() {
    let root = tempfile::tempdir().unwrap();
    imagenet(root.path());
    let devkit = root.path().join("ILSVRC2012_devkit_t12.tar.gz");
    let whole = fs::read(&devkit).unwrap();
    let open = |split| Dataset::open(root.path(), split);
    fs::write(&devkit, &whole[..whole.len() / 2]).unwrap();
    refused(open(Split::Validation), &["ILSVRC2012_devkit_t12.tar.gz: expected a complete .tar.gz of the devkit"]);
    fs::remove_file(&devkit).unwrap();
    refused(
        open(Split::Validation),
        &["ILSVRC2012_devkit_t12 (.tar.gz or unpacked", "LOC_val_solution.csv", "none of these"],
    );
    assert_eq!(open(Split::Train).unwrap().classes(), ["n01440764", "n02119789"]);
    // Unpacked, with a list instead of meta.mat: its numbers are needed.
    fs::write(root.path().join(NUMBERS), "1 1 9").unwrap();
    fs::write(root.path().join("synsets.txt"), "n02119789\n").unwrap();
    refused(
        open(Split::Validation),
        &["synsets.txt: expected lines with an ILSVRC2012_ID and a wnid, got \"n02119789\""],
    );
    fs::write(root.path().join("synsets.txt"), "1 n02119789\n").unwrap();
    refused(open(Split::Validation), &["expected ground truth of class numbers, got \"9\""]);
    fs::write(root.path().join(NUMBERS), "1 1").unwrap();
    refused(
        open(Split::Validation),
        &["ILSVRC2012_val_00000003.JPEG: expected a validation image listed in the ground truth"],
    );
    fs::remove_file(root.path().join("ILSVRC2012_img_val.tar")).unwrap();
    refused(open(Split::Validation), &["no ILSVRC2012_img_val.tar"]);
    let strange = [("n01440764.tar".to_string(), tar(&[])), ("notes.txt".to_string(), Vec::new())];
    fs::write(root.path().join("ILSVRC2012_img_train.tar"), tar(&strange)).unwrap();
    refused(open(Split::Train), &["notes.txt: expected the tar of a class, such as n01440764.tar"]);
}

#[test]
fn imagenet_unpacked_and_a_part_of_it() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for (name, red) in [("n01440764/a", 1), ("n01440764/b", 2), ("n02119789/a", 3), ("n02119789/b", 7)] {
        write(&format!("CLS-LOC/train/{name}.JPEG"), &picture(5, 3, red));
    }
    for number in 1..=3 {
        write(&format!("CLS-LOC/val/ILSVRC2012_val_{number:08}.JPEG"), &picture(5, 3, 100 + number));
    }
    let path = root.path().join("CLS-LOC");
    let open = |split| Dataset::open(&path, split);
    refused(open(Split::Validation), &["ILSVRC2012_devkit_t12 (.tar.gz"]);
    let rows = ["n02084071 1 2 3 4 ", "n02119789 1 2 3 4 n01440764 1 2 3 4", "n01440764 1 1 1 1"];
    let lines = rows.iter().zip(1..).map(|(row, number)| format!("ILSVRC2012_val_{number:08},{row}\n"));
    write("LOC_val_solution.csv", format!("ImageId,PredictionString\n{}", lines.collect::<String>()).as_bytes());
    check_imagenet(&open(Split::Train).unwrap(), &open(Split::Validation).unwrap());
    fs::remove_file(root.path().join("LOC_val_solution.csv")).unwrap();
    write("ILSVRC2012_devkit_t12/data/meta.mat", META);
    write(&format!("ILSVRC2012_devkit_t12/data/{NUMBERS}"), b"3\n1\n2\n");
    check_imagenet(&open(Split::Train).unwrap(), &open(Split::Validation).unwrap());

    let part = open(Split::Validation).unwrap().of_classes("n02119789 kit fox\n\nn01440764 tench\n").unwrap();
    assert_eq!(part.classes(), ["n01440764", "n02119789"]);
    assert_eq!([0, 1].map(|image| (part.label(image), part.decode(image).unwrap().rgb()[0])), [(1, 102), (0, 103)]);
    let of = |list: &str| open(Split::Train).unwrap().of_classes(list);
    refused(of("n02119789\nn02119789"), &["classes: expected each class once, got \"n02119789\" twice"]);
    refused(of("n00000001"), &["classes: expected classes of the data set, got \"n00000001\""]);
    refused(of("n02084071"), &["expected classes with images, got 1 classes without images"]);
    refused(of("\n \n"), &["classes: expected at least one class, got an empty list"]);
}

#[test]
fn classes_whose_names_are_words() {
    let root = tempfile::tempdir().unwrap();
    for (number, name) in (1..).zip(["red fox", "red", "kit fox"]) {
        fs::create_dir_all(root.path().join("train").join(name)).unwrap();
        fs::write(root.path().join("train").join(name).join("a.png"), picture(5, 3, number)).unwrap();
    }
    let of = |list: &str| Dataset::open(root.path(), Split::Train).unwrap().of_classes(list);
    let part = of("red fox\nkit fox\n").unwrap();
    assert_eq!(part.classes(), ["kit fox", "red fox"]);
    assert_eq!([0, 1].map(|image| (part.label(image), part.decode(image).unwrap().rgb()[0])), [(0, 3), (1, 1)]);
    assert_eq!(of("red squirrel\n").unwrap().classes(), ["red"]);
    refused(of("kit\n"), &["got \"kit\", which is not in"]);
}

fn damaged(mut bytes: Vec<u8>, damage: &[(usize, u8)]) -> Vec<u8> {
    for (at, byte) in damage {
        let at = at % bytes.len();
        bytes[at] = *byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damage is refused or harmless, never a panic.
    #[test]
    fn damage_is_refused_or_read(damage in prop::collection::vec((0usize..8192, any::<u8>()), 1..6), kind in 0usize..10) {
        let image = picture(2, 2, 1);
        let origin = Path::new("x");
        let opened = match kind {
            0 => Dataset::from_shard(damaged(shard(&[("a.png", &image), ("a.cls", b"1")]), &damage), origin),
            kind => {
                let names = ["snappy", "gzip2", "plain", "zstd", "lz4", "brotli", "delta", "delta2", "columns"];
                let whole = reference(&format!("{}.parquet", names[kind - 1]));
                Dataset::from_parquet(damaged(whole, &damage), origin)
            }
        };
        if let Ok(dataset) = opened {
            for image in 0..dataset.len() {
                prop_assert!((dataset.label(image) as usize) < dataset.classes().len());
                let _ = dataset.decode(image);
            }
        }
    }
}
