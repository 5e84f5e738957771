//! WebDataset: shards with `key.jpg` (or another image format) and `key.cls`, which contains the
//! label. Images are read in place.
//!
//! If no image has a `.cls`, the images have no class.
//!
//! # Source
//! The convention of the format: the key of a member is its path up to the first dot after the last
//! slash, and all members of a sample share the key. Names with further dots, such as `22.05.jpg`
//! and `22.05.cls`, are read as keys up to the last dot if that gives a complete sample.

use std::collections::{BTreeMap, BTreeSet};

use std::path::Path;

use crate::entries::{Entries, Entry, MAX_CLASSES};
use crate::error::{Error, Result};
use crate::file::Archive;
use crate::format::Format;
use crate::formats::archive::{self, Contents, Kind, Member, Section, split_name};
use crate::formats::splits::{self, NamedPath};
use crate::ignored::{FileKind, IgnoreReason, Ignored, file_kind};
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;

/// The maximum size of a label in bytes.
const MAX_LABEL_BYTES: u64 = 64;

/// An image of a shard, with its label and position.
#[derive(Debug)]
struct Sample {
    name: String,
    /// `None` if no image of the shard has a label.
    label: Option<u32>,
    offset: u64,
    length: u64,
}

/// The samples of several shards. Either all or none must have labels.
#[derive(Debug, Default)]
struct Samples {
    entries: Entries,
    largest: u32,
    /// The names of the first image with a label and of the first one without.
    first: [Option<String>; 2],
    ignored: Ignored,
}

/// Opens one split of a set of shards. The classes are the numbers from 0 to the largest label in
/// either split.
pub(crate) fn open(origin: &Path, files: &[NamedPath], split: Split) -> Result<Index> {
    let chosen = splits::assign(files, split, origin)?;
    let (mut wanted, mut other, mut archives) = (Samples::default(), Samples::default(), Vec::new());
    for (file_split, files) in Split::ALL.into_iter().zip(&chosen.splits) {
        for (name, path) in files {
            let archive = Archive::open(path)?;
            let length = archive.stamp.length;
            let contents = archive::contents(Section::new(&archive.file, 0, length), length, path)?;
            let place = if file_split == split { &mut wanted } else { &mut other };
            place.add(
                &contents,
                &|offset, length| archive.read(offset, length),
                path,
                (name, archives.len() as u32),
            )?;
            if file_split == split {
                archives.push(archive);
            }
        }
    }
    wanted.largest = wanted.largest.max(other.largest);
    let index = wanted.dataset(origin, Storage::Archives(archives))?;
    Ok(Index { split_name: Some(chosen.name), is_unsplit: chosen.is_unsplit, ignored_outside: chosen.ignored, ..index })
}

/// Opens a shard in memory, with all of its images.
pub(crate) fn from_contents(contents: &Contents, bytes: Vec<u8>, origin: &Path) -> Result<Index> {
    let read = |offset: u64, length: u64| Ok(bytes[offset as usize..][..length as usize].to_vec());
    let mut all = Samples::default();
    all.add(contents, &read, origin, ("shard.tar", 0))?;
    all.dataset(origin, Storage::Memory(bytes.into()))
}

impl Samples {
    /// Adds the samples of a shard, given the shard's name and its index.
    fn add(&mut self, contents: &Contents, read: &Reader<'_>, path: &Path, (shard, source): (&str, u32)) -> Result<()> {
        self.ignored.join(&contents.ignored);
        for Sample { name, label, offset, length } in samples(&contents.members, read, path, &mut self.ignored)? {
            let name = format!("{shard}/{name}");
            self.largest = self.largest.max(label.unwrap_or(0));
            self.first[usize::from(label.is_none())].get_or_insert_with(|| name.clone());
            self.entries.push(Entry { name: &name, label: label.unwrap_or(0), source, offset, length });
        }
        Ok(())
    }

    fn dataset(self, origin: &Path, storage: Storage) -> Result<Index> {
        let refuse = |expected, got| Err(Error::Format { path: origin.into(), expected, got });
        if self.entries.len() == 0 {
            let instead = if self.ignored.is_empty() { String::new() } else { format!(", but {}", self.ignored) };
            return refuse("shards with images", format!("none{instead}"));
        }
        if let [Some(with), Some(without)] = &self.first {
            return refuse("a .cls for all images or for none", format!("{with} with one and {without} without"));
        }
        let entries = self.entries.sorted();
        entries.check(origin)?;
        let classes = match &self.first[0] {
            Some(_) => (0..=self.largest).map(|class| class.to_string()).collect(),
            None => vec![String::new()],
        };
        let index = Index::new(origin, Format::WebDataset, classes, entries, storage);
        Ok(Index { ignored: self.ignored, ..index })
    }
}

