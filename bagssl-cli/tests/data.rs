//! What the program does with data sets: parts of them, sheets, halves.

use std::fs;
use std::path::Path;

use crate::support::{bagssl, json, refused, succeeds};
use serde_json::Value;

#[test]
fn a_list_of_classes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("two.txt"), "02-wine a glass\n00-picture-0b\n").unwrap();
    let check = json(here, &["data", "check", "--classes", "two.txt"]);
    for (half, images) in [("train", 200), ("validation", 60)] {
        assert_eq!(check[half]["images"], images, "{half}");
        let classes: Vec<_> = check[half]["classes"].as_object().unwrap().keys().collect();
        assert_eq!(classes, ["00-picture-0b", "02-wine"]);
    }
    let tiny = ["--images", "100", "--patches", "2", "--epochs", "1", "--out", "run"];
    assert_eq!(json(here, &[&["train", "--classes", "two.txt"], &tiny[..]].concat())["steps"], 2);
    let eval = ["eval", "run/checkpoint.safetensors", "--classes", "two.txt", "--random", "1"];
    assert!(succeeds(here, &eval).contains("200 training and 60 test images of 2 classes (chance 50.0 %)"));

    // It belongs to what a run depends on.
    let other = [&["train"], &tiny[..]].concat();
    refused(here, &other, &["run/states/step-", "--force"]);
    for (text, words) in [
        ("02-whine\n", &["other.txt", "expected classes of the data set", "02-whine"][..]),
        ("02-wine\n02-wine\n", &["other.txt", "twice"]),
        ("\n", &["other.txt", "at least one class"]),
    ] {
        fs::write(here.join("other.txt"), text).unwrap();
        refused(here, &["train", "--classes", "other.txt"], words);
    }
    fs::write(here.join("other.txt"), b"\xff\n").unwrap();
    refused(here, &["data", "check", "--classes", "other.txt"], &["other.txt", "UTF-8"]);
    refused(here, &["data", "check", "--classes", "none.txt"], &["none.txt"]);
}

/// Photographs of two classes: `p/cat/{1,2,3}_{a,b}.png` and dogs likewise, each of its own picture, 36x48.
fn photos(here: &Path) {
    for (class, shift) in [("cat", 0), ("dog", 100)] {
        fs::create_dir_all(here.join("p").join(class)).unwrap();
        for (number, place) in [1, 2, 3].into_iter().flat_map(|number| [(number, "a"), (number, "b")]) {
            let color = shift + number * 20 + u8::from(place == "b") * 10;
            let picture = image::RgbImage::from_fn(48, 36, |x, y| {
                let wave = (x * u32::from(color) / 7 + y * u32::from(number)) % 97;
                image::Rgb([wave as u8 * 2, color, (y * 7 % 256) as u8])
            });
            picture.save(here.join(format!("p/{class}/{number}_{place}.png"))).unwrap();
        }
    }
}

#[test]
fn a_sheet_of_patches() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let grey = image::RgbImage::from_pixel(48, 36, image::Rgb([120, 80, 40]));
    for name in ["train/x/a.png", "train/x/b.png", "val/x/c.png"] {
        fs::create_dir_all(here.join("set").join(name).parent().unwrap()).unwrap();
        grey.save(here.join("set").join(name)).unwrap();
    }
    // The settings of a recipe without augmentation.
    let plain = succeeds(here, &["train", "--print-config"]);
    let plain = &plain[..plain.find("[augment]").unwrap()];
    fs::write(here.join("plain.toml"), plain).unwrap();
    let preview = ["data", "preview", "set", "--config", "plain.toml", "--patches", "3", "-o", "sheet.png"];
    let said = json(here, &preview);
    let mut names: Vec<_> = said["images"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!((names, &said["patches"]), (vec!["train/x/a.png", "train/x/b.png"], &Value::from(3)));
    let sheet = image::open(here.join("sheet.png")).unwrap().to_rgb8();
    // Two lines, each an image of 48x36, twice as large, and three patches of 16 pixels, four times as large.
    assert_eq!(sheet.dimensions(), (96 + 3 * (4 + 64), 72 + 4 + 72));
    for (x, y) in [(0, 0), (95, 71), (100, 0), (100 + 2 * 68 + 63, 63)] {
        assert_eq!(sheet.get_pixel(x, y).0, [120, 80, 40], "{x}, {y}");
    }
    assert_eq!([sheet.get_pixel(97, 10).0, sheet.get_pixel(100 + 65, 5).0], [[255; 3]; 2]);

    refused(here, &preview, &["sheet.png", "--force"]);
    let augmented = |seed: &str| {
        succeeds(here, &["data", "preview", "-o", "a.png", "--count", "2", "--force", "--seed", seed]);
        fs::read(here.join("a.png")).unwrap()
    };
    assert!(augmented("1") == augmented("1") && augmented("1") != augmented("2"));
    refused(here, &["data", "preview", "set", "-o", "sheet.jpg"], &["sheet.jpg", ".png"]);
    refused(here, &["data", "preview", "none", "-o", "x.png"], &["none"]);
    fs::write(here.join("set/train/x/b.png"), "no image").unwrap();
    refused(here, &["data", "preview", "set", "-o", "x.png", "--count", "2"], &["train/x/b.png"]);
    assert!(!here.join("x.png").exists());
    let skipping = bagssl(here, &["data", "preview", "set", "-o", "x.png", "--on-bad-image", "skip"]);
    assert!(skipping.status.success() && String::from_utf8_lossy(&skipping.stderr).contains("skipped 1 image"));
}

