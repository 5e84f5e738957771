//! Data sets in their real layouts, and what is refused.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use bagssl_core::patch::ImageSize;
use bagssl_data::curate::check;
use bagssl_data::{Cifar, Dataset, Error, Format, IgnoreReason, Split};
use proptest::prelude::*;

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
    fs::write(root.join("train/cat/._a.png"), "no image").unwrap();
}

/// What a data set passes over.
fn ignored(dataset: &Dataset) -> String {
    dataset.ignored().to_string()
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
    let expected =
        "1 file without an image extension (train/cat/notes.txt); 1 hidden image or folder (train/cat/._a.png)";
    assert_eq!([ignored(&open(Split::Train)), ignored(&open(Split::Validation))], [expected, ""]);
    assert_eq!(ignored(&Dataset::from_folder(root.path()).unwrap()), expected);
    assert_eq!(open(Split::Train).describe(), "ImageFolder, train/: 3 images of 3 classes");
    let before = open(Split::Train).fingerprint();
    assert_eq!(before, open(Split::Train).fingerprint());
    fs::rename(root.path().join("train/dog/b.png"), root.path().join("train/cat/b.png")).unwrap();
    assert_ne!(before, open(Split::Train).fingerprint());
}

/// One byte is another, with the length and the time of before: in a folder, in its tar, and in memory, which are the same data set.
#[test]
fn a_changed_byte_changes_the_fingerprint() {
    let root = tempfile::tempdir().unwrap();
    let from_folder = || Dataset::open(&root.path().join("set"), Split::Train).unwrap().fingerprint();
    let write = |files: &[(&str, Vec<u8>)]| {
        for (name, bytes) in files {
            let path = root.path().join("set").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::File::options().append(true).open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let path = root.path().join("set.tar");
        fs::write(&path, tar("", files)).unwrap();
        let of_tar = Dataset::open(&path, Split::Train).unwrap().fingerprint();
        let in_memory = Dataset::from_tar(tar("", files), Path::new("x"), Split::Train).unwrap().fingerprint();
        assert_eq!([from_folder(), of_tar], [in_memory.clone(), in_memory.clone()]);
        in_memory
    };
    let mut files = FILES.map(|(name, red)| (name, png(5, 3, red)));
    let before = write(&files);
    assert_eq!(before, write(&files));
    // The second training image; the color of a PNG of one color is compressed, but its length stays.
    let changed = png(5, 3, 12);
    assert_eq!(changed.len(), files[1].1.len());
    files[1].1 = changed;
    assert_ne!(before, write(&files));
    files[1].1 = png(5, 3, 2);
    assert_eq!(before, write(&files));
    // An image of the other half is none of this one's.
    files[3].1 = png(5, 3, 40);
    assert_eq!(before, write(&files));
    // What was read is known until it is opened again; what cannot be read counts as empty.
    let open = Dataset::open(&root.path().join("set"), Split::Train).unwrap();
    fs::remove_file(root.path().join("set/train/cat/a.PNG")).unwrap();
    let without = open.fingerprint();
    assert_ne!(without, before);
    fs::write(root.path().join("set/train/cat/a.PNG"), &files[1].1).unwrap();
    assert_eq!([open.fingerprint(), from_folder()], [without, before]);
}

#[test]
fn the_same_in_a_tar() {
    let mut files = FILES.map(|(name, red)| (name, png(5, 3, red))).to_vec();
    files.push(("val/dog/notes.txt", b"no image".to_vec()));
    for top in ["", "./", "photos/"] {
        let bytes = tar(top, &files);
        let of = |split| Dataset::from_tar(bytes.clone(), Path::new("x.tar"), split).unwrap();
        check_folder_layout(&of(Split::Train), &of(Split::Validation), top);
        let notes = of(Split::Validation).ignored().count(IgnoreReason::NoImageExtension);
        assert_eq!((of(Split::Train).ignored().total(), notes), (0, 1));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let open = |split| Dataset::open(file.path(), split).unwrap();
        check_folder_layout(&open(Split::Train), &open(Split::Validation), top);
    }
}

#[test]
fn lists_of_image_files() {
    let root = tempfile::tempdir().unwrap();
    folder(&root.path().join("photos"));
    let lists = root.path().join("lists");
    fs::create_dir(&lists).unwrap();
    let write = |name: &str, text: &str| fs::write(lists.join(name), text).unwrap();
    let open = |split| Dataset::open(&lists, split);
    let absolute = root.path().join("photos/train/dog/b.png");
    write("train.txt", &format!("../photos/val/ant/e.png\tant\n{}\tdog\n", absolute.display()));
    refused(open(Split::Validation), &["lists: expected a list for each split", "no val.txt, valid.txt"]);
    write("val.txt", "../photos/train/cat/a.PNG\tred cat\n");
    let train = open(Split::Train).unwrap();
    assert_eq!((train.len(), train.format()), (2, Format::Lists));
    assert_eq!(train.classes(), ["ant", "dog", "red cat"], "the classes of both halves");
    assert_eq!([0, 1].map(|image| (train.label(image), train.decode(image).unwrap().rgb()[0])), [(0, 5), (1, 1)]);
    let validation = open(Split::Validation).unwrap();
    assert_eq!((validation.label(0), validation.decode(0).unwrap().rgb()[0]), (2, 2));

    write("val.txt", "../photos/val/ant/e.png\tant\n");
    refused(
        open(Split::Train),
        &["val.txt: expected each image listed once across both lists", "../photos/val/ant/e.png twice"],
    );
    write("val.txt", "../photos/none.png\tant\n");
    refused(
        open(Split::Validation),
        &["val.txt: expected image files, got line 1: \"../photos/none.png\": No such file"],
    );
    assert_eq!(open(Split::Train).unwrap().len(), 2, "of the other half only the classes are read");
    write("val.txt", "../photos/train/cat/a.PNG 0\n");
    refused(open(Split::Validation), &["val.txt: expected a tab between a path and its class"]);
    write("val.txt", "../photos\tant\n");
    refused(open(Split::Validation), &["photos: expected an image file, got a folder"]);
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

    let before = train.fingerprint();
    let mut changed = records(&[&[0, 2], &[1, 0]]);
    changed[100] ^= 1;
    write("train.bin", &changed);
    assert_ne!(before, Dataset::open(root.path(), Split::Train).unwrap().fingerprint(), "one pixel is another");

    write("train.bin", &records(&[&[0, 3]]));
    refused(Dataset::open(root.path(), Split::Train), &["train.bin", "label 3 in record 0 for 3 classes"]);
    write("train.bin", &records(&[&[0, 2]])[1..]);
    refused(Dataset::open(root.path(), Split::Train), &["train.bin", "3073 bytes, not a multiple of 3074"]);
    write("train.bin", b"");
    refused(Dataset::open(root.path(), Split::Train), &["train.bin", "0 bytes"]);
    fs::remove_file(root.path().join("train.bin")).unwrap();
    refused(Dataset::open(root.path(), Split::Train), &["train.bin", "No such file"]);
    write("fine_label_names.txt", b"a\nb\na\n");
    refused(Dataset::open(root.path(), Split::Validation), &["fine_label_names.txt", "got \"a\" twice"]);
    write("fine_label_names.txt", b"\n \n");
    refused(Dataset::open(root.path(), Split::Validation), &["fine_label_names.txt", "got an empty list"]);
    write("fine_label_names.txt", b"a\n\xff\n");
    refused(Dataset::open(root.path(), Split::Validation), &["fine_label_names.txt", "utf-8"]);
    write("test_batch.bin", b"");
    refused(Dataset::open(root.path(), Split::Validation), &["expected the files of CIFAR-10 or CIFAR-100, got both"]);
}

#[test]
fn cifar_in_memory() {
    let from =
        |labels: &[&[u8]], list: &[u8], layout| Dataset::from_cifar(records(labels), list, layout, Path::new("c"));
    let dataset = from(&[&[1], &[0]], b"a\nb", Cifar::Ten).unwrap();
    assert_eq!((dataset.label(0), dataset.name(1)), (1, "1"));
    // The record's number is its blue.
    assert_eq!(dataset.decode(1).unwrap().rgb()[31 * 3..32 * 3], [31, 7, 1]);
    assert_eq!(from(&[&[5, 1]], b"a\nb", Cifar::Hundred).unwrap().label(0), 1);
    refused(from(&[&[1]], b"a\nb", Cifar::Hundred), &["c: expected", "3073 bytes"]);
}

proptest! {
    /// Damage is refused or harmless, never a panic: whatever opens has labels of its classes, and decodes or says why.
    #[test]
    fn a_damaged_tar_is_refused_or_read(damage in prop::collection::vec((0usize..6144, any::<u8>()), 1..8), length in 0usize..6145) {
        let mut bytes = tar("t/", &[("train/a/x.png", png(2, 2, 1)), ("val/b/y.png", png(2, 2, 1)), ("train/b/z.png", png(2, 3, 1))]);
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if length % 4 == 0 {
            bytes.truncate(length);
        }
        for split in Split::ALL {
            if let Ok(dataset) = Dataset::from_tar(bytes.clone(), Path::new("x"), split) {
                for image in 0..dataset.len() {
                    prop_assert!((dataset.label(image) as usize) < dataset.classes().len());
                    let _ = dataset.decode(image);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any layout of the images in files gives the same order and labels from a folder and from its tar.
    #[test]
    fn a_folder_and_its_tar_are_the_same(names in prop::collection::btree_set("(train|val|test)/[a-c]/[a-z]{1,3}(/[a-z]{1,2})?\\.png", 1..12)) {
        let root = tempfile::tempdir().unwrap();
        let image = png(2, 1, 3);
        for name in &names {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &image).unwrap();
        }
        let files: Vec<(&str, Vec<u8>)> = names.iter().rev().map(|name| (name.as_str(), image.clone())).collect();
        for split in Split::ALL {
            let folder = Dataset::open(root.path(), split);
            let tar = Dataset::from_tar(tar("", &files), Path::new("x"), split);
            prop_assert_eq!(folder.is_ok(), tar.is_ok());
            let (Ok(folder), Ok(tar)) = (folder, tar) else { continue };
            prop_assert_eq!(folder.fingerprint(), tar.fingerprint());
            prop_assert_eq!(folder.classes(), tar.classes());
        }
    }
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted") };
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
}

#[test]
fn other_folders_are_refused() {
    let root = tempfile::tempdir().unwrap();
    refused(Dataset::open(&root.path().join("nothing"), Split::Train), &["nothing"]);
    refused(
        Dataset::open(root.path(), Split::Train),
        &["expected a folder with train/ and val/", "a folder without any of these"],
    );
    let from = |bytes: Vec<u8>| Dataset::from_tar(bytes, Path::new("x.tar"), Split::Train);
    refused(
        from(b"this is no tar, but long enough to be looked at ".repeat(20)),
        &["x.tar: expected an uncompressed .tar of images, got a text"],
    );
    refused(from(b"<!DOCTYPE html><html>".repeat(100)), &["x.tar", "got an HTML page", "download the file again"]);
    refused(from(Vec::new()), &["x.tar", "got an empty file"]);
    refused(
        from(tar("", &[("notes.txt", b"x".to_vec())])),
        &["1 members, none of them an image (the first is notes.txt)"],
    );
    let image = png(2, 2, 0);
    refused(from(tar("", &[("train/cat/../../../x.png", image.clone())])), &["points outside"]);
    for (magic, name) in
        [(b"\x1f\x8b\x08\0\0", "gzip"), (b"BZh91", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd\0", "zstd")]
    {
        refused(from(magic.repeat(300)), &["x.tar", &format!("got a file compressed with {name}; ")]);
    }
    refused(from(b"PK\x03\x04".repeat(300)), &["x.tar", "got a zip archive; unzip it"]);
    let tops = [("a/train/cat/x.png", image.clone()), ("b/train/cat/y.png", image.clone())];
    refused(from(tar("", &tops)), &["two top-level folders, \"a\" and \"b\""]);
    refused(from(tar("", &[("val/cat/x.png", image.clone())])), &["no image under train/ or training/"]);
    let twice = [("train/cat/x.png", image.clone()), ("train/cat/x.png", image.clone())];
    refused(from(tar("", &twice)), &["two images named train/cat/x.png"]);
    let twice = [("train/cat/x.png", image.clone()), ("./train/cat//x.png", image.clone())];
    refused(from(tar("", &twice)), &["expected unique file names, got train/cat/x.png and ./train/cat//x.png"]);
    let whole = tar("", &[("train/cat/x.png", vec![7; 5000]), ("train/cat/y.png", vec![7; 10])]);
    for length in [300, 512, 2000, 5999, 6144, 6200, 6656, 7000] {
        refused(from(whole[..length].to_vec()), &["x.tar"]);
    }
    assert_eq!(from(whole).unwrap().len(), 2);
}

/// What `cat a.tar b.tar` makes is read to its end; what is no tar after an end mark is counted.
#[test]
fn tars_one_after_the_other_are_read_as_one() {
    let one = tar("", &[("train/cat/a.png", png(5, 3, 1)), ("val/cat/c.png", png(5, 3, 3))]);
    let other = tar("", &[("train/dog/b.png", png(5, 3, 2))]);
    let from = |bytes: &[&[u8]]| Dataset::from_tar(bytes.concat(), Path::new("x.tar"), Split::Train);
    let both = from(&[&one, &other]).unwrap();
    assert_eq!((both.len(), both.classes(), ignored(&both).as_str()), (2, &["cat".into(), "dog".into()][..], ""));
    assert_eq!([0, 1].map(|image| both.decode(image).unwrap().rgb()[0]), [1, 2]);
    // The end mark is two blocks; 700 bytes of something come after 300 zeros.
    let more = from(&[&one, &[0; 300], &[7; 700]]).unwrap();
    assert_eq!((more.len(), ignored(&more).as_str()), (1, "700 bytes after the end of a tar (x.tar)"));
    assert_eq!(ignored(&from(&[&one, &[0; 300]]).unwrap()), "", "zeros are no bytes of anything");
    refused(from(&[&one, &other[..900]]), &["x.tar", "bytes"]);
}

#[test]
fn names_from_the_root_on_are_read_without_their_slash() {
    let bytes = tar("", &[("/data/train/cat/a.png", png(5, 3, 1)), ("/data/val/cat/b.png", png(5, 3, 2))]);
    let dataset = Dataset::from_tar(bytes, Path::new("x.tar"), Split::Train).unwrap();
    assert_eq!((dataset.name(0), dataset.decode(0).unwrap().rgb()[0]), ("data/train/cat/a.png", 1));
}

#[test]
fn a_tar_with_links_or_special_files_is_refused() {
    let from = |bytes: Vec<u8>| Dataset::from_tar(bytes, Path::new("x.tar"), Split::Train);
    let one = |kind: tar::EntryType, name: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_path(name).unwrap();
        header.set_link_name("elsewhere.png").unwrap();
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
        builder.into_inner().unwrap()
    };
    refused(from(one(tar::EntryType::Symlink, "train/cat/x.png")), &["x.tar/train/cat/x.png", "got a link"]);
    refused(from(one(tar::EntryType::Link, "notes")), &["x.tar/notes", "got a link"]);
    refused(from(one(tar::EntryType::Fifo, "train/cat/x.png")), &["got a special file"]);
}

/// `val/` comes before `test/`: the images of both are not mixed. A class without images is a class all the same.
#[test]
fn only_one_folder_per_split() {
    let root = tempfile::tempdir().unwrap();
    let names = ["train/a/1.png", "test/b/2.png", "validation/c/3.png"];
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (*name, png(2, 2, 9))).collect();
    for (name, bytes) in &files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let check = |dataset: Dataset, classes: &[&str], names: &[&str]| {
        assert_eq!(dataset.classes(), classes);
        assert!((0..dataset.len()).map(|image| dataset.name(image)).eq(names.iter().copied()));
    };
    let folder = || Dataset::open(root.path(), Split::Validation).unwrap();
    check(folder(), &["a", "c"], &["validation/c/3.png"]);
    assert_eq!(ignored(&folder()), "1 image or file of an unused split (test/b/2.png)");
    fs::create_dir_all(root.path().join("val/c")).unwrap();
    check(folder(), &["a", "c"], &["validation/c/3.png"]);
    fs::remove_dir_all(root.path().join("validation")).unwrap();
    fs::create_dir(root.path().join("train/empty")).unwrap();
    check(folder(), &["a", "b", "empty"], &["test/b/2.png"]);

    let from = |bytes| Dataset::from_tar(bytes, Path::new("x.tar"), Split::Validation).unwrap();
    fs::remove_dir_all(root.path().join("val")).unwrap();
    check(from(tar("", &files)), &["a", "c"], &["validation/c/3.png"]);
    assert_eq!(ignored(&from(tar("", &files))), "1 image or file of an unused split (test/b/2.png)");
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all("photos", root.path()).unwrap();
    check(from(builder.into_inner().unwrap()), &["a", "b", "empty"], &["photos/test/b/2.png"]);
}

#[test]
fn one_class_is_enough_and_summaries_tell() {
    let of = |files: &[(&str, Vec<u8>)]| Dataset::from_tar(tar("", files), Path::new("x"), Split::Train).unwrap();
    let image = png(3, 2, 1);
    let one = of(&[("train/cat/x.png", image.clone()), ("train/cat/._x.png", image.clone())]);
    assert_eq!((one.summary().as_str(), one.is_empty()), ("1 image of 1 class", false));
    assert_eq!(ignored(&one), "1 hidden image or folder (train/cat/._x.png)");
    let two = of(&[("train/cat/x.png", image.clone()), ("train/dog/x.png", image)]);
    assert_eq!(two.summary(), "2 images of 2 classes");
}

#[cfg(unix)]
#[test]
fn links_between_folders_are_followed_but_not_for_ever() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path());
    std::os::unix::fs::symlink(root.path().join("train/cat"), root.path().join("train/tabby")).unwrap();
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    assert_eq!(dataset.classes(), ["ant", "cat", "dog", "tabby"]);
    assert_eq!(dataset.len(), 5);
    std::os::unix::fs::symlink(root.path().join("train"), root.path().join("train/cat/again")).unwrap();
    refused(Dataset::open(root.path(), Split::Train), &["again/cat/again", "at most 16 nested folders"]);
    fs::remove_file(root.path().join("train/cat/again")).unwrap();
    std::os::unix::fs::symlink("nowhere.png", root.path().join("train/cat/gone.png")).unwrap();
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    let gone = (0..dataset.len()).find(|image| dataset.name(*image) == "train/cat/gone.png").unwrap();
    refused(dataset.decode(gone), &["train/cat/gone.png: expected an image file, got a broken link"]);
}

#[test]
fn vanished_images_are_named() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path());
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    fs::remove_file(root.path().join("train/dog/b.png")).unwrap();
    refused(dataset.decode(2), &["train/dog/b.png"]);
    let file = root.path().join("x.tar");
    fs::write(&file, tar("", &[("train/cat/x.png", png(90, 90, 1))])).unwrap();
    let dataset = Dataset::open(&file, Split::Train).unwrap();
    fs::write(&file, "").unwrap();
    refused(dataset.decode(0), &["x.tar: train/cat/x.png", "an unchanged file, got one modified since it was opened"]);
}

