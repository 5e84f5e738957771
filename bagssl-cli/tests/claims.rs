//! The claims as commands: what they print, what they write, and what they refuse.

use std::fs;
use std::path::Path;

use crate::support::{bagssl, json, names, refused, succeeds};
use serde_json::Value;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("expected a number, got {value}"))
}

#[test]
fn a_world_where_all_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let world = ["eval", "cooccurrence", "--patches", "12", "--kinds", "4", "--dim", "3", "--json"];
    let found = json(here, &world);
    assert_eq!(found["holds"], true);
    assert_eq!(found["worlds"].as_array().unwrap().len(), 2);
    for world in found["worlds"].as_array().unwrap() {
        assert_eq!(world["trained"].as_array().unwrap().len(), 3);
        assert!(number(&world["largest_difference_of_the_losses"]) < 1e-12);
        assert!((number(&world["eigenvalues"][0]) - 1.0).abs() < 1e-9);
    }
    // The optimum keeps the three greatest positive eigenvalues: -sum of their squares / (4 lambda), lambda = 1 / 2.
    let squares: f64 = (0..3).map(|at| number(&found["worlds"][0]["eigenvalues"][at]).powi(2)).sum();
    assert!((number(&found["worlds"][0]["optimum"]) + squares / 2.0).abs() < 1e-9);

    let written = [&world[..8], &["--report", "out"]].concat();
    assert!(bagssl(here, &written).status.success());
    assert_eq!(names(&here.join("out")), ["csv", "html", "json", "md"].map(|ending| format!("cooccurrence.{ending}")));
    refused(here, &written, &["out/cooccurrence.html", "--force"]);
    assert!(bagssl(here, &[&written[..], &["--force"]].concat()).status.success());
    fs::write(here.join("file"), "x").unwrap();
    refused(here, &["eval", "cooccurrence", "--report", "file"], &["--report", "expected a folder", "file"]);
    refused(here, &["eval", "cooccurrence", "--patches", "0"], &["patches", "got 0"]);
    refused(here, &["eval", "cooccurrence", "--starts", "0"], &["--starts", "got 0"]);
    refused(here, &["eval", "cooccurrence", "--weight", "0"], &["--weight", "got 0"]);
    refused(here, &["eval", "cooccurrence", "--force"], &["--report"]);
}

