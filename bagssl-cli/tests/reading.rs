//! What the program says of the data that it reads: what it took it for, what it passed over, which classes it tests.

use std::fs;
use std::path::Path;

use crate::support::{json, prints, refused, succeeds};

/// Images of 24x20 pixels, each of its own picture; other files are texts.
fn write(root: &Path, names: &[&str]) {
    for (number, name) in (1..).zip(names) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with(".png") {
            let color =
                |x: u32, y: u32| image::Rgb([(x * number * 7 % 256) as u8, (y * 11 % 256) as u8, number as u8 * 9]);
            image::RgbImage::from_fn(24, 20, color).save(path).unwrap();
        } else {
            fs::write(path, "no image").unwrap();
        }
    }
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/checkpoint.safetensors");
const TINY: [&str; 8] = ["--images", "2", "--patches", "2", "--epochs", "1", "--out", "run"];

/// The lines about the data.
fn said(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("data: ")).collect()
}

#[test]
fn every_command_reports_ignored_files() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let names = ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"];
    let of = |half: &str| names.map(|name| format!("set/{half}/{name}"));
    let all = [of("train"), of("val")].concat();
    let odd = ["set/train/loose.png", "set/train/cat/c.tif", "set/val/dog/notes.txt", "set/old.tar"];
    write(here, &all.iter().map(String::as_str).chain(odd).collect::<Vec<_>>());
    let train = [&["train", "--data", "set"], &TINY[..]].concat();
    let [_, stderr] = prints(here, &train);
    let expected = [
        "data: set: ImageFolder, train/: 4 images of 2 classes",
        "data: ignored: 1 image in an unsupported format (train/cat/c.tif); 1 image outside the class folders \
         (train/loose.png); 1 file of another layout (old.tar)",
    ];
    assert_eq!(said(&stderr), expected);
    let both = "data: ignored: 1 image in an unsupported format (train/cat/c.tif); 1 file without an image extension \
                (val/dog/notes.txt); 1 image outside the class folders (train/loose.png); 1 file of another layout \
                (old.tar)";
    let eval = ["eval", "run/checkpoint.safetensors", "--data", "set", "--random", "1"];
    let [_, stderr] = prints(here, &eval);
    let halves = "data: set: ImageFolder, train/: 4 images of 2 classes; val/: 4 images of 2 classes";
    assert_eq!(said(&stderr), [halves, both]);
    let [_, stderr] = prints(here, &["data", "split", "set", "-o", "lists", "--by", "folder"]);
    assert_eq!(said(&stderr), [both]);
    let check = json(here, &["data", "check", "set"]);
    assert_eq!(check["train"]["passed_over"][0]["reason"], "unread-format");
    let [_, stderr] = prints(here, &["data", "check", "set"]);
    assert_eq!(said(&stderr), [halves, both]);
    let [_, stderr] = prints(here, &["data", "preview", "set", "-o", "sheet.png"]);
    assert_eq!(said(&stderr), expected);
}

/// Lists that were written beside the halves are what is read from then on, and are made anew from the folders.
#[test]
fn lists_beside_their_images_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(here, &["p/train/cat/1.png", "p/train/cat/2.png", "p/train/dog/3.png", "p/val/cat/4.png", "p/val/dog/5.png"]);
    let split = ["data", "split", "p", "-o", "p", "--by", "name", "--pattern", "[0-9]", "--validation", "0.4"];
    succeeds(here, &split);
    let [_, stderr] = prints(here, &[&["train", "--data", "p"], &TINY[..]].concat());
    assert_eq!(said(&stderr), ["data: p: lists of image files, train.txt: 3 images of 2 classes"]);
    let lists = || ["train.txt", "val.txt"].map(|name| fs::read_to_string(here.join("p").join(name)).unwrap());
    let before = lists();
    succeeds(here, &[&split[..], &["--force"]].concat());
    assert_eq!(lists(), before, "classes are those of the folders, not the halves");
    assert!(before.concat().contains("train/cat/1.png\tcat\n"));
}

