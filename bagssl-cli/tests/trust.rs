//! What files of others may do to the program: nothing but be refused in one line.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{bagssl, json, names, prints, refused, succeeds, unread};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/checkpoint.safetensors");
const TINY: [&str; 8] = ["--epochs", "1", "--images", "2", "--patches", "2", "--data", "set"];

fn picture(number: u32) -> image::RgbImage {
    image::RgbImage::from_fn(48, 40, |x, y| image::Rgb([(x * 5) as u8, (y * 6) as u8, (number * 40) as u8]))
}

/// A data set of two classes with two images in each half.
fn set(root: &Path, classes: [&str; 2]) {
    for (number, half) in (0..).zip(["train", "val"]) {
        for (class, more) in classes.into_iter().zip(0..) {
            let folder = root.join(half).join(class);
            fs::create_dir_all(&folder).unwrap();
            for image in 0..2 {
                picture(number * 4 + more * 2 + image).save(folder.join(format!("{image}.jpg"))).unwrap();
            }
        }
    }
}

/// Takes a part out of the middle of a file.
fn make_hole(path: &Path) {
    let whole = fs::read(path).unwrap();
    fs::write(path, [&whole[..whole.len() * 5 / 6], &whole[whole.len() * 11 / 12..]].concat()).unwrap();
}

