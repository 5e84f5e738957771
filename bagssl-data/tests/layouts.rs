//! Which layout a folder has, what is passed over in it, and what is said where it has none.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use bagssl_core::bag::Bag;
use bagssl_core::batch::PatchSource;
use bagssl_data::curate::check;
use bagssl_data::{BagConfig, BagLoader, Dataset, Error, Format, Loader, LoaderConfig, OnBadImage, Split};

fn png(red: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_pixel(5, 3, image::Rgb([red, 20, 30]));
    image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// A folder with these files: images by their endings, else something else.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (number, name) in (1..).zip(names) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, if name.ends_with(".png") { png(number) } else { b"something else".to_vec() }).unwrap();
    }
    root
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted") };
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
}

fn open(root: &Path, split: Split) -> Dataset {
    Dataset::open(root, split).unwrap()
}

#[test]
fn ignored_files_are_counted_by_reason() {
    let root = folder(&[
        "train/cat/1.png",
        "train/cat/2.TIF",
        "train/cat/._1.png",
        "train/cat/.DS_Store",
        "train/cat/notes.txt",
        "train/.cache/3.png",
        "train/@eaDir/1.png/thumb.png",
        "train/loose.png",
        "train/backup.tar",
        "val/cat/4.png",
        "test/cat/5.png",
        "extra/deep/6.png",
        "7.png",
        "annotations-train.tar",
        "readme.md",
    ]);
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", root.path().join("train/owl")).unwrap();
    let train = open(root.path(), Split::Train);
    assert_eq!(train.describe(), "ImageFolder, train/: 1 image of 1 class");
    let ignored = train.ignored().to_string();
    let expected = [
        "1 image in an unsupported format (train/cat/2.TIF)",
        "2 files without an image extension (train/backup.tar, ..)",
        "3 hidden images or folders (train/cat/._1.png, ..)",
        "1 image outside the class folders (train/loose.png)",
        "2 images outside the splits (7.png, ..)",
        "1 image or file of an unused split (test/cat/5.png)",
        "1 file of another layout (annotations-train.tar)",
        #[cfg(unix)]
        "1 broken link (train/owl)",
    ];
    let parts: Vec<&str> = ignored.split("; ").collect();
    assert_eq!(parts, expected);
    let validation = open(root.path(), Split::Validation);
    assert_eq!(validation.ignored().total(), 4, "what lies outside of both halves");
    assert_eq!(train.ignored_with(&validation), train.ignored(), "counts once");
}

#[test]
fn images_need_no_classes_to_be_learned_from() {
    let root = folder(&["train/1.png", "train/2.png", "train/notes.txt", "val/3.png"]);
    let train = open(root.path(), Split::Train);
    assert_eq!(
        (train.describe().as_str(), train.first_without_class()),
        ("ImageFolder, train/: 2 images without classes", Some("train/1.png"))
    );
    assert_eq!((open(root.path(), Split::Validation).len(), train.decode(1).unwrap().rgb()[0]), (1, 2));

    let root = folder(&["cat/1.png", "cat/deep/2.png", "dog/3.png", "backup.tar"]);
    let all = open(root.path(), Split::Train);
    assert_eq!((all.format(), Dataset::is_set(root.path())), (Format::WholeFolder, false));
    assert_eq!((all.classes(), all.first_without_class()), (&["cat".into(), "dog".into()][..], None));
    assert_eq!(all.ignored().to_string(), "1 file without an image extension (backup.tar)");
    refused(
        Dataset::open(root.path(), Split::Validation),
        &["a validation split", "images without splits", "bagssl data split"],
    );

    fs::write(root.path().join("4.png"), png(4)).unwrap();
    let some = open(root.path(), Split::Train);
    let described = "a folder of images without splits: 4 images of 2 classes or none";
    assert_eq!((some.describe().as_str(), some.first_without_class()), (described, Some("4.png")));

    let classes_in_classes = folder(&["vehicles/train/1.png", "vehicles/car/2.png", "pets/cat/3.png"]);
    assert_eq!(open(classes_in_classes.path(), Split::Train).classes(), ["pets", "vehicles"]);

    let bytes = tar(&[("x/1.png", &png(1)), ("x/2.png", &png(2)), ("readme.txt", b"x")]);
    let of = |split| Dataset::from_tar(bytes.clone(), Path::new("x.tar"), split);
    let all = of(Split::Train).unwrap();
    assert_eq!((all.format(), all.len(), all.decode(1).unwrap().rgb()[0]), (Format::WholeTar, 2, 2));
    refused(of(Split::Validation), &["x.tar: expected a validation split"]);
}