#[test]
fn claims_about_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (preset, seed, out) in
        [("bagssl", "0", "a"), ("simclr", "0", "b"), ("bagssl", "1", "c"), ("bagssl-spectral", "0", "d")]
    {
        let train = ["train", "--preset", preset, "--seed", seed, "--out", out, "--epochs", "1", "--images", "450"];
        json(here, &[&train[..], &["--patches", "2"]].concat());
    }
    let [a, b, c] = ["a/checkpoint.safetensors", "b/checkpoint.safetensors", "c/checkpoint.safetensors"];

    // Of a square image the largest square in the middle is the whole image.
    let found = json(here, &["eval", "convergence", a, b, "--stride", "16", "--json"]);
    let checkpoints = found["checkpoints"].as_array().unwrap();
    assert_eq!(checkpoints.iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    for checkpoint in checkpoints {
        assert_eq!(checkpoint["whole"], checkpoint["centre"]);
        let patches: Vec<_> = checkpoint["whole"].as_array().unwrap().iter().map(|it| it["patches"].clone()).collect();
        assert_eq!(patches, [1, 2, 4, 8, 9].map(Value::from));
        assert!(number(&checkpoint["whole"][4]["cosine"]) > number(&checkpoint["whole"][0]["cosine"]));
        assert!(number(&checkpoint["whole"][4]["distance"]) < number(&checkpoint["whole"][0]["distance"]));
        assert_eq!(checkpoint["origin"]["protocol_hash"].as_str().unwrap().len(), 16);
    }
    assert_ne!(checkpoints[0]["origin"]["checkpoint_hash"], checkpoints[1]["origin"]["checkpoint_hash"]);

    // In a grid of 2 x 2 patches all are adjacent.
    let found = json(here, &["eval", "locality", a, "--stride", "32", "--json"]);
    let space = &found["checkpoints"][0]["spaces"]["embedding"];
    assert_eq!((number(&space["adjacent"]), number(&space["adjacent_by_chance"])), (100.0, 100.0));
    assert!(found["checkpoints"][0]["spaces"].as_object().unwrap().len() == 3 && number(&space["row"]) < 1.0);

    // The whole grid is the same bag whichever order its patches are taken in.
    let aggregation = ["eval", "aggregation", a, "--stride", "32", "--only-knn", "--grey", "--report", "out", "--json"];
    let found = json(here, &aggregation);
    let rows = found["checkpoints"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3 * 7, "three features; center, whole, 1 and 4 of a grid and at random, pooled");
    for row in rows {
        let (knn, interval) = (&row["knn"], &row["knn"]["interval"]);
        assert!(
            number(&interval["low"]) <= number(&knn["percent"]) && number(&knn["percent"]) <= number(&interval["high"])
        );
        assert!(number(&knn["top5"]) >= number(&knn["percent"]) && row["linear"].is_null());
    }
    let html = fs::read_to_string(here.join("out/aggregation.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("kNN against patches") && html.contains("bagssl eval aggregation"));
    assert!(fs::read_to_string(here.join("out/aggregation.csv")).unwrap().lines().count() > 12);

    // Seeds of one method are averaged; each other method is compared with the first.
    let found = json(here, &["eval", "compare", a, b, c, "--stride", "32", "--only-knn", "--json"]);
    let methods = found["methods"].as_array().unwrap();
    let names: Vec<_> = methods.iter().map(|it| (&it["name"], &it["seeds"])).collect();
    assert_eq!(names, [(&"bagssl".into(), &2.into()), (&"simclr".into(), &1.into())]);
    let whole = [0, 1].map(|method: usize| &methods[method]["measures"][1]);
    assert_eq!(whole[0]["view"], "whole image");
    let difference_from = &whole[1]["less_first"];
    assert!((number(&difference_from["mean"]) - (number(&whole[1]["mean"]) - number(&whole[0]["mean"]))).abs() < 1e-9);
    assert!(difference_from["over_seeds"].is_null() && whole[0]["less_first"].is_null());
    // One checkpoint is no two seeds, whatever its file is called.
    fs::copy(here.join(a), here.join("copy.safetensors")).unwrap();
    let twice = ["eval", "compare", a, b, "copy.safetensors", "--stride", "32", "--only-knn"];
    refused(here, &twice, &["expected each once", a, "copy.safetensors"]);

    // The command itself: who says what, by which protocol.
    let found = json(here, &["eval", a, "--stride", "32", "--protocol", "lightly", "--groups", "class", "--json"]);
    assert_eq!((&found["protocol"]["name"], &found["groups"]), (&"lightly".into(), &"classes".into()));
    let details = &found["results"][0]["details"][1];
    assert_eq!(details["confusion"]["classes"].as_array().unwrap().len(), 9);
    assert!(details["fit"]["converged"].is_boolean());

    refused(here, &aggregation, &["out/aggregation.html", "--force"]);
    refused(here, &["eval", "locality", a, "--random", "4"], &["--random", "expected a grid"]);
    refused(here, &["eval", "compare", a, "--protocol", "other"], &["protocol", "solo, lightly", "got other"]);
    refused(here, &["eval", a, "--protocol", "other"], &["protocol", "got other"]);
    refused(here, &["eval", "convergence"], &["required"]);
    refused(here, &["eval"], &["required"]);
    refused(here, &["eval", "convergence", a, "nothing.safetensors"], &["nothing.safetensors"]);
    refused(here, &["train", "--preset", "other"], &["--preset", "simclr", "bagssl-spectral"]);
}

/// From files as from memory; a second command embeds nothing; what is lost is made anew.
#[test]
fn features_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = ["train", "--epochs", "1", "--images", "100", "--patches", "2", "--out", "run"];
    assert!(bagssl(here, &train).status.success());
    let model = "run/checkpoint.safetensors";
    let eval = ["eval", model, "--random", "3", "--json"];
    let kept = [&eval[..], &["--features", "features"]].concat();
    let memory = json(here, &eval);
    assert_eq!(json(here, &kept), memory);
    let folders = || {
        let mut all: Vec<_> = fs::read_dir(here.join("features")).unwrap().map(|it| it.unwrap().path()).collect();
        all.sort();
        all
    };
    let all = folders();
    assert_eq!(all.len(), 8, "two halves, colors and views");
    let values = |folder: &std::path::PathBuf| fs::read(folder.join("projection.npy")).unwrap();
    let before: Vec<_> = all.iter().map(values).collect();
    let written =
        |folder: &std::path::PathBuf| fs::metadata(folder.join("projection.npy")).unwrap().modified().unwrap();
    let times: Vec<_> = all.iter().map(written).collect();
    // Those of one set are gone: they are embedded again, and nothing else is.
    let state = all[3].join("projection.json");
    for kind in ["json", "npy", "images.npy"] {
        fs::remove_file(state.with_extension(kind)).unwrap();
    }
    assert_eq!(json(here, &kept), memory);
    assert_eq!(all.iter().map(values).collect::<Vec<_>>(), before);
    let again: Vec<_> = (0..8).filter(|&at| written(&all[at]) != times[at]).collect();
    assert_eq!(again, [3]);
    // Another seed draws other places, but whole images are the same.
    json(here, &[&kept[..], &["--seed", "1"]].concat());
    assert_eq!(folders().len(), 12);
    json(here, &["eval", "locality", model, "--stride", "16", "--features", "features", "--json"]);
    assert_eq!(folders().len(), 14);

    fs::write(here.join("file"), "x").unwrap();
    refused(here, &["eval", model, "--features", "file"], &["--features", "expected a folder", "file"]);
    fs::write(&state, "x").unwrap();
    refused(here, &kept, &["projection.json", "expected the state of an extraction"]);
    fs::remove_file(&state).unwrap();
    refused(here, &kept, &["projection.npy", "expected", "projection.json beside it, got none"]);
    fs::remove_dir_all(&all[3]).unwrap();
    assert_eq!(json(here, &kept), memory, "made anew");
}

/// Weights under torchvision's names, imported: their projector is the identity.
#[test]
fn a_model_without_a_projector_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let export = ["export", "--arch", "resnet-small", "--layout", "torchvision", "-o", "theirs.safetensors"];
    assert!(bagssl(here, &export).status.success());
    let import = ["import", "theirs.safetensors", "--input", "16", "--area-share", "0.25", "-o", "model1.safetensors"];
    assert!(bagssl(here, &import).status.success());
    // The same weights, but what the network expects of colors is another.
    let other = ["import", "theirs.safetensors", "--input", "16", "--area-share", "0.25", "--normalization", "half"];
    assert!(bagssl(here, &[&other[..], &["-o", "model2.safetensors"]].concat()).status.success());
    let train = ["train", "--out", "own", "--epochs", "1", "--images", "450", "--patches", "2", "--json"];
    assert!(bagssl(here, &train).status.success());
    let (model, other, own) = ("model1.safetensors", "model2.safetensors", "own/checkpoint.safetensors");
    let words = "no projector of its own";

    let locality = ["eval", "locality", model, own, "--stride", "32"];
    let found = json(here, &[&locality[..], &["--json", "--report", "pages"]].concat());
    let spaces = |number: usize| found["checkpoints"][number]["spaces"].as_object().unwrap().len();
    assert_eq!((spaces(0), spaces(1)), (1, 3));
    let markdown = fs::read_to_string(here.join("pages/locality.md")).unwrap();
    assert_eq!(markdown.matches(words).count(), 1, "{markdown}");
    let html = fs::read_to_string(here.join("pages/locality.html")).unwrap();
    let titles: Vec<&str> = html.split("<h3>").skip(1).map(|sheet| sheet.split("</h3>").next().unwrap()).collect();
    assert_eq!(titles[..2], ["model1, embedding", "own, embedding"]);
    assert_eq!((titles.len(), html.matches("<img ").count()), (4, 4 * 6 * 10));

    let aggregation = ["eval", "aggregation", model, "--stride", "32", "--only-knn"];
    let found = json(here, &[&aggregation[..], &["--json"]].concat());
    let rows = found["checkpoints"][0]["rows"].as_array().unwrap();
    assert!(rows.len() == 7 && rows.iter().all(|row| row["feature"] == "embedding"));
    let text = String::from_utf8(bagssl(here, &aggregation).stdout).unwrap();
    assert!(text.contains(words) && !text.contains("first_layer  "), "{text}");

    let text = String::from_utf8(bagssl(here, &["eval", model, "--stride", "32"]).stdout).unwrap();
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("projection  ")).count();
    assert!(text.contains(words) && rows(&text) == 0, "{text}");
    let found = json(here, &["eval", own, "--stride", "32", "--json"]);
    assert!(found["note"].is_null());
    assert!(found["results"].as_array().unwrap().iter().any(|result| result["space"] == "projection"));

    let map = ["map", model, own, "--limit", "20", "--random", "2", "--method", "pca", "--tap", "projection", "--json"];
    let found = json(here, &map);
    assert_eq!((found["maps"].as_array().unwrap().len(), &found["maps"][0]["name"]), (1, &"own".into()));
    assert!(
        found["left_out"][0].as_str().unwrap().starts_with("model1: ")
            && found["left_out"].as_array().unwrap().len() == 1
    );
    refused(here, &["map", model, "--random", "2", "--tap", "projection", "--json"], &["model1", words]);

    // Each is a method of its own, by the name of its file; what was trained here by its preset.
    let found = json(here, &["eval", "compare", model, own, other, "--stride", "32", "--only-knn", "--json"]);
    let methods = found["methods"].as_array().unwrap();
    let names: Vec<_> =
        methods.iter().map(|it| (it["name"].as_str().unwrap(), it["seeds"].as_u64().unwrap())).collect();
    assert_eq!(names, [("model1", 1), ("bagssl", 1), ("model2", 1)]);
}