#[test]
fn a_jpeg_with_a_hole_is_broken_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    make_hole(&here.join("set/train/cat/1.jpg"));
    make_hole(&here.join("set/val/dog/0.jpg"));
    let output = bagssl(here, &["data", "check", "set", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (half, name) in [("train", "train/cat/1.jpg"), ("validation", "val/dog/0.jpg")] {
        let broken = found[half]["broken"].as_array().unwrap();
        assert_eq!(broken.len(), 1, "{found}");
        assert!(broken[0].as_str().unwrap().contains(&format!("{name}: expected a complete JPEG, got ")), "{found}");
    }
    let embed = ["embed", GOLDEN, "set/val/dog", "-o", "x.npy"];
    refused(here, &embed, &["0.jpg: expected a complete JPEG"]);
    let skip = [&embed[..], &["--on-bad-image", "skip"]].concat();
    let [_, stderr] = prints(here, &skip);
    assert!(stderr.contains("skipped 1 image"), "{stderr}");
    let train = [&["train", "--out", "run", "--on-bad-image", "skip"], &TINY[..]].concat();
    let [_, stderr] = prints(here, &train);
    assert!(stderr.contains("train/cat/1.jpg: expected a complete JPEG"), "{stderr}");
}

/// 1 MiB is enough for images of 48x40 pixels, and too little for one of 900x700.
#[test]
fn images_have_one_limit_in_all_commands() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    succeeds(here, &["data", "check", "set", "--memory-limit", "1"]);
    let large = image::RgbImage::from_fn(900, 700, |x, y| image::Rgb([x as u8, y as u8, 7]));
    for name in ["set/train/cat/0.jpg", "set/val/cat/0.jpg", "large.png"] {
        large.save(here.join(name)).unwrap();
    }
    let words = ["0.jpg: expected an image that needs at most 1 MiB of memory to decode, got "];
    for command in [
        &["train", "--data", "set", "--out", "run", "--epochs", "1", "--images", "4", "--patches", "2"][..],
        &["eval", GOLDEN, "--data", "set", "--random", "1"],
        &["map", GOLDEN, "--data", "set", "--random", "1", "--json"],
        &["data", "preview", "set", "-o", "sheet.png", "--count", "4"],
        &["data", "split", "set/train", "-o", "lists", "--by", "duplicates"],
    ] {
        refused(here, &[command, &["--memory-limit", "1"]].concat(), &words);
    }
    let output = bagssl(here, &["data", "check", "set", "--memory-limit", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("at most 1 MiB of memory to decode").count(), 2, "{text}");
    succeeds(here, &["export", "--arch", "bagnet9", "--format", "safetensors", "-o", "bagnet.safetensors"]);
    let dense = ["embed", "bagnet.safetensors", "--dense", "-o", "dense.npy", "--memory-limit", "1"];
    let words = ["large.png: expected an image that needs at most 1 MiB of memory to decode, got "];
    refused(here, &[&dense[..], &["large.png"]].concat(), &words);
    succeeds(here, &[&dense[..], &["set/train/dog/0.jpg"]].concat());
    // Where all of the memory has a limit, the network's is compared before it is taken.
    for command in [
        &["nearest", GOLDEN, "large.png", "set/val"][..],
        &["embed", GOLDEN, "large.png", "-o", "x.npy"],
        &["fit", GOLDEN, "--data", "set", "-o", "fit.safetensors"],
        &["explain", GOLDEN, "large.png", "--data", "set", "--class", "cat", "-o", "x.png"],
    ] {
        refused(here, &[command, &["--memory-limit", "2"]].concat(), &["--memory-limit: expected at least", "got 2"]);
    }
}

/// The total limit changes no result, and what comes after the embedding is counted before it begins.
#[cfg(target_os = "linux")]
#[test]
fn all_of_the_memory_has_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    picture(9).save(here.join("small.png")).unwrap();
    image::RgbImage::from_fn(300, 300, |x, y| image::Rgb([x as u8, y as u8, 7])).save(here.join("large.png")).unwrap();
    let same = |command: &[&str], file: &str| {
        succeeds(here, &[command, &["-o", file]].concat());
        let limited = format!("limited-{file}");
        succeeds(here, &[command, &["-o", &limited, "--memory-limit", "600"]].concat());
        assert_eq!(fs::read(here.join(file)).unwrap(), fs::read(here.join(limited)).unwrap(), "{command:?}");
    };
    same(&["fit", GOLDEN, "--data", "set"], "linear.safetensors");
    same(&["fit", GOLDEN, "--data", "set", "--by", "knn"], "knn.safetensors");
    same(&["explain", GOLDEN, "small.png", "--data", "set", "--class", "cat"], "class.png");
    same(&["explain", GOLDEN, "small.png", "--like", "set/val/cat/0.jpg"], "like.png");
    for file in ["linear.safetensors", "knn.safetensors"] {
        let classify = ["classify", GOLDEN, file, "set", "--stride", "2"];
        let limited = succeeds(here, &[&classify[..], &["--memory-limit", "600"]].concat());
        let classes =
            |text: &str| text.lines().map(|line| line.split(' ').next().unwrap().into()).collect::<Vec<String>>();
        assert_eq!(classes(&limited)[..4], classes(&succeeds(here, &classify))[..4]);
    }
    // 609 and 22801 patches: 13.9 million pairs, of 56 bytes each.
    let pairs = ["explain", GOLDEN, "small.png", "--like", "large.png", "--stride", "1", "-o", "pairs.png"];
    let words = ["--memory-limit: expected at least", "for the network and the results, got 600"];
    refused(here, &[&pairs[..], &["--memory-limit", "600"]].concat(), &words);
    // A classifier's bytes, and the numbers in them, besides what the program holds.
    fs::File::create(here.join("large.safetensors")).unwrap().set_len(300 << 20).unwrap();
    let classify = ["classify", GOLDEN, "large.safetensors", "small.png", "--memory-limit", "600"];
    refused(here, &classify, &["--memory-limit: expected at least 6", "MiB for the classifier, got 600"]);
    for command in
        [&["fit", GOLDEN, "--data", "set", "-o", "x.safetensors"][..], &["embed", GOLDEN, "small.png", "-o", "x.npy"]]
    {
        refused(here, &[command, &["--memory-limit", "0"]].concat(), &["--memory-limit", "0 is not in 1.."]);
        let most = [command, &["--memory-limit", "18446744073709551615"]].concat();
        succeeds(here, &most);
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    let train = [&["train", "--out", "."], &TINY[..]].concat();
    for (name, content) in [("config.toml", "# by hand\n"), ("checkpoint.safetensors", "a friend's")] {
        fs::write(here.join(name), content).unwrap();
        refused(here, &train, &[&format!("the states that belong to {name}, or another --out")]);
        assert_eq!(fs::read_to_string(here.join(name)).unwrap(), content);
        fs::remove_file(here.join(name)).unwrap();
    }
    // Its own config alone is what a run leaves that was killed before its first state.
    let print = [&["train", "--print-config"], &TINY[..]].concat();
    fs::write(here.join("config.toml"), succeeds(here, &print)).unwrap();
    succeeds(here, &train);
    assert!(here.join("checkpoint.safetensors").is_file());
    succeeds(here, &train);
    #[cfg(unix)]
    for force in [&[][..], &["--force"]] {
        let split = [&["fit", GOLDEN, "--data", "set", "-o", "out.safetensors"], force].concat();
        std::os::unix::fs::symlink("/dev/null", here.join("out.safetensors")).unwrap();
        refused(here, &split, &["out.safetensors: expected a regular file to write, got a special file"]);
        fs::remove_file(here.join("out.safetensors")).unwrap();
    }
}

/// Names that would clear the screen, begin a line of their own, or turn the text around.
#[cfg(unix)]
#[test]
fn names_are_shown_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["c\u{1b}[2J\rat", "d\nog\u{202e}gpj"]);
    fs::write(here.join("set/val/c\u{1b}[2J\rat/\u{9b}31m.jpg"), "no image").unwrap();
    let is_tame = |text: &str| !text.contains(['\u{1b}', '\r', '\u{9b}', '\u{202e}']) && !text.contains("d\nog");
    for command in [
        &["data", "check", "set"][..],
        &["data", "check", "set", "--json"],
        &["eval", GOLDEN, "--data", "set", "--random", "1", "--on-bad-image", "skip"],
        &["embed", GOLDEN, "set", "-o", "x.npy", "--on-bad-image", "skip"],
        &["data", "split", "set/train", "-o", "lists", "--by", "name", "--pattern", "([01])"],
    ] {
        let output = bagssl(here, command);
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(is_tame(&stdout) && is_tame(&stderr), "{command:?}: {stdout:?} {stderr:?}");
        if command.contains(&"--json") {
            let said: serde_json::Value = serde_json::from_str(&stdout).unwrap();
            assert!(said["train"]["classes"].get("d\nog\u{202e}gpj").is_some(), "{said}");
        }
    }
    for file in ["x.names.txt", "lists/train.txt", "lists/val.txt"] {
        let text = fs::read_to_string(here.join(file)).unwrap();
        assert!(is_tame(&text) && text.contains("\\u{1b}[2J\\rat"), "{file}: {text:?}");
    }
    assert_eq!(json(here, &["data", "check", "lists"])["train"]["broken"].as_array().unwrap().len(), 0);
}

