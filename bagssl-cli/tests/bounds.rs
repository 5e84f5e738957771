//! Limits of memory, measured: the most that the program holds is compared with its limit.
//!
//! With `BAGSSL_BOUNDS=whole`, as in the gate `bounds` of `cargo xtask ci --full`, the inputs are as large as those of attacks.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/checkpoint.safetensors");
const MIB: u64 = 1 << 20;
/// What else may differ between two calls: the allocator's arenas, tables, encoded images.
const SLACK: u64 = 24 * MIB;

fn is_whole() -> bool {
    std::env::var_os("BAGSSL_BOUNDS").is_some_and(|form| form == "whole")
}

/// The small number, or the large one.
fn size<T>(small: T, large: T) -> T {
    if is_whole() { large } else { small }
}

/// Runs the program on four threads, and returns the most memory that it held, its exit code and all that it printed.
fn peak(folder: &Path, arguments: &[&str]) -> (u64, Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bagssl"));
    command.args(arguments).current_dir(folder).env("RAYON_NUM_THREADS", "4").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (status, mut most) = (format!("/proc/{}/status", child.id()), 0);
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let high = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        most = most.max(high.map_or(0, |kib| kib.parse::<u64>().unwrap() << 10));
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(most > MIB, "it was measured");
    (most, output.status.code(), String::from_utf8(said).unwrap())
}

/// The most memory of a call beyond that of another, which does the same with little.
#[track_caller]
fn bounded(what: &str, much: u64, little: u64, limit: u64) {
    let [more, limit, slack] = [much.saturating_sub(little), limit, SLACK].map(|bytes| bytes / MIB);
    println!("{what}: {more} MiB more than with little, of {limit} MiB");
    assert!(more <= limit + slack, "{what}: expected at most {limit} MiB and {slack}, got {more}");
}

/// A folder with the same file under several names in both halves.
fn set(root: &Path, files: &[(&str, &[u8])]) {
    for half in ["train", "val"] {
        fs::create_dir_all(root.join(half).join("a")).unwrap();
        for (name, bytes) in files {
            fs::write(root.join(half).join("a").join(name), bytes).unwrap();
        }
    }
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x / 64) as u8, (y / 64) as u8, 30]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// All coefficients of a progressive JPEG are there at once: 2 bytes for each value, besides the pixels.
fn progressive(side: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 50);
    encoder.set_progressive(true);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    let pixels: Vec<u8> = (0..usize::from(side).pow(2) * 3).map(|at| (at / 30_000) as u8).collect();
    encoder.encode(&pixels, side, side, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// A lossless WebP of 36 bytes that says it has `side` x `side` pixels.
fn webp(side: u32) -> Vec<u8> {
    let head = ((side - 1) | (side - 1) << 14).to_le_bytes();
    let chunk = [&b"VP8L"[..], &16_u32.to_le_bytes(), &[0x2f], &head, &[0; 11]].concat();
    [&b"RIFF"[..], &(chunk.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunk].concat()
}

#[test]
fn decoding_stays_within_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (side, limit) = size((1500, 24), (6000, 400));
    set(&here.join("little"), &[("1.jpg", &progressive(16)), ("2.jpg", &progressive(16))]);
    let (large, bomb) = (progressive(side), webp(13_000));
    let names = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"];
    let files = names.map(|name| (name, &large[..]));
    set(&here.join("much"), &[&files[..], &[("5.webp", &bomb), ("6.webp", &bomb)]].concat());
    let limit_text = limit.to_string();
    let check = |data| peak(here, &["data", "check", data, "--memory-limit", &limit_text]);
    let (little, code, said) = check("little");
    assert_eq!(code, Some(0), "{said}");
    let (much, code, said) = check("much");
    assert!(code == Some(1) && said.contains(": 6 images of 1 class, 2 broken"), "{said}");
    assert!(said.contains(&format!("5.webp: expected an image that needs at most {limit} MiB")), "{said}");
    bounded("data check", much, little, limit * MIB);
}

/// Decoded images that training keeps are part of the limit. Eight of them would take 69 MiB, or 2472.
#[test]
fn the_images_that_training_keeps_stay_within_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let (width, height, limit) = size((2000, 1500, 12), (12_000, 9000, 320));
    let (large, small) = (png(width, height), png(40, 30));
    let names = ["1.png", "2.png", "3.png", "4.png", "5.png", "6.png", "7.png", "8.png"];
    set(&here.join("much"), &names.map(|name| (name, &large[..])));
    set(&here.join("little"), &names.map(|name| (name, &small[..])));
    let limit_text = limit.to_string();
    let train = |data: &str, out: &str| {
        let tiny = ["--images", "2", "--patches", "2", "--epochs", "2", "--threads", "4"];
        peak(here, &[&["train", "--data", data, "--out", out, "--memory-limit", &limit_text], &tiny[..]].concat())
    };
    let (little, code, said) = train("little", "run1");
    assert_eq!(code, Some(0), "{said}");
    let (much, code, said) = train("much", "run2");
    assert_eq!(code, Some(0), "{said}");
    bounded("train", much, little, limit * MIB);
}