/// Pictures of two classes: in `half` of the data set `p`, one of each of these sizes (height, width) for each class.
fn pictures(here: &Path, half: &str, sizes: &[(u32, u32)]) {
    for (class, slope) in [("a", 3), ("b", 11)] {
        let folder = here.join("p").join(half).join(class);
        fs::create_dir_all(&folder).unwrap();
        for (number, &(height, width)) in (0..).zip(sizes) {
            let pixel = |x, y| image::Rgb([(x * slope + number * 31) as u8, (y * 7) as u8, (x * y + slope) as u8]);
            image::RgbImage::from_fn(width, height, pixel).save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
}

/// A network with random weights that looks at patches of so many pixels.
fn untrained(here: &Path, name: &str, side: &str) {
    let export = ["export", "--arch", "resnet-small", "--layout", "torchvision", "-o", "theirs.safetensors", "--force"];
    succeeds(here, &export);
    succeeds(here, &["import", "theirs.safetensors", "--input", "16", "--patch-side", side, "-o", name]);
}

/// An image that is smaller than a patch is whole, but has no patches: where such images are left out, all views are of the others.
#[test]
fn image_skipped_in_one_view_is_skipped_in_all() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    pictures(here, "train", &[(24, 32), (24, 32), (32, 10), (24, 32)]);
    pictures(here, "val", &[(24, 32), (24, 32), (10, 32)]);
    untrained(here, "model.safetensors", "16");
    let of = |claim: &'static str| ["eval", claim, "model.safetensors", "--data", "p", "--stride", "8"];
    let skip = ["--on-bad-image", "skip"];

    let compare = [&of("compare")[..], &["--only-knn"]].concat();
    refused(here, &compare, &["train/a/2.png", "does not fit"]);
    let compare = [&compare[..], &skip].concat();
    let found = json(here, &compare);
    let measures = found["methods"][0]["measures"].as_array().unwrap();
    assert_eq!(measures.len(), 2);
    for measure in measures {
        assert_eq!(number(&measure["mean"]) % 25.0, 0.0, "four test images are left: {measure}");
    }
    let kept = [&compare[..], &["--features", "features"]].concat();
    for _ in 0..2 {
        assert_eq!(json(here, &kept)["methods"], found["methods"], "from files as from memory");
    }

    // With smaller patches none is left out: these two cannot be compared.
    untrained(here, "smaller.safetensors", "8");
    let both = ["eval", "compare", "model.safetensors", "smaller.safetensors", "--data", "p", "--random", "3"];
    let output = bagssl(here, &[&both[..], &["--only-knn"], &skip].concat());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let words =
        "smaller.safetensors: expected the images of model.safetensors (6 training and 4 test images), got others (8";
    assert!(text.contains(words), "{text}");

    // 2 x 3 patches: 1, 4 and 6 of a grid and at random; center, whole and pooled.
    let found = json(here, &[&of("aggregation")[..], &["--only-knn"], &skip].concat());
    assert_eq!(found["checkpoints"][0]["rows"].as_array().unwrap().len(), 9);
    let found = json(here, &[&of("convergence")[..], &skip].concat());
    let last = found["checkpoints"][0]["whole"].as_array().unwrap().last().unwrap();
    assert_eq!(last["patches"], 6);

    // The first image is none: of six there are three left.
    fs::write(here.join("p/val/a/0.png"), "x").unwrap();
    let map = ["map", "model.safetensors", "--data", "p", "--stride", "8", "--patches", "--limit", "36"];
    let found = json(here, &[&map[..], &["--method", "pca"], &skip].concat());
    assert_eq!(found["maps"][0]["points"].as_array().unwrap().len(), 3 * 6);
}

/// Turned images have as many patches, in another grid: for means they are as good as any, also from files; what goes by a patch's
/// place says which image does not fit.
#[test]
fn claims_about_positions_need_a_common_grid() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    pictures(here, "train", &[(24, 32), (24, 32)]);
    pictures(here, "val", &[(24, 32), (32, 24)]);
    untrained(here, "model.safetensors", "16");
    let eval = ["eval", "model.safetensors", "--data", "p", "--stride", "8", "--features", "features", "--json"];
    assert!(json(here, &eval)["results"].is_array());
    let expected = "expected a grid of 2x3 patches (rows x columns), as in val/a/0.png, got 3x2 in an image of 32x24";
    let of = |claim: &'static str| ["eval", claim, "model.safetensors", "--data", "p", "--stride", "8"];
    let locality = [&of("locality")[..], &["--features", "features"]].concat();
    refused(here, &locality, &[&format!("model.safetensors: val/a/1.png: {expected}")]);

    let aggregation = [&of("aggregation")[..], &["--only-knn", "--features", "features"]].concat();
    let rows = |found: &Value| found["checkpoints"][0]["rows"].as_array().unwrap().len();
    let found = json(here, &aggregation);
    let why = found["checkpoints"][0]["not_pooled"].as_str().unwrap();
    assert!(why.contains(expected) && rows(&found) == 8, "{found}");
    assert!(succeeds(here, &aggregation).contains("no 2 x 2 pooling"));

    // One half upright, the other not.
    fs::remove_dir_all(here.join("p/val")).unwrap();
    pictures(here, "val", &[(32, 24), (32, 24)]);
    let words = "train/a/0.png: expected a grid of 3x2 patches (rows x columns), as in val/a/0.png, got 2x3";
    refused(here, &locality, &[words]);
    assert_eq!(rows(&json(here, &aggregation)), 8);
    fs::remove_dir_all(here.join("p/train")).unwrap();
    pictures(here, "train", &[(32, 24), (32, 24)]);
    assert_eq!(json(here, &locality)["checkpoints"][0]["grid"], serde_json::json!([3, 2]));
    let found = json(here, &aggregation);
    assert!(found["checkpoints"][0]["not_pooled"].is_null() && rows(&found) == 9, "{found}");
}