#[test]
fn unimportable_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let own = "got a BagSSL checkpoint: use it directly";
    refused(here, &["import", GOLDEN, "-o", "x.safetensors"], &["checkpoint.safetensors", own]);
    // A file of 4 GiB less 4 KiB, of which the first bytes are enough.
    fs::File::create(here.join("large.pth")).unwrap().set_len((4 << 30) - 4096).unwrap();
    for command in [&["import", "large.pth", "-o", "x.safetensors"][..], &["inspect", "large.pth"]] {
        refused(here, command, &["large.pth", "a header of at most 8388608 bytes, got a header of 0"]);
    }
    assert_eq!(names(here), ["large.pth"]);
    refused(here, &["train", "--seed", "9223372036854775808"], &["seed: expected 0 to 9223372036854775807"]);
    let config = succeeds(here, &["train", "--seed", "9223372036854775807", "--print-config"]);
    fs::write(here.join("config.toml"), &config).unwrap();
    assert_eq!(succeeds(here, &["train", "--config", "config.toml", "--print-config"]), config);
}

/// As behind `| head -1`: whoever stops reading ends the output, but what is to be written to files is there as a whole, and the
/// program says by its exit code that not all was read.
#[cfg(target_os = "linux")]
#[test]
fn closed_pipe_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bagssl"));
        command.args(arguments).current_dir(here).stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    let train = [&["train", "--out", "run"], &TINY[..]].concat();
    assert_eq!(run(&train).stdout(unread()).status().unwrap().code(), Some(2));
    assert!(here.join("run/checkpoint.safetensors").is_file());
    let embed = ["embed", GOLDEN, "set", "-o", "x.npy"];
    assert_eq!(run(&embed).stdout(unread()).status().unwrap().code(), Some(2));
    assert!(here.join("x.npy").is_file() && here.join("x.names.txt").is_file());
    // More than a pipe holds: the program is still writing when its reader leaves.
    for image in 0..1500 {
        fs::write(here.join(format!("set/train/cat/{}{image}.jpg", "n".repeat(80))), "no image").unwrap();
    }
    let mut check = run(&["data", "check", "set"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(check.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "set\n");
    assert_eq!(check.wait().unwrap().code(), Some(2));
}

/// Pixels that are others under the same names, of the same length and time.
#[test]
fn changed_images_are_other_images() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // Of one length: a picture without compression.
    let write = |half: &str, class: &str, image: u32, number: u32| {
        let path = here.join("set").join(half).join(class).join(format!("{image}.bmp"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture(number).save(&path).unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let all = |swap: u32| {
        for half in ["train", "val"] {
            for image in 0..3 {
                write(half, "cat", image, swap);
                write(half, "dog", image, 5 - swap);
            }
        }
    };
    all(0);
    let eval = ["eval", GOLDEN, "--data", "set", "--stride", "16", "--features", "features"];
    let [first, said] = prints(here, &eval);
    assert!(!said.contains("other images"), "{said}");
    let [again, said] = prints(here, &eval);
    assert!(!said.contains("other images") && again == first, "{said}");
    let fingerprints = || json(here, &eval)["fingerprint"].clone();
    let before = fingerprints();
    assert!(before["train"].as_str().is_some_and(|text| text.starts_with("6-")), "{before}");
    let train = ["train", "--data", "set", "--images", "2", "--patches", "2", "--out", "run", "--epochs"];
    prints(here, &[&train[..], &["1"]].concat());

    // The classes have changed their pictures in the training half alone.
    for image in 0..3 {
        write("train", "cat", image, 5);
        write("train", "dog", image, 0);
    }
    let [_, said] = prints(here, &eval);
    assert_eq!(said.matches("set, train/: other images than before").count(), 1, "{said}");
    let after = fingerprints();
    assert!(after["train"] != before["train"] && after["test"] == before["test"], "{before} {after}");
    let more = [&train[..], &["2"]].concat();
    refused(here, &more, &["run", "(images 6-", "got others (images 6-", "start over with --force"]);
    let model = fs::read(here.join("run/checkpoint.safetensors")).unwrap();
    let other = [&train[..], &["1", "--arch", "resnet18-cifar"]].concat();
    refused(here, &other, &["model.arch", "start over with --force"]);
    assert_eq!(fs::read(here.join("run/checkpoint.safetensors")).unwrap(), model, "it is as it was");

    // The features of the pictures of before are still there, and it is said that they are others than the last ones.
    all(0);
    let [_, said] = prints(here, &eval);
    assert_eq!(
        said.matches("train/: other images than before: their features were extracted earlier").count(),
        1,
        "{said}"
    );
    assert_eq!(fingerprints(), before);
    let [last, said] = prints(here, &eval);
    assert!(!said.contains("other images") && last == first, "{said}");
}

/// Digests of files are kept, so that they are not read again, and are read again if what is kept is damaged.
#[test]
fn digests_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    // What has just been written is not kept: it may be written again within a tick of the clock.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let fingerprints = || {
        let mut eval = Command::new(env!("CARGO_BIN_EXE_bagssl"));
        eval.args(["eval", GOLDEN, "--data", "set", "--stride", "16", "--json"]).current_dir(here);
        let output = eval.env("XDG_CACHE_HOME", here.join("cache")).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["fingerprint"].clone()
    };
    let first = fingerprints();
    assert!(first["test"].is_string(), "{first}");
    let [kept] = &names(&here.join("cache/bagssl"))[..] else { panic!("one file for both halves") };
    let path = here.join("cache/bagssl").join(kept);
    assert!(kept.starts_with("set-") && kept.ends_with(".bagssl-digests"), "{kept}");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 16 + 8 * 16, "eight images");
    assert_eq!(fingerprints(), first);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    fs::write(&path, &bytes[..40]).unwrap();
    assert_eq!(fingerprints(), first);
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is mended");
}