/// A function that reads bytes of a shard, given their offset and number.
type Reader<'a> = dyn Fn(u64, u64) -> Result<Vec<u8>> + 'a;

/// Returns whether a tar contains labels of samples.
pub(crate) fn is_shard(members: &[Member]) -> bool {
    members.iter().any(|member| member.kind == Kind::File && member.name.ends_with(".cls"))
}

/// Returns the key of a member: its name up to the first dot after the last slash.
fn key(name: &str) -> &str {
    let folder = split_name(name).0.len();
    name[folder..].split_once('.').map_or(name, |(key, _)| &name[..folder + key.len()])
}

/// Returns the name up to its last dot.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The image and the label of each sample, by key.
#[derive(Debug, Default)]
struct Pairs<'a>(BTreeMap<&'a str, (Option<&'a Member>, Option<&'a Member>)>);

impl<'a> Pairs<'a> {
    /// Pairs images and labels, and counts the other members as ignored.
    ///
    /// # Errors
    /// Returns the second image or label of a key.
    fn from_members(members: &'a [Member], ignored: &mut Ignored) -> std::result::Result<Self, &'a Member> {
        let is_label = |member: &Member| member.name.ends_with(".cls");
        let (mut parts, mut others) = (Vec::new(), Vec::new());
        for member in members.iter().filter(|member| member.kind == Kind::File) {
            match file_kind(&member.name) {
                FileKind::Image => parts.push(member),
                FileKind::System => {}
                FileKind::Ignored(IgnoreReason::NoImageExtension) if is_label(member) => parts.push(member),
                FileKind::Ignored(IgnoreReason::NoImageExtension) => others.push((IgnoreReason::Field, member)),
                FileKind::Ignored(reason) => others.push((reason, member)),
            }
        }
        // Collect the keys of names with a single dot, and the names with further dots that have
        // both an image and a label.
        let plain: BTreeSet<&str> =
            parts.iter().filter(|part| key(&part.name) == stem(&part.name)).map(|part| key(&part.name)).collect();
        let stems = |label| parts.iter().filter(move |part| is_label(part) == label).map(|part| stem(&part.name));
        let images: BTreeSet<&str> = stems(false).collect();
        let both: BTreeSet<&str> = stems(true).filter(|stem| images.contains(stem)).collect();
        let mut pairs = Pairs::default();
        for part in parts {
            let stem = stem(&part.name);
            if stem != key(&part.name) && plain.contains(key(&part.name)) && !both.contains(stem) {
                others.push((IgnoreReason::Field, part));
                continue;
            }
            let pair = pairs.0.entry(stem).or_default();
            if (if is_label(part) { &mut pair.1 } else { &mut pair.0 }).replace(part).is_some() {
                return Err(part);
            }
        }
        others.into_iter().for_each(|(reason, member)| ignored.add(reason, &member.name));
        Ok(pairs)
    }
}

/// Returns the samples of a shard, sorted by key.
///
/// # Errors
/// [`Error::Format`] with the member's name if a key has two images or two labels, a label has no
/// image, an image has no label while others have one, or a label is not a number.
fn samples(members: &[Member], read: &Reader<'_>, shard: &Path, ignored: &mut Ignored) -> Result<Vec<Sample>> {
    let refuse = |name: &str, expected, got: &str| Error::Format { path: shard.join(name), expected, got: got.into() };
    let twice = |member: &Member| refuse(&member.name, "a unique key", "a duplicate");
    let Pairs(pairs) = Pairs::from_members(members, ignored).map_err(twice)?;
    let has_labels = pairs.values().any(|(_, label)| label.is_some());
    let sample = |(image, label): (Option<&Member>, Option<&Member>)| match (image, label) {
        (Some(image), None) if has_labels => Err(refuse(&image.name, "a .cls beside the image", "none")),
        (Some(Member { name, offset, length, .. }), label) => {
            let label = label.map(|label| class(label, read, shard)).transpose()?;
            Ok(Sample { name: name.clone(), label, offset: *offset, length: *length })
        }
        (None, Some(label)) => Err(refuse(&label.name, "an image beside the .cls", "none")),
        (None, None) => unreachable!("a key is of a member"),
    };
    pairs.into_values().map(sample).collect()
}

/// Reads a label, written as an ASCII number.
fn class(member: &Member, read: &Reader<'_>, shard: &Path) -> Result<u32> {
    let refuse = |got| Error::Format { path: shard.join(&member.name), expected: "a class number", got };
    if member.length > MAX_LABEL_BYTES {
        return Err(refuse(format!("{} bytes", member.length)));
    }
    let bytes = read(member.offset, member.length)?;
    let text = String::from_utf8_lossy(&bytes);
    let number = text.trim().parse::<u32>().ok().filter(|number| *number < MAX_CLASSES);
    number.ok_or_else(|| refuse(format!("{:?}", text.trim())))
}