#[test]
fn files_by_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("b.png");
    fs::write(&path, png(5, 3, 8)).unwrap();
    let dataset = Dataset::from_files(&[path.clone(), path.clone()]).unwrap();
    assert_eq!((dataset.len(), dataset.label(1), dataset.name(1)), (2, 0, path.to_str().unwrap()));
    assert_eq!(dataset.decode(1).unwrap().rgb()[0], 8);
    refused(Dataset::from_files(&[]), &["images: expected at least one"]);
    refused(Dataset::from_files(&[root.path().into()]), &["expected an image file"]);
    fs::write(&path, "no image").unwrap();
    refused(dataset.decode(0), &[path.to_str().unwrap(), "bytes (as listed), got 8"]);
    refused(
        Dataset::from_files(std::slice::from_ref(&path)).unwrap().decode(0),
        &[path.to_str().unwrap(), "expected a JPEG"],
    );
}

/// A file of a terabyte that is not there is refused before memory is taken.
#[test]
fn absurd_files_are_refused_unread() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path());
    fs::File::create(root.path().join("train/cat/a.PNG")).unwrap().set_len(1 << 40).unwrap();
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    refused(dataset.decode(0), &["train/cat/a.PNG", "at most 512 MiB of memory to decode, got 3145729 MiB"]);
    fs::write(root.path().join("fine_label_names.txt"), "a").unwrap();
    fs::File::create(root.path().join("train.bin")).unwrap().set_len(3074 << 30).unwrap();
    refused(Dataset::open(root.path(), Split::Train), &["train.bin", "more than 536870912"]);
}