#[test]
fn a_run_lies_in_no_other_and_in_no_images() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    let train =
        |out: &str| -> Vec<String> { ["train", "--out", out].iter().chain(&TINY).map(ToString::to_string).collect() };
    let refuse = |out: &str, words: &str| {
        let arguments = train(out);
        refused(here, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &["--out: ", words]);
    };
    for out in ["set", "set/run", "set/train/cat/new/run", "other/../set/run"] {
        refuse(out, "expected a folder outside of the images, got ");
    }
    assert_eq!(names(&here.join("set")), ["train", "val"]);
    let arguments = train("runs/one");
    succeeds(here, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    for out in ["runs/one/two", "runs/one/states/two"] {
        refuse(out, "expected a folder outside of other runs, got ");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("set/val", here.join("link")).unwrap();
        refuse("link/run", "expected a folder outside of the images, got link/run in set");
    }
}

/// The file says what a run was started with. It is not read, so that a change of it would be lost.
#[test]
fn a_config_that_was_changed_by_hand_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    let train = [&["train", "--out", "run", "--seed", "3"], &TINY[..]].concat();
    succeeds(here, &train);
    let path = here.join("run/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let changed = config.replacen("seed = 3", "seed = 4", 1);
    assert_ne!(changed, config);
    fs::write(&path, &changed).unwrap();
    refused(
        here,
        &train,
        &["run/config.toml: expected the settings of the run (seed 3), got others (seed 4); the run does not"],
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    fs::write(&path, &config).unwrap();
    let more = [&train[..], &["--lr", "0.01", "--resume-from", "last"]].concat();
    let [_, said] = prints(here, &more);
    assert!(said.contains("learning_rate was ") && said.contains("is 0.01 from now on"), "{said}");
    assert!(fs::read_to_string(&path).unwrap().contains("learning_rate = 0.01"));
}

/// The golden checkpoint is one of format 1, as versions before digests wrote it.
#[test]
fn inspect_says_whether_there_is_a_digest() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let said = succeeds(here, &["inspect", GOLDEN]);
    assert!(said.starts_with("format      1\ndigest      none (format 1)"), "{said}");
    succeeds(here, &["convert", GOLDEN, "--dtype", "bf16", "-o", "new.safetensors"]);
    let said = succeeds(here, &["inspect", "new.safetensors"]);
    assert!(said.starts_with("format      2\ndigest      valid"), "{said}");
}

