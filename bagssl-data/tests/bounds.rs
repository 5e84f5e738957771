//! What foreign files may take: memory that is counted before it is taken, names that end, files that end.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use bagssl_core::patch::ImageSize;
use bagssl_data::{Budget, Cifar, Dataset, Error, Image, Split, curate};

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted") };
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 30]));
    image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn jpeg(width: u16, height: u16, progressive: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_progressive(progressive);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    let pixels: Vec<u8> = (0..usize::from(width) * usize::from(height) * 3).map(|at| (at / 3000) as u8).collect();
    encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// One image in memory, with a budget of so many bytes.
fn one(bytes: Vec<u8>, budget: u64) -> Dataset {
    Dataset::from_image_bytes("x", bytes).with_budget(Budget::new(budget))
}

#[test]
fn an_image_counts_while_it_is_used() {
    let (dataset, budget) = (Dataset::from_image_bytes("x", png(100, 50)), Budget::new(200_000));
    let more = |size: ImageSize| u64::from(size.height + 2 * size.width);
    let others = budget.take(190_000, "others").unwrap();
    assert!(dataset.try_decode(0, &budget, &more).unwrap().is_none());
    drop(others);
    let decoded = dataset.try_decode(0, &budget, &more).unwrap().unwrap();
    assert_eq!(decoded.size(), ImageSize { height: 50, width: 100 });
    // Three bytes for each pixel, and 250 more.
    let left = 200_000 - 15_000 - 250;
    assert!(
        budget.try_take(left + 1, "others").unwrap().is_none() && budget.try_take(left, "others").unwrap().is_some()
    );
    let kept = decoded.into_image();
    assert!(budget.try_take(200_000, "others").unwrap().is_some(), "what is kept counts elsewhere");
    assert_eq!(kept.size().width, 100);
    let expected = "expected an image that needs at most 0 MiB of memory to decode, got 1 MiB";
    refused(one(png(100, 50), 70_000).decode(0), &["x: ", expected]);
}

/// Pixels that are there already are copied, and what is cut from them has a place too.
#[test]
fn an_image_of_32x32_counts_as_any_other() {
    let records = [&[1][..], &(0..3072).map(|at| at as u8).collect::<Vec<u8>>()].concat();
    let dataset = Dataset::from_cifar(records, b"a\nb", Cifar::Ten, Path::new("x")).unwrap();
    let (budget, more) = (Budget::new(4000), |size: ImageSize| u64::from(size.height + 2 * size.width));
    let decoded = dataset.try_decode(0, &budget, &more).unwrap().unwrap();
    let left = 4000 - 3 * 32 * 32 - 96;
    assert!(budget.try_take(left + 1, "x").unwrap().is_none() && budget.try_take(left, "x").unwrap().is_some());
    assert!(dataset.try_decode(0, &budget, &more).unwrap().is_none(), "no second one");
    drop(decoded);
    assert!(dataset.try_decode(0, &budget, &more).unwrap().is_some());
    refused(dataset.try_decode(0, &budget, &|_| 929), &["x: 0: expected an image that needs at most 0 MiB"]);
    refused(dataset.try_decode(0, &budget, &|_| u64::MAX), &["x: 0: ", "got 17592186044416 MiB"]);
    assert!(dataset.try_decode(0, &budget, &|_| 928).unwrap().is_some());
}

/// All coefficients of a progressive JPEG are there at once: 2 bytes for each of 800 x 600 x 3 values, and the pixels.
#[test]
fn a_progressive_jpeg_takes_more() {
    const MIB: u64 = 1 << 20;
    assert!(one(jpeg(800, 600, false), 3 * MIB).decode(0).is_ok());
    refused(one(jpeg(800, 600, true), 3 * MIB).decode(0), &["at most 3 MiB", "got 5 MiB"]);
    assert!(one(jpeg(800, 600, true), 5 * MIB).decode(0).is_ok());
}

/// A lossless WebP of 36 bytes that says it has 13000 x 13000 pixels.
#[test]
fn few_bytes_that_promise_many_pixels_are_refused() {
    let head = (12_999_u32 | 12_999 << 14).to_le_bytes();
    let chunk = [&b"VP8L"[..], &16_u32.to_le_bytes(), &[0x2f], &head, &[0; 11]].concat();
    let webp = [&b"RIFF"[..], &(chunk.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunk].concat();
    assert_eq!(webp.len(), 36);
    refused(Image::decode(&webp, "x"), &["at most 512 MiB", "got 1290 MiB"]);
    refused(Dataset::from_image_bytes("x", webp).decode(0), &["at most 512 MiB"]);
}

#[test]
fn a_jpeg_with_a_hole_is_broken() {
    let root = tempfile::tempdir().unwrap();
    let whole = jpeg(80, 48, false);
    let hole = [&whole[..whole.len() / 2], &whole[whole.len() * 3 / 4..]].concat();
    for (name, bytes) in [("train/a/1.jpg", &whole), ("train/a/2.jpg", &hole), ("val/a/1.jpg", &whole)] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let dataset = Dataset::open(root.path(), Split::Train).unwrap();
    let report = curate::check(&dataset, None, &|| ());
    assert_eq!((report.decoded, report.broken.len()), (2, 1));
    assert!(report.broken[0].contains("train/a/2.jpg: expected a complete JPEG, got "), "{:?}", report.broken);
    // What was found whole is not gone through again, what was not is.
    assert!(dataset.decode(0).is_ok() && dataset.decode(1).is_err() && dataset.decode(1).is_err());
}

/// A member with a name of so many bytes, before which GNU's tar or POSIX's writes it as a member of its own.
fn named(length: usize, gnu: bool) -> Vec<u8> {
    let name = format!("train/cat/{}.png", "n".repeat(length - 14));
    let mut builder = tar::Builder::new(Vec::new());
    let (bytes, kind, content) = (png(6, 4), tar::EntryType::file(), name.as_bytes());
    let mut add = |name: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    match gnu {
        true => add("long", tar::EntryType::GNULongName, &[content, b"\0"].concat()),
        false => {
            // The length of a line counts itself.
            let line = (1..8).find_map(|digits| {
                let line = format!("{} path={name}\n", length + 7 + digits);
                (line.len() == length + 7 + digits).then_some(line)
            });
            add("long", tar::EntryType::XHeader, line.unwrap().as_bytes());
        }
    }
    add("short", kind, &bytes);
    add("train/cat/b.png", kind, &bytes);
    add("val/cat/c.png", kind, &bytes);
    builder.into_inner().unwrap()
}

#[test]
fn names_in_archives_end() {
    for gnu in [true, false] {
        let dataset = Dataset::from_tar(named(300, gnu), Path::new("x.tar"), Split::Train).unwrap();
        let names: Vec<usize> = (0..dataset.len()).map(|image| dataset.name(image).len()).collect();
        assert_eq!(names, [15, 300], "the name is that of the next member alone");
        assert!(dataset.decode(1).is_ok());
        let long = Dataset::from_tar(named(2 << 20, gnu), Path::new("x.tar"), Split::Train);
        refused(long, &["x.tar: ", "bytes, more than 1 MiB"]);
    }
}

/// A pipe would be waited for.
#[cfg(unix)]
#[test]
fn only_files_are_read() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("set/train/a")).unwrap();
    fs::create_dir_all(at("set/val/a")).unwrap();
    fs::write(at("set/val/a/1.png"), png(9, 7)).unwrap();
    let pipe = |name: &str| {
        let batch_result = std::process::Command::new("mkfifo").arg(at(name)).status();
        assert!(batch_result.unwrap().success());
    };
    pipe("set/train/a/x.png");
    let open = |name: &str| Dataset::open(&at(name), Split::Train).unwrap();
    refused(open("set").decode(0), &["train/a/x.png: expected a regular file, got a special file"]);
    pipe("x.tar");
    refused(Dataset::open(&at("x.tar"), Split::Train), &["x.tar: ", "special"]);
    for path in [at("x.tar"), "/dev/zero".into()] {
        refused(
            Dataset::from_files(std::slice::from_ref(&path)).unwrap().decode(0),
            &[path.to_str().unwrap(), "a special file"],
        );
    }
    // It was a file when it was listed.
    let dataset = Dataset::open(&at("set"), Split::Validation).unwrap();
    fs::remove_file(at("set/val/a/1.png")).unwrap();
    pipe("set/val/a/1.png");
    refused(dataset.decode(0), &["1.png: expected a regular file, got a special file"]);
}
