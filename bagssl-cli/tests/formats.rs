//! Training and evaluation from data sets of every format, made small, in the layouts in which they are distributed.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use crate::support::{json, refused, succeeds};

/// Trains for one step on `data`, evaluates what comes out, and finds as many images and tested classes as there should be.
#[track_caller]
fn works(here: &Path, data: &str, format: &str, [train, validation, classes]: [usize; 3]) {
    let check = json(here, &["data", "check", data, "--json"]);
    assert_eq!(check["train"]["format"], format);
    for half in ["train", "validation"] {
        assert_eq!(check[half]["broken"], serde_json::json!([]), "{data}, {half}");
    }
    let images = train.to_string();
    let options = ["--images", &images, "--patches", "2", "--epochs", "1", "--out", "run", "--force", "--json"];
    assert_eq!(json(here, &[&["train", "--data", data], &options[..]].concat())["steps"], 1, "{data}");
    let eval = succeeds(here, &["eval", "run/checkpoint.safetensors", "--data", data, "--random", "2"]);
    let expected = format!("{train} training and {validation} test images of {classes} classes");
    assert!(eval.contains(&expected), "{data}: expected {expected} in {eval}");
}

/// A JPEG of 40x30 pixels with a pattern of its own.
fn picture(number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let color = |x: u32, y: u32| image::Rgb([(x * 6) as u8, (y * (number + 3) % 256) as u8, (number * 40 % 256) as u8]);
    image::RgbImage::from_fn(40, 30, color).write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Jpeg).unwrap();
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

fn write(here: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = here.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Four training and two validation images of cats and dogs.
fn image_folder() -> Vec<(String, Vec<u8>)> {
    let names = [
        "train/cat/1.jpg",
        "train/cat/2.JPEG",
        "train/dog/1.jpg",
        "train/dog/deep/2.jpg",
        "val/cat/3.jpg",
        "val/dog/3.jpg",
    ];
    (0..).zip(names).map(|(number, name)| (name.to_string(), picture(number))).collect()
}

#[test]
fn a_folder_a_tar_of_it_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(&here.join("photos"), &image_folder());
    works(here, "photos", "ImageFolder", [4, 2, 2]);
    let inside: Vec<_> = image_folder().into_iter().map(|(name, bytes)| (format!("photos/{name}"), bytes)).collect();
    fs::write(here.join("photos.tar"), tar(&inside)).unwrap();
    works(here, "photos.tar", "ImageFolder in a tar", [4, 2, 2]);
    // Anew, by the folders: each class has its own three, or four with the deep one.
    succeeds(
        here,
        &["data", "split", "photos", "-o", "lists", "--by", "name", "--pattern", "[0-9]", "--validation", "0.3"],
    );
    works(here, "lists", "lists of image files", [4, 2, 2]);
}

/// Records of CIFAR's binary version: these labels, and waves for pixels.
fn records(labels: &[&[u8]]) -> Vec<u8> {
    let record = |(number, labels): (usize, &&[u8])| {
        let pixels = (0..3072).map(move |at| (at * (number + 3) % 253) as u8);
        labels.iter().copied().chain(pixels).collect::<Vec<u8>>()
    };
    labels.iter().enumerate().flat_map(record).collect()
}

#[test]
fn cifar_as_a_folder_and_as_it_is_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let file = |name: &str, bytes: Vec<u8>| (format!("cifar-10-batches-bin/{name}"), bytes);
    let mut ten = vec![file("batches.meta.txt", b"airplane\nbird\ncat\n\n".to_vec())];
    ten.extend((1..=5).map(|batch| file(&format!("data_batch_{batch}.bin"), records(&[&[batch % 3], &[0]]))));
    ten.push(file("test_batch.bin", records(&[&[2], &[0]])));
    write(here, &ten);
    works(here, "cifar-10-batches-bin", "CIFAR, binary version", [10, 2, 2]);
    fs::write(here.join("cifar-10-binary.tar.gz"), gzip(&tar(&ten))).unwrap();
    works(here, "cifar-10-binary.tar.gz", "CIFAR, binary version, .tar.gz", [10, 2, 2]);
    let hundred = [
        ("fine_label_names.txt", b"apple\nbear\n".to_vec()),
        ("coarse_label_names.txt", b"fruit\nlarge carnivores\n".to_vec()),
        ("train.bin", records(&[&[0, 0], &[1, 1], &[0, 0], &[1, 1]])),
        ("test.bin", records(&[&[0, 0], &[1, 1]])),
    ];
    let hundred = hundred.map(|(name, bytes)| (format!("cifar-100-binary/{name}"), bytes));
    write(here, &hundred);
    works(here, "cifar-100-binary", "CIFAR, binary version", [4, 2, 2]);
    fs::write(here.join("cifar-100-binary.tar.gz"), gzip(&tar(&hundred))).unwrap();
    works(here, "cifar-100-binary.tar.gz", "CIFAR, binary version, .tar.gz", [4, 2, 2]);
}

