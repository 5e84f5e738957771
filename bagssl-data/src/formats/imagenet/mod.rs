//! ImageNet-1K (ILSVRC2012) as it is distributed, and unpacked with all validation images in one folder.

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
use crate::formats::half_folders::HalfFolders;
use crate::formats::{folder, walk};
use crate::index::Index;
use crate::passed::{Named, PassedOver, is_image, named};
use crate::split::Split;
use crate::storage::Storage;
use index::ArchiveIndex;
use truth::{Truth, is_wnid};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VALIDATION: &str = "ILSVRC2012_img_val.tar";

/// The folder of the archives, if a path is that folder or one of them.
pub(crate) fn archives(path: &Path) -> Option<&Path> {
    let is_one = |name: &str| name == TRAIN || name == VALIDATION;
    if path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(is_one) {
        return path.parent();
    }
    [TRAIN, VALIDATION].iter().any(|name| path.join(name).is_file()).then_some(path)
}

/// Opens one half of the archives in a folder. Classes are the wnids of both halves, as far as they are there.
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
    let (entries, passed, archive) = match (split, of_train, train) {
        (Split::Train, Some(ArchiveIndex { mut entries, classes, passed }), Some(archive)) => {
            let numbers: Vec<u32> = classes.iter().map(|wnid| number(wnid) as u32).collect();
            entries.labels.iter_mut().for_each(|label| *label = numbers[*label as usize]);
            (entries, passed, archive)
        }
        (Split::Train, ..) => return Err(missing(TRAIN)),
        (Split::Validation, ..) if !root.join(VALIDATION).is_file() => return Err(missing(VALIDATION)),
        (Split::Validation, ..) => {
            let truth = truth.ok_or_else(|| without_truth(root))?;
            let archive = Archive::open(&root.join(VALIDATION))?;
            let (entries, passed) = validation(&archive, &truth, &|wnid| number(wnid) as u32)?;
            (entries, passed, archive)
        }
    };
    let half = Some(archive.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let index = Index::new(root, Format::ImageNet, classes, entries, Storage::Archives(vec![archive]));
    Ok(Index { half, passed, ..index })
}

/// The images of a tar; what else there is is counted.
fn images<'a>(members: &'a [Member], passed: &'a mut PassedOver) -> impl Iterator<Item = &'a Member> {
    members.iter().filter(|member| match named(&member.name) {
        _ if member.kind != Kind::File => false,
        Named::Image => true,
        Named::Passed(reason) => {
            passed.add(reason, &member.name);
            false
        }
        Named::Nothing => false,
    })
}

fn without_truth(root: &Path) -> Error {
    Error::Format { path: root.into(), expected: truth::KNOWN, got: "none of these".into() }
}

/// The images of the validation archive, which lie in no folders.
fn validation(archive: &Archive, truth: &Truth, number: &dyn Fn(&str) -> u32) -> Result<(Entries, PassedOver)> {
    let length = archive.stamp.length;
    let contents = archive::contents(Section::new(&archive.file, 0, length), length, &archive.path)?;
    let (mut entries, mut passed) = (Entries::default(), contents.passed);
    for member in images(&contents.members, &mut passed) {
        let refuse = || {
            let expected = "a validation image of the ground truth";
            Error::Format { path: archive.path.join(&member.name), expected, got: "another name".into() }
        };
        let label = number(truth.of(&member.name).ok_or_else(refuse)?);
        let (offset, length) = (member.offset, member.length);
        entries.push(Entry { name: &member.name, label, source: 0, offset, length });
    }
    Ok((checked(entries, archive)?, passed))
}

/// The index of the training archive, a tar of a tar for each class.
fn train_index(archive: &Archive) -> Result<ArchiveIndex> {
    let (mut entries, mut classes, mut passed) = (Entries::default(), Vec::new(), PassedOver::default());
    for (wnid, start, length) in class_tars(archive)? {
        let path = archive.path.join(format!("{wnid}.tar"));
        let contents = archive::contents(Section::new(&archive.file, start, length), length, &path)?;
        passed.join(&contents.passed);
        for member in images(&contents.members, &mut passed) {
            let name = format!("{wnid}/{}", split_name(&member.name).1);
            let (label, offset) = (classes.len() as u32, start + member.offset);
            entries.push(Entry { name: &name, label, source: 0, offset, length: member.length });
        }
        classes.push(wnid);
    }
    Ok(ArchiveIndex { entries: checked(entries, archive)?, classes, passed })
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

/// The wnid, the place and the length of each class's tar, in the order of the wnids.
fn class_tars(archive: &Archive) -> Result<Vec<(String, u64, u64)>> {
    let length = archive.stamp.length;
    let contents = archive::contents(Section::new(&archive.file, 0, length), length, &archive.path)?;
    let mut tars = Vec::new();
    for member in contents.members.iter().filter(|member| member.kind == Kind::File) {
        let wnid = split_name(&member.name).1.strip_suffix(".tar").filter(|wnid| is_wnid(wnid));
        let Some(wnid) = wnid else {
            let (path, expected) = (archive.path.join(&member.name), "the tar of a class, as n01440764.tar");
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

/// Whether a folder has ImageNet's validation images without folders of classes: training folders are called by wnids, or there is
/// a list of their classes.
pub(crate) fn is_flat(root: &Path) -> Result<bool> {
    let Ok(paths) = walk::list(&root.join("val")) else { return Ok(false) };
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    if paths.iter().any(|path| path.is_dir()) || !paths.iter().any(|path| is_image(&name(path))) {
        return Ok(false);
    }
    let train = walk::list(&root.join("train")).unwrap_or_default();
    Ok(train.iter().any(|path| is_wnid(&name(path)) && path.is_dir()) || Truth::find(root)?.is_some())
}

/// Opens one half of a folder with `train/wnid/` and all validation images in `val/`.
pub(crate) fn open_flat(root: &Path, split: Split) -> Result<Index> {
    let mut collector = Collector::new(root);
    match Truth::find(root)? {
        Some(truth) => collect_validation(root, &truth, &mut collector)?,
        // Training needs no classes of validation images.
        None if split == Split::Train => {}
        None => return Err(without_truth(root)),
    }
    folder::collect_half(root, "train", split == Split::Train, &mut collector)?;
    collector.add_beside(&folder::beside(root, HalfFolders([Some(("train", true)), Some(("val", true))]), "")?);
    collector.finish(split, Format::ImageNetFolder, Storage::Files(root.into()))
}

/// The images of `val/`, which lie in no folders.
fn collect_validation(root: &Path, truth: &Truth, collector: &mut Collector) -> Result<()> {
    let validation = walk::images(&root.join("val"))?;
    collector.passed("val").join(&validation.passed);
    for (name, length) in validation.images {
        let refuse = || {
            let expected = "a validation image of the ground truth";
            Error::Format { path: root.join("val").join(&name), expected, got: "another name".into() }
        };
        collector.add("val", truth.of(&name).ok_or_else(refuse)?, format!("val/{name}"), 0, length);
    }
    Ok(())
}

/// Whether some bytes are an index of an archive of so many bytes that was last written in 1970.
pub(crate) fn is_index(bytes: &[u8], length: u64) -> bool {
    index::from_reader(bytes, bytes.len() as u64, FileStamp { length, modified: 0 }).is_some()
}