#[test]
fn data_sets_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&Dataset::from_tar(tar("", &[("train/a/x.png", png(1, 1, 1))]), Path::new("x"), Split::Train).unwrap());
}

#[test]
fn broken_images_are_found_and_named() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path());
    fs::write(root.path().join("train/dog/z.jpg"), &png(40, 30, 1)[..60]).unwrap();
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    let report = check(&dataset, None, &|| {});
    assert_eq!((report.images, report.broken.len()), (4, 1));
    assert!(report.broken[0].contains("train/dog/z.jpg"), "{:?}", report.broken);
    assert_eq!(report.classes["cat"], 2);
    assert_eq!((report.height, report.width), (Some((3, 3)), Some((5, 5))));
    let (mean, std) = (report.mean.unwrap(), report.std.unwrap());
    // Reds 1, 2 and 3: mean 2, deviation the root of 2 / 3.
    assert!((mean[0] - 2.0 / 255.0).abs() < 1e-9 && (std[0] - (2.0_f64 / 3.0).sqrt() / 255.0).abs() < 1e-9);
    assert!((mean[2] - 30.0 / 255.0).abs() < 1e-9 && std[2] < 1e-6);
}

#[test]
fn duplicates_and_samples() {
    let root = tempfile::tempdir().unwrap();
    folder(root.path());
    let ramp = |step: u8, extra: u8| {
        let mut bytes = Vec::new();
        let picture = image::RgbImage::from_fn(27, 16, |x, y| {
            let level = if y < 8 { x as u8 * step } else { 200 - x as u8 * step };
            image::Rgb([level + if (x, y) == (3, 3) { extra } else { 0 }; 3])
        });
        picture.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bytes
    };
    for (name, bytes) in [("1", ramp(5, 0)), ("2", ramp(5, 0)), ("3", ramp(5, 1)), ("4", ramp(0, 0))] {
        fs::write(root.path().join(format!("train/dog/r{name}.png")), bytes).unwrap();
    }
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    let report = check(&dataset, None, &|| {});
    let name = |number: u32| format!("train/dog/r{number}.png");
    assert_eq!(report.duplicates.exact, [vec![name(1), name(2)]]);
    assert_eq!((report.duplicates.near, report.duplicates.near_count), (vec![(name(1), name(3))], 1));
    assert_eq!((report.decoded, report.format.as_str()), (7, "ImageFolder"));
    // Two of seven: the first and the fourth (by name: a.PNG, c.png, b.png, r1, ...).
    let report = check(&dataset, Some(2), &|| {});
    assert_eq!((report.decoded, report.images, report.height), (2, 7, Some((3, 16))));
}

#[cfg(feature = "embedded")]
#[test]
fn the_embedded_photographs_are_whole() {
    for (split, images) in [(Split::Train, 900), (Split::Validation, 270)] {
        let dataset = Dataset::embedded(split).unwrap();
        assert_eq!((dataset.len(), dataset.classes().len()), (images, 9));
        let report = check(&dataset, None, &|| {});
        assert!(report.broken.is_empty());
        assert!(report.classes.values().all(|&count| count == images / 9));
        assert_eq!((report.height, report.width), (Some((64, 64)), Some((64, 64))));
    }
    let attribution = include_str!("../data/ATTRIBUTION.md");
    for class in Dataset::embedded(Split::Train).unwrap().classes() {
        assert!(attribution.contains(class.as_str()), "{class} has no attribution");
    }
}