#[test]
fn names_with_dots_are_whole_keys_where_that_makes_samples() {
    let image = png(1);
    let of = |files: &[(&str, &[u8])]| Dataset::from_shard(tar(files), Path::new("s.tar"));
    let named = |dataset: &Dataset| (0..dataset.len()).map(|image| dataset.name(image).to_string()).collect::<Vec<_>>();
    let dotted = of(&[
        ("a.png", &image),
        ("a.cls", b"1"),
        ("a.mask.png", &image),
        ("a.json", b"{}"),
        ("22.05.png", &image),
        ("22.05.cls", b"2"),
        ("22.06.png", &image),
        ("22.06.cls", b"0"),
        ("p/photo 2.0 (clean).PNG", &image),
        ("p/photo 2.0 (clean).cls", b"2"),
    ])
    .unwrap();
    let expected =
        ["22.05.png", "22.06.png", "a.png", "p/photo 2.0 (clean).PNG"].map(|name| format!("shard.tar/{name}"));
    assert_eq!(named(&dotted), expected);
    assert_eq!([0, 1, 2, 3].map(|image| dotted.label(image)), [2, 0, 1, 2]);
    assert_eq!(dotted.ignored().to_string(), "2 extra files of samples (a.json, ..)");
    refused(
        of(&[("a.png", &image), ("a.cls", b"1"), ("22.05.png", &image)]),
        &["22.05.png: expected a .cls beside the image"],
    );

    let unlabeled =
        of(&[("a.png", &image), ("a.txt", b"a caption"), ("a.seg.png", &image), ("2.1.png", &image)]).unwrap();
    assert_eq!(named(&unlabeled), ["shard.tar/2.1.png", "shard.tar/a.png"]);
    assert_eq!(unlabeled.describe(), "WebDataset: 2 images without classes");
}

#[test]
fn shards_without_a_split_in_their_names() {
    let root = tempfile::tempdir().unwrap();
    let image = png(1);
    let write = |name: &str, files: &[(&str, &[u8])]| fs::write(root.path().join(name), tar(files)).unwrap();
    write("a-000.tar", &[("0.png", &image)]);
    write("a-001.tar", &[("1.png", &image)]);
    assert_eq!(
        open(root.path(), Split::Train).describe(),
        "WebDataset, 2 files (a-000.tar to a-001.tar): 2 images without classes"
    );
    refused(Dataset::open(root.path(), Split::Validation), &["none with val, valid", "but a-000.tar to a-001.tar"]);
    write("a-train.tar", &[("0.png", &image), ("0.cls", b"0")]);
    let train = open(root.path(), Split::Train);
    assert_eq!(train.describe(), "WebDataset, a-train.tar: 1 image of 1 class");
    assert_eq!(train.ignored().to_string(), "2 files without a split in their names (a-000.tar, ..)");
    fs::create_dir(root.path().join("samples")).unwrap();
    for name in ["b-train.tar.gz", "samples/1.png", "cover.png"] {
        fs::write(root.path().join(name), &image).unwrap();
    }
    let expected = "2 images outside the splits (cover.png, ..); 2 files without a split in their names (a-000.tar, \
                    ..); 1 file of another layout (b-train.tar.gz)";
    assert_eq!(open(root.path(), Split::Train).ignored().to_string(), expected);
    refused(
        Dataset::open(&root.path().join("a-{000..001}.tar"), Split::Validation),
        &["none with val", "pass the folder"],
    );
    write("b-train.tar", &[("1.png", &image)]);
    refused(
        Dataset::open(root.path(), Split::Train),
        &["expected a .cls for all images or for none", "a-train.tar/0.png", "b-train.tar/1.png"],
    );
}