/// A learning rate at which all images become the same, though every value stays finite.
#[test]
fn a_training_that_collapses_says_so_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    let train =
        ["train", "--data", "set", "--out", "run", "--images", "4", "--patches", "4", "--epochs", "4", "--lr", "1000"];
    let [said, stderr] = prints(here, &[&train[..], &["--json"]].concat());
    assert!(said.contains("\"health\":\"collapsed\""), "{said}");
    let warnings: Vec<&str> = stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    let [warning] = warnings[..] else { panic!("{stderr}") };
    assert!(warning.starts_with("warning: the model has collapsed: ") && warning.ends_with("may help"), "{warning}");
}

/// Any command with a checkpoint says what a file is that is none.
#[test]
fn foreign_checkpoints_are_recognized() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    let with = |start: &[u8], more: &[u8]| [start, &vec![b'x'; 300 - start.len()], more].concat();
    let zip = "got a PyTorch file; to import weights, use `bagssl import`";
    let files: [(&str, Vec<u8>, &str); 8] = [
        ("a.pth", with(b"PK\x03\x04\x14\0\0\0archive/data.pkl", b""), zip),
        ("b.pth", with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80", b""), "before PyTorch 1.6"),
        ("c.pkl", with(b"\x80\x04\x95", b""), "expected a checkpoint, got a pickle"),
        ("d.html", with(b"<!DOCTYPE html><html>", b""), "got an HTML page, probably from a failed download"),
        ("e.zip", with(b"PK\x03\x04\x14\0\0\0x.txt", b""), "expected a checkpoint, got a zip archive"),
        ("f.lfs", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "run `git lfs pull`"),
        (
            "g.tar",
            [b"sys_info".to_vec(), vec![0; 249], b"ustar\x0000".to_vec(), vec![0; 248]].concat(),
            "PyTorch 0.1.10",
        ),
        ("h.safetensors", safetensors::serialize([("x", view())], None).unwrap(), "import its weights first"),
    ];
    for (name, bytes, words) in files {
        fs::write(here.join(name), bytes).unwrap();
        for command in [
            &["inspect", name][..],
            &["embed", name, "set", "-o", "x.npy"],
            &["eval", name, "--data", "set"],
            &["fit", name, "--data", "set", "-o", "x.safetensors"],
            &["convert", name, "--dtype", "bf16", "-o", "x.safetensors"],
            &["export", name, "-o", "x.onnx"],
        ] {
            refused(here, command, &[&format!("{name}: "), words]);
        }
    }
    let classify = ["classify", GOLDEN, "e.zip", "set/val/cat/0.jpg"];
    refused(here, &classify, &["e.zip: expected a classifier, got a zip archive"]);
}

