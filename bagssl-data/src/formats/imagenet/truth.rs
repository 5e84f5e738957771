//! The classes of ImageNet's validation images. The images' names do not contain them.
//!
//! The devkit has a number per image (`ILSVRC2012_validation_ground_truth.txt`) and the wnid of
//! each number in `meta.mat`. Instead of `meta.mat`, `synsets.txt` may have lines of a number and a
//! wnid. A list of wnids alone is refused, because such lists exist in different orders. Kaggle's
//! `LOC_val_solution.csv` has the wnid of each image.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result, one_line};
use crate::file::{open_file, read_file};
use crate::formats::archive::{LongNameEntries, split_name};
use crate::formats::imagenet::mat;

const NUMBERS: &str = "ILSVRC2012_validation_ground_truth.txt";
const META: &str = "meta.mat";
const SYNSETS: &str = "synsets.txt";
const DEVKIT: &str = "ILSVRC2012_devkit_t12";
const SOLUTION: &str = "LOC_val_solution.csv";
/// The maximum size of each of these files in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The wnid of each validation image.
#[derive(Debug)]
pub(crate) enum Truth {
    /// Indexed by the number in the image's name, which starts at 1.
    Numbers(Vec<String>),
    /// Keyed by the image's name without its extension.
    Names(HashMap<String, String>),
}

impl Truth {
    /// Looks for the ground truth in a folder and its three nearest parent folders.
    pub(crate) fn find(root: &Path) -> Result<Option<Self>> {
        for folder in root.ancestors().take(4) {
            let packed = folder.join(format!("{DEVKIT}.tar.gz"));
            if packed.is_file() {
                return Self::from_archive(&packed).map(Some);
            }
            let places = [folder.join(DEVKIT).join("data"), folder.join(DEVKIT), folder.join("data"), folder.into()];
            if let Some(place) = places.iter().find(|place| place.join(NUMBERS).is_file()) {
                return Self::from_folder(place).map(Some);
            }
            let solution = folder.join(SOLUTION);
            if solution.is_file() {
                return from_solution(&read(&solution)?, &solution).map(Some);
            }
        }
        Ok(None)
    }

    /// Returns the wnid of an image.
    pub(crate) fn of(&self, name: &str) -> Option<&str> {
        let stem = split_name(name).1.rsplit_once('.')?.0;
        match self {
            Truth::Numbers(wnids) => {
                let number: usize = stem.strip_prefix("ILSVRC2012_val_")?.parse().ok()?;
                wnids.get(number.checked_sub(1)?).map(String::as_str)
            }
            Truth::Names(wnids) => wnids.get(stem).map(String::as_str),
        }
    }

    /// Returns all wnids, with duplicates.
    pub(crate) fn wnids(&self) -> Box<dyn Iterator<Item = &String> + '_> {
        match self {
            Truth::Numbers(wnids) => Box::new(wnids.iter()),
            Truth::Names(wnids) => Box::new(wnids.values()),
        }
    }

    fn from_folder(folder: &Path) -> Result<Self> {
        let numbers = read(&folder.join(NUMBERS))?;
        let meta = folder.join(META);
        if meta.is_file() {
            return join(&numbers, &from_meta(&read(&meta)?, &meta)?, folder);
        }
        let list = folder.join(SYNSETS);
        join(&numbers, &from_list(&read(&list)?, &list)?, folder)
    }

    fn from_archive(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| refuse(path, "a complete .tar.gz of the devkit", one_line(&error));
        let file = open_file(path)?;
        let reader = flate2::read::GzDecoder::new(std::io::BufReader::new(file)).take(MAX_BYTES);
        let (mut numbers, mut meta) = (None, None);
        for entry in LongNameEntries::new(tar::Archive::new(reader).entries().map_err(failed)?) {
            let (inside, mut entry) = entry.map_err(failed)?;
            let place = match inside.rsplit(|&letter| letter == b'/').next() {
                Some(name) if name == NUMBERS.as_bytes() => &mut numbers,
                Some(name) if name == META.as_bytes() => &mut meta,
                _ => continue,
            };
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(failed)?;
            *place = Some(bytes);
        }
        let missing = |name: &'static str| move || refuse(path, "the devkit with its data files", format!("no {name}"));
        let synsets = from_meta(&meta.ok_or_else(missing(META))?, path)?;
        join(&numbers.ok_or_else(missing(NUMBERS))?, &synsets, path)
    }
}

fn refuse(path: &Path, expected: &'static str, got: impl ToString) -> Error {
    Error::Format { path: path.into(), expected, got: got.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    read_file(path, MAX_BYTES)
}

/// Returns the wnid of each class by its ILSVRC2012_ID.
fn from_meta(bytes: &[u8], path: &Path) -> Result<HashMap<u32, String>> {
    let synsets = mat::synsets(bytes).map_err(|got| refuse(path, "ImageNet's meta.mat", got))?;
    Ok(synsets.into_iter().filter(|synset| synset.children == 0).map(|synset| (synset.id, synset.wnid)).collect())
}

fn from_list(bytes: &[u8], path: &Path) -> Result<HashMap<u32, String>> {
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (number, wnid) = (words.next()?.parse().ok()?, words.next()?);
        is_wnid(wnid).then(|| (number, wnid.to_string()))
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let expected = "lines with an ILSVRC2012_ID and a wnid";
    lines.map(|text| line(text).ok_or_else(|| refuse(path, expected, format!("{text:?}")))).collect()
}

fn join(numbers: &[u8], synsets: &HashMap<u32, String>, path: &Path) -> Result<Truth> {
    let text = String::from_utf8_lossy(numbers);
    let wnid = |word: &str| word.parse().ok().and_then(|number: u32| synsets.get(&number)).cloned();
    let wnids = text
        .split_whitespace()
        .map(|word| wnid(word).ok_or_else(|| refuse(path, "ground truth of class numbers", format!("{word:?}"))));
    wnids.collect::<Result<_>>().map(Truth::Numbers)
}

/// Reads lines of an image's name, a comma, and wnids with boxes. The first wnid is the class.
fn from_solution(bytes: &[u8], path: &Path) -> Result<Truth> {
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let (name, rest) = line.split_once(',')?;
        let wnid = rest.split_whitespace().next().filter(|wnid| is_wnid(wnid))?;
        Some((name.to_string(), wnid.to_string()))
    };
    let lines = text.lines().skip(1).filter(|line| !line.trim().is_empty());
    let expected = "lines with an image and its wnid";
    lines
        .map(|text| line(text).ok_or_else(|| refuse(path, expected, format!("{text:?}"))))
        .collect::<Result<_>>()
        .map(Truth::Names)
}

/// Returns whether a text is `n` followed by eight digits.
pub(crate) fn is_wnid(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|digit| digit.is_ascii_digit())
}

/// The supported sources of the ground truth, for error messages.
pub(crate) const KNOWN: &str = "ILSVRC2012_devkit_t12 (.tar.gz or unpacked: ILSVRC2012_validation_ground_truth.txt \
                                with meta.mat or a synsets.txt of numbers and wnids) or LOC_val_solution.csv beside \
                                the images or in the parent folder";