/// What is there is said, and the nearest thing that would work.
#[test]
fn folders_that_are_no_data_sets() {
    let of = |names: &[&str], words: &[&str]| refused(Dataset::open(folder(names).path(), Split::Train), words);
    of(
        &["train/diesel/1.png", "boat/2.png", "car/3.png"],
        &["train/ without the other split, beside boat/, car/ with images", "data split", "train alone"],
    );
    of(
        &["Train/cat/1.png", "Test/cat/2.png"],
        &["Train/ and Test/; if these are the splits, rename them to train/ and val/"],
    );
    of(&["train2017/1.png", "val2017/2.png"], &["train2017/ and val2017/; if these are the splits"]);
    of(&["train/cat/1.png", "dev/cat/2.png"], &["train/ and dev/; if dev/ is the other split, rename it to val/"]);
    of(&["pets/train/cat/1.png", "pets/val/cat/2.png"], &["a folder that contains a data set; pass", "pets"]);
    of(
        &["train/cat/1.tif", "val/cat/2.tif"],
        &["train/ and val/ without images in a supported format", "2 images in unsupported formats"],
    );
    of(&["data_batch_1", "batches.meta"], &["expected the files of CIFAR-10", "the Python version"]);
    of(&["notes.txt"], &["a folder without any of these, but 1 file without an image extension"]);
    of(&["a/b/train/cat/1.png", "a/b/val/cat/2.png"], &["a/b/train/ and a/b/val/; if these are the splits"]);
    let of_tar = |names: &[&str], words: &[&str]| {
        let image = png(1);
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &image[..])).collect();
        refused(Dataset::from_tar(tar(&files), Path::new("x.tar"), Split::Train), words);
    };
    of_tar(
        &["s/Train/1.png", "s/Test/2.png"],
        &["x.tar: expected a .tar with train/ and val/", "s/Train/ and s/Test/"],
    );
    of_tar(&["s/train/diesel/1.png", "s/boat/2.png"], &["x.tar", "one split, beside s/boat/ with images"]);
    let cover = [("s/cover.png", &png(1)[..]), ("s/train/cat/2.png", &png(2))];
    let train = Dataset::from_tar(tar(&cover), Path::new("x.tar"), Split::Train).unwrap();
    assert_eq!(train.ignored().to_string(), "1 image outside the splits (s/cover.png)");
    let without_half = folder(&["train/cat/1.png"]);
    refused(
        Dataset::open(without_half.path(), Split::Validation),
        &["no image under val/, valid/", "bagssl data split"],
    );
    // An empty folder of a half makes way for the next name.
    fs::create_dir_all(without_half.path().join("val")).unwrap();
    fs::create_dir_all(without_half.path().join("test/cat")).unwrap();
    fs::write(without_half.path().join("test/cat/2.png"), png(2)).unwrap();
    assert_eq!(open(without_half.path(), Split::Validation).describe(), "ImageFolder, test/: 1 image of 1 class");
    let file = without_half.path().join("x.zip");
    fs::write(&file, b"PK\x03\x04".repeat(200)).unwrap();
    refused(Dataset::open(&file, Split::Train), &["a zip archive; unzip it"]);
}

