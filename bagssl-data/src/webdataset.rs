//! WebDataset: shards of `key.jpg` (or another image) with `key.cls`, the number of its class. Images are read in place.
//!
//! # Source
//! The format's convention: the key of a member is its path up to the first dot after the last slash; the members of one
//! sample share it.

use std::collections::BTreeMap;

use std::path::Path;

use crate::archive::{self, Kind, Member, Section, split_name};
use crate::dataset::{Dataset, Split, is_image};
use crate::detect::Format;
use crate::entries::{Entries, Entry};
use crate::error::{Error, Result};
use crate::halves::{self, Named};
use crate::storage::{Archive, Storage};

/// Classes that there may be: a label is below this number.
pub(crate) const MOST_CLASSES: u32 = 1 << 20;
/// Bytes that a label may have.
const LONGEST_LABEL: u64 = 64;

/// An image and where it lies.
#[derive(Debug)]
struct Sample {
    name: String,
    label: u32,
    offset: u64,
    length: u64,
}

/// Opens one half of some shards. The classes are numbers, from 0 to the largest label of either half.
pub(crate) fn open(origin: &Path, files: &[Named], split: Split) -> Result<Dataset> {
    let halves = halves::halves(files);
    halves::half_of(&halves, split, origin)?;
    let (mut entries, mut archives, mut largest) = (Entries::default(), Vec::new(), 0);
    for (half, files) in Split::ALL.into_iter().zip(&halves) {
        for (name, path) in files {
            let archive = Archive::open(path)?;
            let length = archive.stamp.length;
            let members = archive::members(Section::new(&archive.file, 0, length), length, path)?;
            let found = samples(&members, &|offset, length| archive.read(offset, length), path)?;
            largest = found.iter().map(|sample| sample.label).fold(largest, u32::max);
            if half == split {
                add(&mut entries, &found, name, archives.len() as u32);
                archives.push(archive);
            }
        }
    }
    dataset(origin, entries, largest, Storage::Archives(archives))
}

/// One shard in memory, of which all images count.
pub(crate) fn from_members(members: &[Member], bytes: Vec<u8>, origin: &Path) -> Result<Dataset> {
    let read = |offset: u64, length: u64| Ok(bytes[offset as usize..][..length as usize].to_vec());
    let found = samples(members, &read, origin)?;
    let largest = found.iter().map(|sample| sample.label).fold(0, u32::max);
    let mut entries = Entries::default();
    add(&mut entries, &found, "shard.tar", 0);
    dataset(origin, entries, largest, Storage::Memory(bytes.into()))
}

fn add(entries: &mut Entries, samples: &[Sample], shard: &str, source: u32) {
    for Sample { name, label, offset, length } in samples {
        let name = format!("{shard}/{name}");
        entries.push(Entry { name: &name, label: *label, source, offset: *offset, length: *length });
    }
}

fn dataset(origin: &Path, entries: Entries, largest: u32, storage: Storage) -> Result<Dataset> {
    if entries.len() == 0 {
        let (expected, got) = ("shards with images and their .cls", "none".into());
        return Err(Error::Format { path: origin.into(), expected, got });
    }
    let entries = entries.sorted();
    entries.check(origin)?;
    let classes = (0..=largest).map(|class| class.to_string()).collect();
    Ok(Dataset::new(origin, Format::WebDataset, classes, entries, storage))
}

/// Whether a tar has the labels of samples.
pub(crate) fn is_shard(members: &[Member]) -> bool {
    members.iter().any(|member| member.kind == Kind::File && key(&member.name).1 == "cls")
}

/// The key of a member, and the ending that says what it is of a sample.
fn key(name: &str) -> (&str, &str) {
    let folder = split_name(name).0.len();
    match name[folder..].split_once('.') {
        Some((key, ending)) => (&name[..folder + key.len()], ending),
        None => (name, ""),
    }
}

/// The samples of a shard, by their keys.
///
/// # Errors
/// [`Error::Format`] that names the member if a key has two images or two labels, one is without the other, or a label is
/// no number.
fn samples(members: &[Member], read: &dyn Fn(u64, u64) -> Result<Vec<u8>>, shard: &Path) -> Result<Vec<Sample>> {
    let refuse = |name: &str, expected, got: &str| Error::Format { path: shard.join(name), expected, got: got.into() };
    let mut found: BTreeMap<&str, (Option<&Member>, Option<&Member>)> = BTreeMap::new();
    for member in
        members.iter().filter(|member| member.kind == Kind::File && !split_name(&member.name).1.starts_with('.'))
    {
        let (key, ending) = key(&member.name);
        let is_label = ending == "cls";
        if !is_label && (ending.contains('.') || !is_image(&member.name)) {
            continue;
        }
        let sample = found.entry(key).or_default();
        let place = if is_label { &mut sample.1 } else { &mut sample.0 };
        if place.replace(member).is_some() {
            return Err(refuse(&member.name, "a key of its own", "one that was there before"));
        }
    }
    let sample = |(image, label): (Option<&Member>, Option<&Member>)| match (image, label) {
        (Some(image), Some(label)) => {
            let Member { name, offset, length, .. } = image;
            Ok(Sample { name: name.clone(), label: class(label, read, shard)?, offset: *offset, length: *length })
        }
        (Some(image), None) => Err(refuse(&image.name, "a .cls beside the image", "none")),
        (None, Some(label)) => Err(refuse(&label.name, "an image beside the .cls", "none")),
        (None, None) => unreachable!("a key is of a member"),
    };
    found.into_values().map(sample).collect()
}

/// The number of a class, in ASCII.
fn class(member: &Member, read: &dyn Fn(u64, u64) -> Result<Vec<u8>>, shard: &Path) -> Result<u32> {
    let refuse = |got| Error::Format { path: shard.join(&member.name), expected: "the number of a class", got };
    if member.length > LONGEST_LABEL {
        return Err(refuse(format!("{} bytes", member.length)));
    }
    let bytes = read(member.offset, member.length)?;
    let text = String::from_utf8_lossy(&bytes);
    let number = text.trim().parse::<u32>().ok().filter(|number| *number < MOST_CLASSES);
    number.ok_or_else(|| refuse(format!("{:?}", text.trim())))
}