/// A file that a list names and that is missing is a bad image like any other.
#[test]
fn missing_files_of_lists_are_bad_images() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (number, name) in (1..).zip(["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"]) {
        let path = here.join("p").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // The checkpoint's patches have 32 pixels a side.
        let color = |x: u32, y: u32| image::Rgb([(x * number * 7 % 256) as u8, (y * 6) as u8, number as u8 * 9]);
        image::RgbImage::from_fn(48, 40, color).save(path).unwrap();
    }
    let list = |name: &str, text: &str| fs::write(here.join("p").join(name), text).unwrap();
    list("train.txt", "cat/1.png\tcat\ncat/gone.png\tcat\ndog/3.png\tdog\n");
    list("val.txt", "cat/2.png\tcat\ndog/4.png\tdog\n");
    let train = [&["train", "--data", "p"], &TINY[..]].concat();
    let embed = ["embed", GOLDEN, "p", "--split", "train", "-o", "x.npy"];
    let eval = ["eval", GOLDEN, "--data", "p", "--random", "1"];
    let fit = ["fit", GOLDEN, "--data", "p", "-o", "fit.safetensors"];
    for command in [&train[..], &embed, &eval, &fit] {
        refused(
            here,
            command,
            &["cat/gone.png: expected an image file, as line 2 of train.txt names, got No such file"],
        );
        let [_, stderr] = prints(here, &[command, &["--on-bad-image", "skip"]].concat());
        assert!(stderr.contains("skipped: ") && stderr.contains("cat/gone.png"), "{stderr}");
    }
    list("val.txt", "cat/5.png\tcat\n");
    for policy in ["fail", "skip"] {
        let eval = [&eval[..], &["--on-bad-image", policy]].concat();
        refused(here, &eval, &["val.txt: expected image files, got line 1: \"cat/5.png\": No such file"]);
    }
}

/// A class is tested if it has images in both halves: an owl that nobody has learned of is none of the others' fault.
#[test]
fn classes_of_one_half_are_named_and_not_tested() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let names = [
        "s/train/cat/1.png",
        "s/train/cat/2.png",
        "s/train/dog/3.png",
        "s/train/dog/4.png",
        "s/train/cafe\u{301}/5.png",
        "s/val/cat/6.png",
        "s/val/dog/7.png",
        "s/val/owl/8.png",
        "s/val/caf\u{e9}/9.png",
    ];
    write(here, &names);
    fs::create_dir_all(here.join("s/train/empty")).unwrap();
    succeeds(here, &[&["train", "--data", "s"], &TINY[..]].concat());
    let [stdout, stderr] = prints(here, &["eval", "run/checkpoint.safetensors", "--data", "s", "--random", "1"]);
    assert!(stdout.contains("s: 5 training and 2 test images of 2 classes (chance 50.0 %)"), "{stdout}");
    let line = said(&stderr)[1];
    for words in [
        "2 only in the validation split (caf\u{e9}, owl)",
        "1 only in the training split (cafe\u{301})",
        "1 without images (empty)",
        "differ only in Unicode form",
        "2 images without training images of their class are not tested",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    let check = json(here, &["data", "check", "s"]);
    assert_eq!(check["classes"]["tested"], serde_json::json!(["cat", "dog"]));
}