#[test]
fn runs_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let report = |mean: f64| {
        let accuracy = serde_json::json!({"mean": mean, "std": 0.0, "values": [mean]});
        serde_json::json!({
            "profile": "tiles", "seeds": [0], "chance": 11.1, "total_seconds": 1.0, "convergence": [], "health": {}, "curves": [],
            "data": {"name": "d", "fingerprint": "f", "train_images": 1, "test_images": 1, "classes": [], "attribution": []},
            "protocol": [], "tiles": [], "bags": [], "sheets": [],
            "provenance": {"version": "1", "date": "x", "command": "y", "machine": {"cpu": "z", "cores": 1}, "backend": "n"},
            "results": [{"model": "bagssl", "space": "embedding", "colour": "grey", "view": "patches", "patches": 4,
                "knn": accuracy, "linear": accuracy}],
        })
        .to_string()
    };
    for (run, mean) in [("one", 40.5), ("two", 50.25)] {
        fs::create_dir(here.join(run)).unwrap();
        fs::write(here.join(run).join("report.json"), report(mean)).unwrap();
    }
    let output = bagssl(here, &["report", "one", "two/report.json", "--report", "out"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("one") && text.contains("40.5") && text.contains("50.2"),
        "{text}"
    );
    assert!(fs::read_to_string(here.join("out/side-by-side.html")).unwrap().contains("<th class=\"number\">two</th>"));
    fs::write(here.join("bad.json"), "{}").unwrap();
    refused(here, &["report", "bad.json"], &["bad.json", "expected a report"]);
    refused(here, &["report", "nothing"], &["nothing"]);
    refused(here, &["report"], &["required"]);
}