/// A network of 92 TB, a body of which the header says nothing, and a header that never ends.
#[test]
fn a_hostile_checkpoint_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let golden = fs::read(GOLDEN).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&golden).unwrap();
    let mut entries = metadata.metadata().clone().unwrap();
    let json = entries.get_mut("bagssl").unwrap();
    for side in ["inputs", "outputs"] {
        *json = json.replace(&format!("\"{side}\":16,"), &format!("\"{side}\":1600000,"));
    }
    let tensors = safetensors::SafeTensors::deserialize(&golden).unwrap().tensors();
    fs::write(here.join("plan.safetensors"), safetensors::serialize(tensors, Some(entries)).unwrap()).unwrap();
    let length = size(300 * MIB, 3 << 30);
    let sparse = |name: &str, start: &[u8]| {
        let mut file = fs::File::create(here.join(name)).unwrap();
        file.write_all(start).unwrap();
        file.set_len(length).unwrap();
    };
    sparse("body.safetensors", &golden);
    sparse("header.safetensors", &(length - 8).to_le_bytes());
    let (little, code, _) = peak(here, &["inspect", GOLDEN]);
    assert_eq!(code, Some(0));
    for (file, words) in [
        ("plan.safetensors", "expected "),
        ("body.safetensors", "expected a safetensors file of "),
        ("header.safetensors", "a header of at most 8388608 bytes"),
    ] {
        for command in [&["inspect", file][..], &["convert", file, "--dtype", "bf16", "-o", "x.safetensors"]] {
            let (much, code, said) = peak(here, command);
            assert!(code == Some(2) && said.starts_with("error: ") && said.contains(words), "{said}");
            bounded(file, much, little, 0);
        }
    }
}

#[test]
fn a_name_in_a_tar_that_does_not_end_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let length: u64 = size(100 * MIB, 900 * MIB);
    let image = png(40, 30);
    let write = |name: &str, long: u64| {
        let mut file = fs::File::create(here.join(name)).unwrap();
        if long > 0 {
            let mut header = tar::Header::new_gnu();
            header.set_path("long").unwrap();
            header.set_entry_type(tar::EntryType::GNULongName);
            header.set_size(long);
            header.set_cksum();
            file.write_all(header.as_bytes()).unwrap();
            file.seek(SeekFrom::Current(long.next_multiple_of(512) as i64)).unwrap();
        }
        let mut builder = tar::Builder::new(file);
        for name in ["train/a/1.png", "train/a/2.png", "val/a/1.png"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(image.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &image[..]).unwrap();
        }
        builder.into_inner().unwrap();
    };
    write("little.tar", 0);
    write("much.tar", length);
    let (little, code, said) = peak(here, &["data", "check", "little.tar"]);
    assert_eq!(code, Some(0), "{said}");
    let (much, code, said) = peak(here, &["data", "check", "much.tar"]);
    assert!(code == Some(2) && said.contains("more than 1 MiB"), "{said}");
    bounded("a name", much, little, 0);
}