#[test]
fn training_and_embedding_need_no_classes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(here, &["flat/1.png", "flat/2.png", "halves/train/1.png", "halves/train/2.png", "halves/val/3.png"]);
    for data in ["flat", "halves"] {
        let train = [&["train", "--data", data, "--force"], &TINY[..]].concat();
        assert_eq!(json(here, &train)["steps"], 1, "{data}");
        let embed = ["embed", "run/checkpoint.safetensors", data, "-o", "e.npy", "--force", "--random", "1"];
        succeeds(here, &embed);
    }
    let eval = |data| ["eval", "run/checkpoint.safetensors", "--data", data];
    refused(here, &eval("flat"), &["flat: expected a validation split", "bagssl data split"]);
    refused(
        here,
        &eval("halves/train"),
        &["halves/train: expected a validation split", "got one split alone; pass halves"],
    );
    let check = json(here, &["data", "check", "flat"]);
    assert!(check["train"]["images"] == 2 && check.get("validation").is_none(), "all of it is for training");
    refused(here, &eval("halves"), &["halves: expected a class for each image of the training split", "train/1.png"]);
    let fit = ["fit", "run/checkpoint.safetensors", "--data", "halves", "-o", "c.safetensors"];
    refused(here, &fit, &["halves: expected a class for each image"]);
}

/// What was guessed: the folder of a half, the columns, and that there are no classes.
#[test]
fn data_check_says_what_it_takes_the_data_for() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(here, &["s/train/cat/1.png", "s/train/dog/2.png", "s/test/cat/3.png", "s/test/dog/4.png", "flat/5.png"]);
    fs::create_dir_all(here.join("s/val/cat")).unwrap();
    let check = |data: &str| prints(here, &["data", "check", data]);
    let [_, stderr] = check("s");
    let halves = "data: s: ImageFolder, train/: 2 images of 2 classes; test/: 2 images of 2 classes";
    assert_eq!(said(&stderr)[0], halves);
    let [stdout, stderr] = check("flat");
    assert_eq!(said(&stderr), ["data: flat: a folder of images without splits: 1 image without classes"]);
    assert!(stdout.contains("\ntrain: 1 image without classes, 0 broken\n"), "{stdout}");
    let found = json(here, &["data", "check", "flat"]);
    assert_eq!(found["train"]["classes"], serde_json::json!({}));
    assert_eq!(found["train"]["without_class"], 1);
    for classes in ["tested", "empty", "train_only", "validation_only", "alike"] {
        assert_eq!(found["classes"][classes], serde_json::json!([]), "{classes}");
    }
    let table = include_bytes!("../../bagssl-data/tests/reference/columns.parquet");
    fs::create_dir(here.join("tables")).unwrap();
    for split in ["train", "test"] {
        fs::write(here.join(format!("tables/{split}.parquet")), table).unwrap();
    }
    let [stdout, stderr] = prints(here, &["data", "check", "tables", "--image-column", "photo"]);
    let columns = "images in photo, no labels (label is double, not int32 or int64): 11 images without classes";
    let halves = format!("data: tables: Hugging Face parquet, train.parquet, {columns}; test.parquet, {columns}");
    assert_eq!(said(&stderr), [halves]);
    assert!(stdout.contains("\nvalidation: 11 images without classes, 0 broken\n"), "{stdout}");
}

#[test]
fn embed_says_what_it_takes_a_folder_for() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(here, &["flat/1.png", "flat/more/2.png", "noval/train/cat/3.png", "noval/train/dog/4.png"]);
    let embed = |data: &str| [GOLDEN, data, "-o", "e.npy", "--force", "--whole"].map(String::from);
    let call = |more: &[String]| {
        let all: Vec<&str> = std::iter::once("embed").chain(more.iter().map(String::as_str)).collect();
        prints(here, &all)
    };
    let [_, stderr] = call(&embed("flat"));
    assert_eq!(said(&stderr), ["data: flat: image files: 2 images without classes"]);
    let [_, stderr] = call(&embed("flat/1.png"));
    assert!(said(&stderr).is_empty(), "{stderr}");
    // Of a data set, the validation split is embedded, and another where it is asked for.
    let advice = "; --split train embeds the training split: 2 images of 2 classes";
    refused(here, &["embed", GOLDEN, "noval", "-o", "x.npy"], &["got no image under val/", advice]);
    let [_, stderr] = call(&[&embed("noval")[..], &["--split".into(), "train".into()]].concat());
    assert_eq!(said(&stderr), ["data: noval: ImageFolder, train/: 2 images of 2 classes"]);
}