#[test]
fn shards_and_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (shard, first) in [("train-000", 0), ("train-001", 2), ("val-000", 4)] {
        let samples = (first..first + 2).flat_map(|number| {
            let class = if number % 2 == 0 { "0" } else { "1" };
            [(format!("{number:04}.jpg"), picture(number)), (format!("{number:04}.cls"), class.into())]
        });
        write(here, &[(format!("shards/{shard}.tar"), tar(&samples.collect::<Vec<_>>()))]);
    }
    works(here, "shards", "WebDataset", [4, 2, 2]);
    works(here, "shards/{train,val}-*.tar", "WebDataset", [4, 2, 2]);
    // Eleven images of 5x3 pixels of three classes in each file.
    let table = include_bytes!("../../bagssl-data/tests/reference/snappy.parquet");
    for file in ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"] {
        write(here, &[(format!("hub/data/{file}.parquet"), table.to_vec())]);
    }
    works(here, "hub", "Hugging Face parquet", [22, 11, 3]);
}

/// Eleven images of 5x3 pixels, in a table that has columns of masks and of photographs too.
#[test]
fn columns_are_chosen_in_every_command_that_reads_images() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let table = include_bytes!("../../bagssl-data/tests/reference/columns.parquet");
    let tables = ["train.parquet", "val.parquet"].map(|name| (name.to_string(), table.to_vec()));
    write(here, &[&tables[..], &[("a.jpg".into(), picture(3)), ("b.jpg".into(), picture(4))]].concat());
    let train =
        ["train", "--data", "train.parquet", "--images", "11", "--patches", "2", "--epochs", "1", "--out", "run"];
    succeeds(here, &train);
    let model = "run/checkpoint.safetensors";
    let nearest = |more: &[&str]| {
        let command = ["nearest", model, "a.jpg", "val.parquet", "-k", "11", "--json"];
        json(here, &[&command[..], more].concat()).to_string()
    };
    let found = ["image", "mask", "photo"].map(|column| nearest(&["--image-column", column]));
    assert_eq!(found[0], nearest(&[]));
    assert!(found[0] != found[1] && found[1] != found[2]);
    succeeds(here, &["fit", model, "--data", "train.parquet", "--label-column", "kind", "-o", "kinds.safetensors"]);
    let classify = ["classify", model, "kinds.safetensors", "val.parquet", "--all", "--json"];
    assert_eq!(json(here, &classify)["accuracy"], serde_json::Value::Null);
    let said = json(here, &[&classify[..], &["--label-column", "kind"]].concat());
    assert!(said["accuracy"].as_f64().unwrap() > 0.0, "{said}");

    let explain = ["explain", model, "a.jpg", "-o", "x.png", "--like"];
    refused(here, &[&explain[..], &["val.parquet"]].concat(), &["expected one image, got 11"]);
    let wrong = ["--image-column", "picture"];
    for command in
        [&["nearest", model, "a.jpg", "val.parquet"][..], &classify, &[&explain[..], &["val.parquet"]].concat()]
    {
        refused(here, &[command, &wrong].concat(), &["--image-column: a column of byte arrays", "photo (byte array)"]);
    }
    for command in [&["nearest", model, "a.jpg", "b.jpg"][..], &[&explain[..], &["b.jpg"]].concat()] {
        refused(here, &[command, &wrong].concat(), &["expected parquet files, got image files"]);
    }
}

#[test]
fn imagenet_as_distributed_and_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let devkit = "ILSVRC2012_devkit_t12/data";
    let meta = include_bytes!("../../bagssl-data/tests/reference/meta.mat").to_vec();
    let devkit = [
        (format!("{devkit}/meta.mat"), meta),
        (format!("{devkit}/ILSVRC2012_validation_ground_truth.txt"), b"3\n1\n2\n".to_vec()),
    ];
    let classes = [("n01440764", 0), ("n02084071", 2), ("n02119789", 4)];
    let explain_class = |(wnid, first): (&str, u32)| -> Vec<(String, Vec<u8>)> {
        (first..first + 2).map(|number| (format!("{wnid}_{number}.JPEG"), picture(number))).collect()
    };
    let class_tars = classes.map(|class| (format!("{}.tar", class.0), tar(&explain_class(class))));
    let validation: Vec<_> =
        (1..=3).map(|number| (format!("ILSVRC2012_val_{number:08}.JPEG"), picture(6 + number))).collect();
    let archives = [
        ("imagenet/ILSVRC2012_img_train.tar".to_string(), tar(&class_tars)),
        ("imagenet/ILSVRC2012_img_val.tar".to_string(), tar(&validation)),
        ("imagenet/ILSVRC2012_devkit_t12.tar.gz".to_string(), gzip(&tar(&devkit))),
    ];
    write(here, &archives);
    works(here, "imagenet", "ImageNet-1K, archives", [6, 3, 3]);

    let train = classes.into_iter().flat_map(|class| {
        explain_class(class).into_iter().map(move |(name, bytes)| (format!("train/{}/{name}", class.0), bytes))
    });
    write(&here.join("unpacked"), &train.collect::<Vec<_>>());
    let flat: Vec<_> = validation.into_iter().map(|(name, bytes)| (format!("val/{name}"), bytes)).collect();
    write(&here.join("unpacked"), &flat);
    write(&here.join("unpacked"), &devkit);
    works(here, "unpacked", "ImageNet-1K, unpacked", [6, 3, 3]);
}