#[test]
fn a_map_of_images_and_of_patches() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = ["train", "--out", "run", "--epochs", "1", "--images", "450", "--patches", "2", "--json"];
    assert!(bagssl(here, &train).status.success());
    let model = "run/checkpoint.safetensors";
    let of = |more: &[&str]| json(here, &[&["map", model, "--limit", "60", "--random", "4", "--json"], more].concat());
    for (more, count) in
        [(&["--method", "pca"][..], 60), (&["--steps", "50"], 60), (&["--patches", "--steps", "50"], 60)]
    {
        let found = of(more);
        let map = &found["maps"][0];
        let points = map["points"].as_array().unwrap();
        assert_eq!(points.len(), count, "{more:?}");
        assert_eq!(points[0]["patch"].is_number(), more.contains(&"--patches"));
        assert!(
            points
                .iter()
                .all(|point| point["x"].is_number() && point["class"].as_str().is_some_and(|class| !class.is_empty()))
        );
        assert_eq!(map["explained"].is_array(), more.contains(&"pca"));
        assert_eq!(of(more)["maps"][0]["points"], map["points"], "the same map again");
    }
    let other = ["train", "--out", "other", "--seed", "1", "--epochs", "1", "--images", "450", "--patches", "2"];
    json(here, &other);
    let other = "other/checkpoint.safetensors";
    let both = ["map", model, other, "--limit", "60", "--random", "4", "--method", "pca", "--report", "maps"];
    assert!(bagssl(here, &both).status.success());
    let html = fs::read_to_string(here.join("maps/map.html")).unwrap();
    assert!(html.matches("<figure class=\"map\">").count() == 2 && html.contains("data:image/png;base64,"));
    assert_eq!(fs::read_to_string(here.join("maps/map.csv")).unwrap().lines().count(), 1 + 2 * 60);
    refused(here, &["map", model], &["--report", "--json"]);
    refused(here, &["map", model, "--json", "--limit", "1"], &["--limit"]);
    let few = ["map", model, "--json", "--patches", "--random", "25", "--limit", "10"];
    refused(here, &few, &["--limit: expected at least 50, for two images of 25 patches, got 10"]);
    refused(
        here,
        &["map", model, "--json", "--limit", "30", "--random", "2", "--perplexity", "12"],
        &["perplexity", "30 points"],
    );
    refused(here, &["map", model, "--json", "--method", "pca", "--perplexity", "12"], &["--perplexity", "tsne"]);
    refused(here, &["map", model, "--report", "maps", "--method", "pca"], &["map.html", "--force"]);
}