#[test]
fn lists_take_precedence_over_split_folders() {
    let root = folder(&["train/cat/1.png", "train/cat/2.png", "val/cat/3.png"]);
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
    // As other programs write them.
    write("train.txt", "cat/1 0\ncat/2 0\n");
    write("val.txt", "cat/3 0\n");
    let folders = open(root.path(), Split::Train);
    assert_eq!((folders.format(), folders.len()), (Format::ImageFolder, 2));
    assert_eq!(folders.ignored().to_string(), "2 files of another layout (train.txt, ..)");
    write("train.txt", "train/cat/2.png\tcat\n");
    write("val.txt", "train/cat/1.png\tcat\nval/cat/3.png\tcat\n");
    let validation = open(root.path(), Split::Validation);
    assert_eq!(validation.describe(), "lists of image files, val.txt: 2 images of 1 class");
    assert_eq!(Dataset::from_split_folders(root.path(), Split::Train).unwrap().len(), 2, "the folders are still there");
    assert_eq!(Dataset::format_of_folder(root.path()).unwrap(), Format::ImageFolder);
    write("val.txt", "train/cat/1.png\n");
    write("train.txt", "val/cat/3.png\n");
    assert_eq!(open(root.path(), Split::Train).name(0), "val/cat/3.png", "a path that is there is enough");
    write("val.txt", "train/cat/none.png\ntrain/cat/1.png\n");
    fs::remove_file(root.path().join("train.txt")).unwrap();
    let validation = open(root.path(), Split::Validation);
    assert_eq!((validation.format(), validation.len()), (Format::Lists, 2), "the first one may be missing");
}

/// Missing files are bad images: named with the list and the line, or left out. They are looked for before the work begins.
#[test]
fn missing_files_of_a_list_are_bad_images() {
    let root = folder(&["photos/train/dog/b.png"]);
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
    write("train.txt", "photos/zz.png\tcat\n\nphotos/train/dog/b.png\tdog\nphotos/aa/b.png\towl\n");
    let open = || open(root.path(), Split::Train);
    let dataset = open();
    assert_eq!((dataset.len(), dataset.classes()), (3, &["cat", "dog", "owl"].map(String::from)[..]));
    let (first, last) =
        ("photos/aa/b.png: expected an image file, as line 4 of train.txt names, got No such file", "line 1 of");
    refused(dataset.decode(0), &[first]);
    refused(dataset.decode(2), &["photos/zz.png: expected an image file, as", last]);
    assert_eq!(dataset.decode(1).unwrap().rgb()[0], 1);
    refused(OnBadImage::Fail.check(&dataset), &[first]);
    refused(OnBadImage::Fail.check(&open().select_images(&[1, 2])), &[last]);
    refused(OnBadImage::Fail.check(&open().select_classes("cat\ndog").unwrap()), &[last]);
    assert!(OnBadImage::Fail.check(&open().select_images(&[1])).is_ok() && OnBadImage::Skip.check(&dataset).is_ok());
    let broken = check(&dataset, None, &|| ()).broken;
    assert!(broken.len() == 2 && broken[0].contains(first), "{broken:?}");

    let dataset = Arc::new(dataset);
    let bags = |on_bad_image| {
        BagLoader::new(dataset.clone(), BagConfig { bag: Bag::Whole, on_bad_image, ..BagConfig::default() })
    };
    let loader =
        |on_bad_image| Loader::new(dataset.clone(), LoaderConfig { batch: 1, on_bad_image, ..LoaderConfig::default() });
    refused(bags(OnBadImage::Fail), &[first]);
    refused(loader(OnBadImage::Fail), &[first]);
    let bags = bags(OnBadImage::Skip).unwrap();
    let images: Vec<u32> = bags.batches().flat_map(|batch| batch.unwrap().images().to_vec()).collect();
    let skipped: Vec<u32> = bags.skipped().iter().map(|skipped| skipped.image).collect();
    assert_eq!((images, skipped), (vec![1], vec![0, 2]));
    assert_eq!(loader(OnBadImage::Skip).unwrap().epoch(0, 0).next().unwrap().unwrap().images(), [1]);

    // One that is there again is an image of another length than was listed.
    fs::write(root.path().join("photos/zz.png"), png(9)).unwrap();
    refused(dataset.decode(2), &["photos/zz.png: expected 0 bytes (as listed), got more"]);
    assert!(open().decode(2).is_ok());
}