/// The lines of both lists, the validation's last.
fn lists(here: &Path, folder: &str) -> [Vec<String>; 2] {
    ["train.txt", "val.txt"].map(|name| {
        let text = fs::read_to_string(here.join(folder).join(name)).unwrap();
        text.lines().map(Into::into).collect()
    })
}

#[test]
fn splits_by_name_and_by_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    photos(here);
    let split = ["data", "split", "p", "-o", "h", "--by", "name", "--pattern", r"(\w+)/(\d+)_", "--validation", "0.33"];
    let said = json(here, &split);
    assert_eq!((&said["groups"], &said["train"], &said["validation"]), (&6.into(), &8.into(), &4.into()));
    assert_eq!(said["classes"]["cat"], serde_json::json!({"train": 4, "validation": 2}));
    let [train, validation] = lists(here, "h");
    for class in ["cat", "dog"] {
        let start =
            |line: &&String| line.starts_with(&format!("../p/{class}/")) && line.ends_with(&format!("\t{class}"));
        assert_eq!(train.iter().chain(&validation).filter(start).count(), 6);
    }
    let group = |line: &String| line.split('_').next().unwrap().to_string();
    assert!(train.iter().all(|line| validation.iter().all(|other| group(line) != group(other))));

    // Both halves are a data set.
    let check = json(here, &["data", "check", "h"]);
    assert_eq!((&check["train"]["images"], &check["validation"]["images"]), (&8.into(), &4.into()));
    assert_eq!(check["train"]["format"], "lists of image files");
    let tiny = ["--images", "4", "--patches", "2", "--epochs", "1", "--out", "run"];
    assert_eq!(json(here, &[&["train", "--data", "h"], &tiny[..]].concat())["steps"], 2);
    let eval = ["eval", "run/checkpoint.safetensors", "--data", "h", "--random", "2"];
    assert!(succeeds(here, &eval).contains("h: 8 training and 4 test images of 2 classes"));

    refused(here, &split, &["h/train.txt", "--force"]);
    let seeded = |seed: &str| {
        succeeds(here, &[&split[..], &["--force", "--seed", seed]].concat());
        lists(here, "h")
    };
    assert!(seeded("1") == seeded("1") && (2..9).any(|seed| seeded(&seed.to_string()) != seeded("1")));
    let [train, _] = seeded("1");
    let again = ["data", "split", "p", "-o", "p", "--by", "folder", "--validation", "0.5"];
    let output = bagssl(here, &again);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 of 2 classes are only in one split"));
    let one_class =
        |lines: &[String], class: &str| lines.len() == 6 && lines.iter().all(|line| line.starts_with(class));
    let halves = lists(here, "p");
    assert!(one_class(&halves[0], "cat/") && one_class(&halves[1], "dog/") || one_class(&halves[1], "cat/"));
    assert_eq!(train.len(), 8);

    let with = |more: &[&str], words: &[&str]| {
        refused(here, &[&["data", "split", "p", "-o", "new"], more].concat(), words);
        assert!(!here.join("new").exists());
    };
    with(&["--by", "name"], &["--pattern"]);
    with(&["--by", "folder", "--pattern", "x"], &["--pattern", "--by name"]);
    with(&["--by", "folder", "--on-bad-image", "skip"], &["--on-bad-image", "--by duplicates"]);
    with(&["--by", "name", "--pattern", "("], &["--pattern", "unclosed"]);
    with(&["--by", "name", "--pattern", "cat"], &["--pattern", "dog/1_a.png"]);
    with(&["--by", "name", "--pattern", ".", "--validation", "1"], &["validation", "between 0 and 1"]);
    with(&["--by", "name", "--pattern", "png"], &["p by name", "at least two", "1 for 12 images"]);
    refused(here, &["data", "split", "p/cat/1_a.png", "-o", "new", "--by", "folder"], &["1_a.png", "a folder"]);
}

