//! The program as a user calls it: a whole small job, and what bad input gets.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{bagssl, json, names, refused, succeeds};
use bagssl_core::checkpoint::{Checkpoint, to_bytes};
use bagssl_core::plan::Parameter;
use serde_json::Value;

#[test]
fn train_evaluate_embed() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = ["train", "--out", "run", "--epochs", "1", "--images", "300", "--patches", "2", "--json"];
    let done = json(here, &train);
    assert_eq!((done["steps"].as_u64(), done["resumed_at_step"].as_u64()), (Some(3), Some(0)));
    assert_eq!(names(&here.join("run")), ["checkpoint.safetensors", "config.toml", "lock", "metrics.jsonl", "states"]);
    let metrics = fs::read_to_string(here.join("run/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["step", "step", "step", "health", "epoch"]);
    assert!(["healthy", "suspect"].contains(&lines[3]["verdict"].as_str().unwrap()), "{}", lines[3]);
    assert!(lines[3]["effective_rank"].as_f64().unwrap() > 1.5 && lines[3]["step"] == 3);

    // Again: nothing is left to be done. The config that it wrote is the same run; other settings are another.
    let done = json(here, &train);
    assert_eq!(done["resumed_at_step"].as_u64(), Some(3));
    let same = ["train", "--config", "run/config.toml", "--out", "run", "--json", "--tensorboard"];
    let checkpoint = fs::read(here.join("run/checkpoint.safetensors")).unwrap();
    assert_eq!(json(here, &same)["steps"].as_u64(), Some(3));
    assert!(names(&here.join("run")).iter().any(|name| name.starts_with("events.out.tfevents.")));
    let other = ["train", "--out", "run", "--epochs", "2", "--images", "300", "--patches", "2"];
    refused(here, &other, &["run/states/step-", "--force"]);
    assert_eq!(fs::read(here.join("run/checkpoint.safetensors")).unwrap().len(), checkpoint.len());

    let model = "run/checkpoint.safetensors";
    let eval = ["eval", model, "--random", "2", "--json"];
    let result = json(here, &eval);
    let scores = result["results"].as_array().unwrap();
    assert_eq!(scores.len(), 2 * 2 * 3, "two spaces, two colors; 1 patch, 2 patches, whole");
    assert!(scores.iter().all(|score| (0.0..=100.0).contains(&score["knn"].as_f64().unwrap())));

    let spec = json(here, &["inspect", model, "--json"]);
    assert_eq!(spec["patch"]["input"], 16);
    assert!(succeeds(here, &["inspect", model, "--tensors"]).contains("encoder.layer3.0.downsample.0.weight"));

    // Two images that are not square: a row for each, and one for each patch.
    for (name, width) in [("a.png", 48), ("b.png", 40)] {
        let image = image::RgbImage::from_fn(width, 36, |x, y| image::Rgb([x as u8 * 5, y as u8 * 7, 90]));
        image.save(here.join(name)).unwrap();
    }
    succeeds(here, &["embed", model, "a.png", "b.png", "--whole", "-o", "two.npy"]);
    let array = fs::read(here.join("two.npy")).unwrap();
    assert_eq!(array.len(), 128 + 2 * 64 * 4);
    assert!(String::from_utf8_lossy(&array[..128]).contains("(2, 64)"));
    assert_eq!(fs::read_to_string(here.join("two.names.txt")).unwrap(), "a.png\t1\t1\nb.png\t1\t1\n");
    succeeds(
        here,
        &["embed", model, "a.png", "--per-patch", "--stride", "4", "-o", "patches.safetensors", "--tap", "projection"],
    );
    let bytes = fs::read(here.join("patches.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // A quarter of the area of a square of 36x36: 18x18 pixels, 5 rows and 8 columns of them at stride 4.
    assert_eq!(tensors.tensor("embeddings").unwrap().shape(), [40, 128]);
    let places = fs::read_to_string(here.join("patches.names.txt")).unwrap();
    assert_eq!(places.lines().nth(9), Some("a.png\t4\t4\t18\t18"));
    refused(here, &["embed", model, "a.png", "-o", "two.npy", "--whole"], &["two.npy", "--force"]);
    refused(here, &["embed", model, "a.png", "-o", "two.txt"], &["two.txt", ".npy"]);
    refused(here, &["embed", model, "nothing.png", "-o", "x.npy"], &["nothing.png"]);
    assert!(!here.join("x.npy").exists() && !here.join("x.names.txt").exists());
    uses(here, model);
    classifies(here, model);

    // One bit that turned on the way.
    let mut damaged = checkpoint.clone();
    *damaged.last_mut().unwrap() ^= 4;
    fs::write(here.join("damaged.safetensors"), damaged).unwrap();
    refused(here, &["embed", "damaged.safetensors", "a.png", "-o", "x.npy"], &["damaged.safetensors", "digest"]);
    // A number that is none, of which a ReLU would leave no trace.
    let read = Checkpoint::from_bytes(&checkpoint).unwrap();
    let named = |Parameter { name, shape, .. }| {
        let mut values = read.values(&name).unwrap();
        if name == "encoder.layer3.0.conv1.weight" {
            values[0] = f32::NAN;
        }
        (name, shape, values)
    };
    let tensors: Vec<_> = read.spec().model.parameters().into_iter().map(named).collect();
    let broken = to_bytes(read.spec(), &tensors).unwrap();
    fs::write(here.join("nan.safetensors"), broken).unwrap();
    refused(
        here,
        &["embed", "nan.safetensors", "a.png", "-o", "x.npy"],
        &["encoder.layer3.0.conv1.weight", "finite", "NaN"],
    );
    refused(here, &["embed", model, "a.png", "-o", "x.npy", "--exact", "--bf16"], &["--exact", "--bf16"]);
    refused(here, &["embed", model, "a.png", "-o", "x.npy", "--exact", "--backend", "candle"], &["ndarray"]);
    refused(here, &["embed", model, "a.png", "-o", "x.npy", "--split", "train"], &["--split"]);
    refused(here, &["embed", model, "a.png", "-o", "x.npy", "--random", "4000000000"], &["--random", "1000000"]);
    refused(here, &["convert", model, "-o", "x.safetensors"], &["--dtype"]);
    fs::copy(here.join(model), here.join("own.safetensors")).unwrap();
    let own = ["embed", "own.safetensors", "a.png", "-o", "own.safetensors", "--force"];
    refused(here, &own, &["own.safetensors", "a file other than the input"]);
    assert!(fs::read(here.join("own.safetensors")).unwrap() == fs::read(here.join(model)).unwrap());
    refused(
        here,
        &["reproduce", "--seed", "18446744073709551615", "--dry-run"],
        &["seed: expected 0 to 9223372036854775807"],
    );
    #[cfg(unix)]
    {
        // A name with a line's end keeps to one line, and the patches of an image do not depend on its place.
        fs::create_dir(here.join("odd")).unwrap();
        fs::copy(here.join("a.png"), here.join("odd/new\nline.png")).unwrap();
        fs::copy(here.join("b.png"), here.join("odd/a.png")).unwrap();
        succeeds(here, &["embed", model, "odd", "-o", "odd.npy", "--random", "3"]);
        assert_eq!(fs::read_to_string(here.join("odd.names.txt")).unwrap(), "a.png\t3\t3\nnew\\nline.png\t3\t3\n");
        succeeds(here, &["embed", model, "a.png", "-o", "alone.npy", "--random", "3"]);
        let row = |name: &str, row: usize| fs::read(here.join(name)).unwrap()[128 + row * 256..][..256].to_vec();
        assert_eq!(row("odd.npy", 1), row("alone.npy", 0));
        let closed = Command::new("sh")
            .args(["-c", "\"$0\" inspect \"$1\" --tensors | head -c 1", env!("CARGO_BIN_EXE_bagssl"), model])
            .current_dir(here)
            .output()
            .unwrap();
        // All may have been written before the reader left.
        let said = String::from_utf8_lossy(&closed.stderr);
        assert!(["", "error: standard output: Broken pipe (os error 32)\n"].contains(&&*said), "{said}");
    }

    // A checkpoint that has been cut short, and one of another program.
    fs::write(here.join("short.safetensors"), &checkpoint[..checkpoint.len() / 2]).unwrap();
    refused(here, &["eval", "short.safetensors"], &["short.safetensors", "expected a safetensors file"]);
    refused(here, &["inspect", "patches.safetensors"], &["patches.safetensors", "metadata \"bagssl\""]);
}

/// What the other commands make of a checkpoint and of the images a.png (36x48) and b.png (36x40).
fn uses(here: &Path, model: &str) {
    fs::create_dir(here.join("folder")).unwrap();
    for name in ["a.png", "b.png"] {
        fs::copy(here.join(name), here.join("folder").join(name)).unwrap();
    }
    // Images of different sizes have bags of different sizes; fewer patches where that is asked for.
    let all = json(here, &["embed", model, "folder", "--stride", "4", "-o", "all.npy", "--json"]);
    // 36x40: 5 rows and 6 columns.
    assert_eq!((all["rows"].as_u64(), all["patches"].as_u64()), (Some(2), Some(40 + 30)));
    let few = ["embed", model, "folder", "--stride", "4", "-o", "few.npy", "--max-patches", "5", "--json"];
    let few = json(here, &few);
    assert_eq!((few["patches"].as_u64(), few["stopped"]["most patches"].as_u64()), (Some(10), Some(2)));
    assert_eq!(fs::read_to_string(here.join("few.names.txt")).unwrap(), "a.png\t5\t40\nb.png\t5\t30\n");
    refused(
        here,
        &["embed", model, "folder", "-o", "x.npy", "--max-patches", "1"],
        &["--max-patches", "at least 2", "got 1"],
    );
    refused(here, &["embed", model, "folder", "-o", "x.npy", "--tolerance=-1"], &["tolerance", "got -1"]);
    // The number of threads does not change a bit.
    succeeds(here, &["embed", model, "folder", "--stride", "4", "-o", "one.npy", "--threads", "1"]);
    assert_eq!(fs::read(here.join("all.npy")).unwrap(), fs::read(here.join("one.npy")).unwrap());

    let near = json(here, &["nearest", model, "a.png", "folder", "--stride", "4", "--json"]);
    assert_eq!((near[0]["image"].as_str(), near.as_array().unwrap().len()), (Some("a.png"), 2));
    assert!((near[0]["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    let near = json(here, &["nearest", model, "b.png", "a.png", "--patches", "-k", "3", "--stride", "4", "--json"]);
    assert_eq!(near.as_array().unwrap().len(), 3);
    assert_eq!((near[0]["patches"][0][2].as_u64(), near[0]["patches"][1][2].as_u64()), (Some(18), Some(18)));

    let explained = ["explain", model, "a.png", "--like", "b.png", "-o", "pair.png", "--stride", "4", "--json"];
    let explained = json(here, &explained);
    let sum: f64 = explained["first"].as_array().unwrap().iter().map(|patch| patch["share"].as_f64().unwrap()).sum();
    assert!((sum - explained["cosine"].as_f64().unwrap()).abs() < 1e-5);
    let picture = image::open(here.join("pair.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (48 * 2 + 40 * 2 + 3 * 4, 36));
    let class = ["explain", model, "a.png", "--class", "02-wine", "-o", "class.png", "--json"];
    let class = json(here, &class);
    let sum: f64 = class["patches"].as_array().unwrap().iter().map(|patch| patch["share"].as_f64().unwrap()).sum();
    let logit = class["logits"]["02-wine"].as_f64().unwrap();
    assert!((sum + class["bias"].as_f64().unwrap() - logit).abs() < 1e-6 * logit.abs().max(1.0));
    refused(here, &["explain", model, "a.png", "--class", "03-tree", "-o", "x.png"], &["02-wine", "03-tree"]);

    succeeds(here, &["convert", model, "--dtype", "int8", "-o", "small.safetensors"]);
    let size = |name: &str| fs::metadata(here.join(name)).unwrap().len();
    assert!(2 * size("small.safetensors") < size(model));
    assert!(succeeds(here, &["inspect", "small.safetensors"]).contains("int8"));
    succeeds(here, &["embed", "small.safetensors", "a.png", "-o", "small.npy"]);
    succeeds(here, &["export", model, "-o", "model.onnx"]);
    refused(here, &["export", model, "-o", "model.onnx"], &["model.onnx", "--force"]);
    refused(here, &["export", model, "--dense", "-o", "dense.onnx"], &["layer 0", "padding"]);
    // All patches in one pass give what they give one by one: 36x48 has 4x5 patches of 9x9, 8 pixels apart.
    succeeds(here, &["export", "--arch", "bagnet9", "--format", "safetensors", "-o", "bagnet.safetensors"]);
    succeeds(here, &["embed", "bagnet.safetensors", "a.png", "--dense", "--per-patch", "-o", "dense.npy"]);
    succeeds(here, &["embed", "bagnet.safetensors", "a.png", "--stride", "8", "--per-patch", "-o", "single.npy"]);
    let names = |name: &str| fs::read_to_string(here.join(name)).unwrap();
    assert_eq!((names("dense.names.txt").lines().count(), names("dense.names.txt")), (20, names("single.names.txt")));
    let [dense, single] = ["dense.npy", "single.npy"].map(|name| {
        let bytes = fs::read(here.join(name)).unwrap();
        bytes[128..].as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect::<Vec<_>>()
    });
    assert_eq!((dense.len(), single.len()), (20 * 2048, 20 * 2048));
    let largest = single.iter().fold(0_f32, |most, value| most.max(value.abs()));
    assert!(largest > 0.0 && dense.iter().zip(&single).all(|(a, b)| (a - b).abs() <= 1e-4 * largest));
    refused(here, &["embed", model, "a.png", "--dense", "-o", "x.npy"], &["--dense", "resampled"]);
    refused(here, &["nearest", model, "folder", "a.png"], &["folder", "expected one image, got 2"]);
    refused(here, &["bench", "infer", "--size", "100000"], &["--size", "got 100000"]);
    let bench = ["bench", "infer", "--arch", "resnet-small", "--size", "16", "--batch", "3", "--runs", "2", "--json"];
    let bench = json(here, &bench);
    let data = ["bench", "data", "--patches", "3", "--rounds", "1", "--seconds", "0.01", "--decode", "--json"];
    let data = json(here, &data);
    assert!(data["patches_per_second"].as_f64().unwrap() > 0.0 && data["patches_per_image"] == 3);
    assert!(bench["patches_per_second"].as_f64().unwrap() > 0.0);
}

/// Classifiers that are kept, asked about photographs of known classes and about images of none; memory that is limited.
fn classifies(here: &Path, model: &str) {
    for by in ["linear", "knn"] {
        let file = format!("{by}.safetensors");
        succeeds(here, &["fit", model, "--by", by, "-o", &file]);
        refused(here, &["fit", model, "--by", by, "-o", &file], &[&file, "--force"]);
        let said = json(here, &["classify", model, &file, "a.png", "--json"]);
        assert_eq!((said["images"].as_array().unwrap().len(), &said["accuracy"]), (1, &Value::Null));
        // All patches, and patches until the class is decided: it is seldom another.
        let said = |more: &[&str]| -> Value {
            let arguments = [&["classify", model, &file, "tiles.tar", "--json"], more].concat();
            json(here, &arguments)
        };
        if !here.join("tiles.tar").exists() {
            let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bagssl-data/data/photo-tiles-mini.tar");
            fs::copy(tar, here.join("tiles.tar")).unwrap();
        }
        let (all, early) = (said(&["--all"]), said(&["--confidence", "0.9"]));
        assert_eq!((all["images"].as_array().unwrap().len(), all["mean_patches"].as_f64()), (270, Some(25.0)));
        assert!(all["accuracy"].as_f64().unwrap() > 30.0, "chance is 11.1");
        assert!(early["mean_patches"].as_f64().unwrap() < 24.0);
        let classes = |said: &Value| -> Vec<String> {
            said["images"].as_array().unwrap().iter().map(|image| image["class"].to_string()).collect()
        };
        let other = classes(&all).iter().zip(&classes(&early)).filter(|(all, early)| all != early).count();
        assert!(other < 27, "{other} of 270");
    }
    let curve = succeeds(here, &["classify", model, "linear.safetensors", "tiles.tar", "--curve", "--json"]);
    let curve: Vec<Value> = serde_json::from_str(&curve).unwrap();
    let patches: Vec<f64> = curve.iter().map(|point| point["patches"].as_f64().unwrap()).collect();
    assert_eq!(patches[..5], [2.0, 4.0, 8.0, 16.0, 25.0]);
    assert!(patches.len() == 8 && patches[5] <= patches[6] && patches[6] <= patches[7]);
    refused(here, &["classify", model, "linear.safetensors", "a.png", "--curve"], &["--curve", "classes"]);
    refused(here, &["classify", model, "linear.safetensors", "a.png", "--confidence", "1"], &["confidence", "got 1"]);
    refused(here, &["classify", model, model, "a.png"], &[model, "bagssl-classifier"]);
    refused(here, &["classify", "bagnet.safetensors", "linear.safetensors", "a.png"], &["linear", "network"]);

    let accuracy = json(here, &["bench", "accuracy", model, "--json"]);
    assert_eq!(accuracy["layers"].as_array().unwrap().len(), 9);
    let f32 = &accuracy["networks"][1];
    assert!(f32["lowest_cosine"].as_f64().unwrap() > 0.99999 && f32["error"].as_f64().unwrap() < 1e-4);

    if cfg!(target_os = "linux") {
        let limited = ["embed", model, "folder", "--stride", "4", "-o", "limited.npy", "--memory-limit", "400"];
        succeeds(here, &limited);
        assert_eq!(fs::read(here.join("all.npy")).unwrap(), fs::read(here.join("limited.npy")).unwrap());
        let small = ["embed", model, "folder", "-o", "x.npy", "--memory-limit", "3"];
        refused(here, &small, &["--memory-limit", "at least", "got 3"]);
    }
}

#[test]
fn bad_input_gets_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir_all(here.join("photos/train/cat")).unwrap();
    fs::create_dir_all(here.join("photos/val/cat")).unwrap();
    let tiny = image::RgbImage::from_pixel(20, 9, image::Rgb([1, 2, 3]));
    for name in ["photos/train/cat/1.png", "photos/train/cat/2.png", "photos/val/cat/3.png"] {
        tiny.save(here.join(name)).unwrap();
    }
    refused(here, &["train", "--preset", "bagsll"], &["--preset", "bagsll", "emp-ssl-cifar"]);
    refused(here, &["train", "--data", "nowhere"], &["nowhere"]);
    let pixels = succeeds(here, &["train", "--print-config"]).replace("area_share = 0.25", "pixels = 32");
    fs::write(here.join("pixels.toml"), pixels).unwrap();
    refused(here, &["train", "--config", "pixels.toml", "--data", "photos", "--images", "2"], &["32x32", "9x20"]);
    fs::remove_file(here.join("pixels.toml")).unwrap();
    refused(here, &["train", "--data", "photos"], &["batch.images", "1 to 2", "20"]);
    refused(here, &["train", "--epochs", "0"], &["schedule.epochs", "at least 1"]);
    refused(here, &["train", "--arch", "resnet19"], &["arch", "resnet19"]);
    refused(here, &["train", "--patches", "1"], &["batch.patches", "at least 2"]);
    refused(here, &["train", "--backend", "cuda"], &["cuda"]);
    fs::write(here.join("bad.toml"), "sede = 1\n").unwrap();
    refused(here, &["train", "--config", "bad.toml"], &["bad.toml"]);
    refused(here, &["eval", "nothing.safetensors"], &["nothing.safetensors"]);
    refused(here, &["eval", "photos"], &["photos", "expected a file"]);
    refused(here, &["inspect", "photos/val/cat/3.png"], &["3.png", "expected a checkpoint, got an image (PNG)"]);
    let import = ["import", "photos/val/cat/3.png", "-o", "x.safetensors"];
    refused(here, &import, &["3.png", "expected PyTorch's zip format or safetensors"]);
    #[cfg(unix)]
    refused(here, &["inspect", "/dev/zero"], &["/dev/zero", "expected a regular file"]);
    refused(here, &["reproduce", "--profile", "cifar10"], &["data/cifar-10-batches-bin", "https://", "--data"]);
    refused(here, &["data", "check", "bad.toml"], &["bad.toml: expected an uncompressed .tar of images", "got a text"]);
    assert_eq!(names(here), ["bad.toml", "photos"], "nothing half-done is left");

    assert!(succeeds(here, &["data", "check", "photos"]).contains("2 images of 1 class, 0 broken"));
    fs::write(here.join("photos/val/cat/4.jpg"), "no image").unwrap();
    let broken = bagssl(here, &["data", "check", "photos"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stdout).contains("val/cat/4.jpg"));

    // A broken training image ends a run, or is left out and listed.
    fs::write(here.join("photos/train/cat/3.jpg"), "no image").unwrap();
    tiny.save(here.join("photos/train/cat/4.png")).unwrap();
    let train = ["train", "--data", "photos", "--images", "2", "--patches", "2", "--epochs", "2", "--out", "run"];
    refused(here, &train, &["train/cat/3.jpg"]);
    let skipping = bagssl(here, &[&train[..], &["--on-bad-image", "skip", "--force"]].concat());
    assert!(skipping.status.success() && String::from_utf8_lossy(&skipping.stderr).contains("train/cat/3.jpg"));
}

#[test]
fn the_check_of_gpus_has_parts_in_a_program_built_for_them() {
    let here = Path::new(".");
    if cfg!(feature = "cuda") {
        let parts = succeeds(here, &["doctor", "--check", "--list", "--only", "fused-norm,pool"]);
        let names: Vec<_> = parts.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["pool", "fused-norm"]);
        refused(here, &["doctor", "--check", "--only", "norm,norms"], &["--only", "pool, linear", "\"norms\""]);
    } else {
        refused(here, &["doctor", "--check"], &["--check", "feature `cuda`"]);
    }
    assert_eq!(bagssl(here, &["doctor", "--only", "norm"]).status.code(), Some(2));
}

#[test]
fn every_command_has_help() {
    let here = Path::new(".");
    for command in [
        &["train"][..],
        &["eval"],
        &["eval", "aggregation"],
        &["eval", "convergence"],
        &["eval", "locality"],
        &["eval", "cooccurrence"],
        &["eval", "compare"],
        &["embed"],
        &["nearest"],
        &["explain"],
        &["fit"],
        &["doctor"],
        &["classify"],
        &["inspect"],
        &["convert"],
        &["export"],
        &["import"],
        &["data", "check"],
        &["data", "preview"],
        &["data", "split"],
        &["bench", "infer"],
        &["bench", "train"],
        &["bench", "accuracy"],
        &["bench", "data"],
        &["reproduce"],
        &["report"],
    ] {
        let help = succeeds(here, &[command, &["--help"]].concat());
        assert!(help.contains("Usage: bagssl") && help.lines().count() > 8, "{help}");
    }
}