/// Images in the folder of lists that no list names are counted, however the lists write what they name.
#[test]
fn images_that_no_list_names_are_counted() {
    let root = folder(&["cat/1.png", "cat/2.png", "cat/3.png", "dog/4.png", "dog/5.png", "dog/notes.txt", "6.png"]);
    let absolute = root.path().join("dog/4.png");
    fs::write(
        root.path().join("train.txt"),
        format!("cat/1.png\tcat\n./cat/2.png\tcat\n{}\tdog\n", absolute.display()),
    )
    .unwrap();
    fs::write(root.path().join("val.txt"), "dog/../cat/3.png\tcat\n").unwrap();
    for split in Split::ALL {
        assert_eq!(open(root.path(), split).ignored().to_string(), "2 unlisted images (6.png, ..)");
    }
    fs::write(root.path().join("val.txt"), "6.png\tcat\ncat/3.png\tcat\ndog/5.png\tdog\n").unwrap();
    assert!(open(root.path(), Split::Train).ignored().is_empty());
}

/// A link that leads nowhere, a pipe, and names that are not UTF-8 are images that cannot be read: named, or left out and counted.
#[cfg(unix)]
#[test]
fn unopenable_images_are_skipped() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let root = folder(&["train/cat/1.png", "train/cat/7.png"]);
    let cat = root.path().join("train/cat");
    std::os::unix::fs::symlink("nowhere.png", cat.join("2.png")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(cat.join("3.png")).status().unwrap().success());
    fs::write(cat.join(OsStr::from_bytes(b"4\xff.png")), png(4)).unwrap();
    fs::create_dir(cat.join(OsStr::from_bytes(b"5\xe9"))).unwrap();
    fs::write(cat.join(OsStr::from_bytes(b"5\xe9")).join("6.png"), png(5)).unwrap();
    fs::write(root.path().join(OsStr::from_bytes(b"\xfe.txt")), "beside").unwrap();
    let expected = [
        "",
        "train/cat/2.png: expected an image file, got a broken link",
        "train/cat/3.png: expected a regular file, got a special file",
        "train/cat/4\u{fffd}ff.png: expected a file name in UTF-8, got another",
        "train/cat/5\u{fffd}e9/6.png: expected a file name in UTF-8, got another",
        "",
    ];
    let files: Vec<_> = ["1.png", "2.png", "3.png"].map(|name| cat.join(name)).into();
    let files = [files, vec![cat.join(OsStr::from_bytes(b"4\xff.png"))]].concat();
    for dataset in [
        open(root.path(), Split::Train),
        Dataset::from_folder(root.path()).unwrap(),
        Dataset::from_files(&files).unwrap(),
    ] {
        let dataset = Arc::new(dataset);
        for (image, words) in (0..dataset.len()).zip(expected) {
            let decoded = dataset.decode(image).map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(decoded.is_ok(), words.is_empty(), "{decoded:?}");
            assert!(decoded.is_ok() || decoded.as_ref().unwrap_err().contains(words), "{decoded:?}");
        }
        assert!(dataset.fingerprint().starts_with(&format!("{}-", dataset.len())));
        let config = BagConfig { input: 2, on_bad_image: OnBadImage::Skip, ..BagConfig::default() };
        let loader = BagLoader::new(dataset.clone(), config).unwrap();
        let used: usize = loader.batches().map(|batch| batch.unwrap().images().len()).sum();
        let bad = expected[..dataset.len()].iter().filter(|words| !words.is_empty()).count();
        assert_eq!((used, loader.skipped().len()), (dataset.len() - bad, bad));
    }
    fs::remove_file(cat.join("1.png")).unwrap();
    refused(Dataset::from_files(&files), &["1.png"]);
}