#[test]
fn splits_without_duplicates_across() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    photos(here);
    // Each picture again: the cats' with their brightness changed by a little, the dogs' as copies.
    for number in 1..=3 {
        let name = format!("{number}_a.png");
        let mut cat = image::open(here.join("p/cat").join(&name)).unwrap().to_rgb8();
        cat.pixels_mut().for_each(|pixel| pixel.0[1] += 1);
        cat.save(here.join(format!("p/cat/again{number}.png"))).unwrap();
        fs::copy(here.join("p/dog").join(&name), here.join(format!("p/dog/again{number}.png"))).unwrap();
    }
    fs::write(here.join("p/dog/broken.png"), "no image").unwrap();
    let split = ["data", "split", "p", "-o", "h", "--by", "duplicates", "--validation", "0.4"];
    refused(here, &split, &["broken.png"]);
    let skipping = [&split[..], &["--on-bad-image", "skip"]].concat();
    for seed in ["0", "1", "2"] {
        let output = bagssl(here, &[&skipping[..], &["--force", "--seed", seed]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && errors.contains("broken.png") && errors.contains("skipped 1 image"),
            "{errors}"
        );
        let [train, validation] = lists(here, "h");
        assert_eq!(train.len() + validation.len(), 18);
        for (class, number) in ["cat", "dog"].into_iter().flat_map(|class| [1, 2, 3].map(|number| (class, number))) {
            let of = |name: String| validation.contains(&format!("../p/{class}/{name}.png\t{class}"));
            assert_eq!(of(format!("{number}_a")), of(format!("again{number}")), "{class} {number}");
        }
    }
}

#[test]
fn images_are_skipped_while_they_are_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    photos(here);
    fs::write(here.join("p/cat/2_a.png"), "no image").unwrap();
    fs::write(here.join("p/dog/notes.txt"), "no image").unwrap();
    image::RgbImage::new(1, 1).save(here.join("p/dog/0.png")).unwrap();
    let export = ["export", "--arch", "bagnet9", "--format", "safetensors", "-o", "bagnet.safetensors"];
    succeeds(here, &export);
    let model = "bagnet.safetensors";
    // Patches of 9x9 pixels do not fit into one pixel.
    let embed = ["embed", model, "p", "-o", "e.npy", "--stride", "16"];
    refused(here, &embed, &["2_a.png"]);
    for (more, threads) in [(&[][..], "1"), (&["--max-patches", "3"], "3"), (&["--dense"], "1")] {
        let stride = if more == ["--dense"] { &embed[..5] } else { &embed[..] };
        let skipping = ["--on-bad-image", "skip", "--force", "--threads", threads, "--json"];
        let output = bagssl(here, &[stride, more, &skipping].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        assert_eq!(errors.lines().count(), 5, "{errors}");
        assert!(errors.contains("data: ignored: 1 file without an image extension (dog/notes.txt)"), "{errors}");
        assert!(errors.contains("skipped 2 images"), "{errors}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&said["rows"], &said["passed_over"][0]["count"]), (&11.into(), &1.into()));
        assert_eq!(said["skipped"], serde_json::json!(["cat/2_a.png", "dog/0.png"]));
        let names = fs::read_to_string(here.join("e.names.txt")).unwrap();
        let names: Vec<&str> = names.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!((names.len(), names[2], names[6]), (11, "cat/2_b.png", "dog/1_b.png"));
    }
    // A row is that of its name.
    succeeds(here, &["embed", model, "p/dog/1_b.png", "-o", "one.npy", "--stride", "16"]);
    succeeds(here, &[&embed[..], &["--on-bad-image", "skip", "--force"]].concat());
    let row = |name: &str, row: usize| fs::read(here.join(name)).unwrap()[128 + row * 2048 * 4..][..2048 * 4].to_vec();
    assert!(row("e.npy", 6) == row("one.npy", 0));
    let near = ["nearest", model, "p/dog/1_b.png", "p", "--stride", "16"];
    refused(here, &near, &["2_a.png"]);
    let near = json(here, &[&near[..], &["--on-bad-image", "skip", "-k", "99"]].concat());
    assert_eq!((near.as_array().unwrap().len(), &near[0]["image"]), (11, &"dog/1_b.png".into()));
    fs::create_dir(here.join("bad")).unwrap();
    fs::write(here.join("bad/a.png"), "no image").unwrap();
    let none = bagssl(here, &["embed", model, "bad", "-o", "x.npy", "--on-bad-image", "skip"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&none.stderr)
            .contains("expected an image that can be used, got none of 1; the last: bad: a.png")
    );
    assert!(!here.join("x.npy").exists());
}

/// The command that the README gives for its picture.
#[test]
fn the_picture_of_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(folder.path(), &["data", "preview", "-o", "preview.png", "--count", "4", "--patches", "8"]);
    let picture = |path: &Path| image::open(path).unwrap().into_rgb8();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/preview.png");
    let (made, kept) = (picture(&folder.path().join("preview.png")), picture(&kept));
    assert_eq!(made.dimensions(), (608, 268));
    assert!(made == kept, "docs/preview.png: expected what the command in README.md makes");
}