fn view() -> safetensors::tensor::TensorView<'static> {
    safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap()
}

/// A file in place of a folder, also of one above it.
#[cfg(unix)]
#[test]
fn files_in_place_of_folders_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    set(&here.join("set"), ["cat", "dog"]);
    fs::write(here.join("file"), "text").unwrap();
    for (out, words) in [
        ("/dev/null", "/dev/null: expected a folder, got a special file"),
        ("file", "file: expected a folder, got a file"),
        ("file/run", "file/run: expected a folder, got a file (file)"),
    ] {
        refused(here, &["data", "split", "set/train", "-o", out, "--by", "folder"], &[words]);
        refused(here, &[&["train", "--out", out], &TINY[..]].concat(), &[words]);
    }
}

#[test]
fn inspect_says_that_weights_are_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let golden = fs::read(GOLDEN).unwrap();
    assert!(!succeeds(here, &["inspect", GOLDEN]).contains("unusable"));
    let checkpoint = bagssl_core::checkpoint::Checkpoint::from_bytes(&golden).unwrap();
    let named = |name: &&str| {
        let shape = checkpoint
            .spec()
            .model
            .parameters()
            .into_iter()
            .find(|p| p.name == **name)
            .unwrap_or_else(|| panic!("{name}"))
            .shape;
        let mut values = checkpoint.values(name).unwrap();
        if *name == "encoder.bn1.weight" {
            values[1] = f32::INFINITY;
        }
        ((*name).to_string(), shape, values)
    };
    // The golden checkpoint has int8 weights with scales; values are written in f32.
    let tensors: Vec<_> = checkpoint.names().iter().filter(|name| !name.ends_with(".scale")).map(named).collect();
    let bytes = bagssl_core::checkpoint::to_bytes(checkpoint.spec(), &tensors).unwrap();
    fs::write(here.join("inf.safetensors"), bytes).unwrap();
    let said = succeeds(here, &["inspect", "inf.safetensors"]);
    assert!(said.contains("\nvalues      unusable: ") && said.contains("expected finite values, got inf\n"), "{said}");
}
