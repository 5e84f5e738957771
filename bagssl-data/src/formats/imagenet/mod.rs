//! ImageNet-1K (ILSVRC2012) as distributed, and unpacked with all validation images in one folder.

mod index;
pub(crate) mod mat;
mod truth;

use std::collections::BTreeSet;
use std::path::Path;

use crate::entries::{Entries, Entry};
use crate::error::{Error, Result};
use crate::file::{Archive, FileStamp};
use crate::format::Format;
use crate::formats::archive::{self, Kind, Member, Section, split_name};
use crate::formats::collector::Collector;
use crate::formats::split_folders::SplitFolders;
use crate::formats::{folder, walk};
use crate::ignored::{FileKind, Ignored, file_kind, is_image};
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;
use index::ArchiveIndex;
use truth::{Truth, is_wnid};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VALIDATION: &str = "ILSVRC2012_img_val.tar";

/// Returns the folder of the archives, if `path` is that folder or one of the archives.
pub(crate) fn archives(path: &Path) -> Option<&Path> {
    let is_one = |name: &str| name == TRAIN || name == VALIDATION;
    if path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(is_one) {
        return path.parent();
    }
    [TRAIN, VALIDATION].iter().any(|name| path.join(name).is_file()).then_some(path)
}

/// Opens one split of the archives in a folder. The classes are the wnids of both splits, as far as
/// their files exist.
pub(crate) fn open(root: &Path, split: Split) -> Result<Index> {
    let missing = |name: &str| {
        let expected = "ILSVRC2012_img_train.tar for training, ILSVRC2012_img_val.tar for validation";
        Error::Format { path: root.into(), expected, got: format!("no {name}") }
    };
    let truth = if root.join(VALIDATION).is_file() { Truth::find(root)? } else { None };
    let train = if root.join(TRAIN).is_file() { Some(Archive::open(&root.join(TRAIN))?) } else { None };
    let of_train = match &train {
        Some(archive) if split == Split::Train => Some(index::open_or_build(archive, || train_index(archive))?),
        _ => None,
    };
    let wnids = match (&train, &of_train) {
        (_, Some(index)) => index.classes.clone(),
        (Some(archive), None) => class_tars(archive)?.into_iter().map(|(wnid, ..)| wnid).collect(),
        (None, None) => Vec::new(),
    };
    let mut classes: BTreeSet<String> = wnids.into_iter().collect();
    classes.extend(truth.iter().flat_map(Truth::wnids).cloned());
    let classes: Vec<String> = classes.into_iter().collect();
    let number =
        |wnid: &str| classes.binary_search_by(|class| class.as_str().cmp(wnid)).expect("a wnid of the classes");
    let (entries, ignored, archive) = match (split, of_train, train) {
        (Split::Train, Some(ArchiveIndex { mut entries, classes, ignored }), Some(archive)) => {
            let numbers: Vec<u32> = classes.iter().map(|wnid| number(wnid) as u32).collect();
            entries.labels.iter_mut().for_each(|label| *label = numbers[*label as usize]);
            (entries, ignored, archive)
        }
        (Split::Train, ..) => return Err(missing(TRAIN)),
        (Split::Validation, ..) if !root.join(VALIDATION).is_file() => return Err(missing(VALIDATION)),
        (Split::Validation, ..) => {
            let truth = truth.ok_or_else(|| without_truth(root))?;
            let archive = Archive::open(&root.join(VALIDATION))?;
            let (entries, ignored) = validation(&archive, &truth, &|wnid| number(wnid) as u32)?;
            (entries, ignored, archive)
        }
    };
    let split_name = Some(archive.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let index = Index::new(root, Format::ImageNet, classes, entries, Storage::Archives(vec![archive]));
    Ok(Index { split_name, ignored, ..index })
}

/// Returns the images among the members of a tar, and counts the ignored members.
fn images<'a>(members: &'a [Member], ignored: &'a mut Ignored) -> impl Iterator<Item = &'a Member> {
    members.iter().filter(|member| match file_kind(&member.name) {
        _ if member.kind != Kind::File => false,
        FileKind::Image => true,
        FileKind::Ignored(reason) => {
            ignored.add(reason, &member.name);
            false
        }
        FileKind::System => false,
    })
}

fn without_truth(root: &Path) -> Error {
    Error::Format { path: root.into(), expected: truth::KNOWN, got: "none of these".into() }
}

/// Reads the images of the validation archive, which has no folders.
fn validation(archive: &Archive, truth: &Truth, number: &dyn Fn(&str) -> u32) -> Result<(Entries, Ignored)> {
    let length = archive.stamp.length;
    let contents = archive::contents(Section::new(&archive.file, 0, length), length, &archive.path)?;
    let (mut entries, mut ignored) = (Entries::default(), contents.ignored);
    for member in images(&contents.members, &mut ignored) {
        let refuse = || {
            let expected = "a validation image listed in the ground truth";
            Error::Format { path: archive.path.join(&member.name), expected, got: "an unlisted name".into() }
        };
        let label = number(truth.of(&member.name).ok_or_else(refuse)?);
        let (offset, length) = (member.offset, member.length);
        entries.push(Entry { name: &member.name, label, source: 0, offset, length });
    }
    Ok((checked(entries, archive)?, ignored))
}

/// Builds the index of the training archive, a tar that contains one tar per class.
fn train_index(archive: &Archive) -> Result<ArchiveIndex> {
    let (mut entries, mut classes, mut ignored) = (Entries::default(), Vec::new(), Ignored::default());
    for (wnid, start, length) in class_tars(archive)? {
        let path = archive.path.join(format!("{wnid}.tar"));
        let contents = archive::contents(Section::new(&archive.file, start, length), length, &path)?;
        ignored.join(&contents.ignored);
        for member in images(&contents.members, &mut ignored) {
            let name = format!("{wnid}/{}", split_name(&member.name).1);
            let (label, offset) = (classes.len() as u32, start + member.offset);
            entries.push(Entry { name: &name, label, source: 0, offset, length: member.length });
        }
        classes.push(wnid);
    }
    Ok(ArchiveIndex { entries: checked(entries, archive)?, classes, ignored })
}

fn checked(entries: Entries, archive: &Archive) -> Result<Entries> {
    if entries.len() == 0 {
        let (expected, got) = ("an archive with images", "none".into());
        return Err(Error::Format { path: archive.path.clone(), expected, got });
    }
    let entries = entries.sorted();
    entries.check(&archive.path)?;
    Ok(entries)
}

/// Returns the wnid, offset and length of each class's tar, sorted by wnid.
fn class_tars(archive: &Archive) -> Result<Vec<(String, u64, u64)>> {
    let length = archive.stamp.length;
    let contents = archive::contents(Section::new(&archive.file, 0, length), length, &archive.path)?;
    let mut tars = Vec::new();
    for member in contents.members.iter().filter(|member| member.kind == Kind::File) {
        let wnid = split_name(&member.name).1.strip_suffix(".tar").filter(|wnid| is_wnid(wnid));
        let Some(wnid) = wnid else {
            let (path, expected) = (archive.path.join(&member.name), "the tar of a class, such as n01440764.tar");
            return Err(Error::Format { path, expected, got: "another file".into() });
        };
        tars.push((wnid.to_string(), member.offset, member.length));
    }
    tars.sort();
    match tars.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            let (expected, got) = ("each class once", format!("{}.tar twice", pair[0].0));
            Err(Error::Format { path: archive.path.clone(), expected, got })
        }
        None => Ok(tars),
    }
}

/// Returns whether a folder has ImageNet's validation images without class folders. The training
/// folders must be named by wnids, or the ground truth of the validation images must exist.
pub(crate) fn is_flat(root: &Path) -> Result<bool> {
    let Ok(paths) = walk::list(&root.join("val")) else { return Ok(false) };
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    if paths.iter().any(|path| path.is_dir()) || !paths.iter().any(|path| is_image(&name(path))) {
        return Ok(false);
    }
    let train = walk::list(&root.join("train")).unwrap_or_default();
    Ok(train.iter().any(|path| is_wnid(&name(path)) && path.is_dir()) || Truth::find(root)?.is_some())
}

/// Opens one split of a folder with `train/{wnid}/` and all validation images directly in `val/`.
pub(crate) fn open_flat(root: &Path, split: Split) -> Result<Index> {
    let mut collector = Collector::new(root);
    match Truth::find(root)? {
        Some(truth) => collect_validation(root, &truth, &mut collector)?,
        // Opening the training split does not require the classes of the validation images.
        None if split == Split::Train => {}
        None => return Err(without_truth(root)),
    }
    folder::collect_split(root, "train", split == Split::Train, &mut collector)?;
    collector.add_ignored_outside(&folder::ignored_beside(
        root,
        SplitFolders([Some(("train", true)), Some(("val", true))]),
        "",
    )?);
    collector.finish(split, Format::ImageNetFolder, Storage::Files(root.into()))
}

/// Collects the images of `val/`, which has no folders.
fn collect_validation(root: &Path, truth: &Truth, collector: &mut Collector) -> Result<()> {
    let validation = walk::images(&root.join("val"))?;
    collector.ignored("val").join(&validation.ignored);
    for (name, length) in validation.images {
        let refuse = || {
            let expected = "a validation image listed in the ground truth";
            Error::Format { path: root.join("val").join(&name), expected, got: "an unlisted name".into() }
        };
        collector.add("val", truth.of(&name).ok_or_else(refuse)?, format!("val/{name}"), 0, length);
    }
    Ok(())
}

/// Returns whether `bytes` are a complete index of an archive of `length` bytes with modification
/// time 0.
pub(crate) fn is_index(bytes: &[u8], length: u64) -> bool {
    index::from_reader(bytes, bytes.len() as u64, FileStamp { length, modified: 0 }).is_some()
}
