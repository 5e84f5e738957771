//! ImageFolder in an uncompressed tar. Images are read in place.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::archive::{Contents, Kind, Member, split_name};
use crate::formats::collector::Collector;
use crate::ignored::{FileKind, IgnoreReason, file_kind};
use crate::split::Split;

/// Collects all images of a tar by class.
pub(crate) fn collect(contents: Contents, origin: &Path) -> Result<Collector> {
    let mut collector = Collector::new(origin);
    collector.add_ignored_outside(&contents.ignored);
    let (mut top, mut others) = (None, BTreeSet::<String>::new());
    for Member { name, kind, offset, length } in contents.members {
        let refuse =
            |got: String| Err(Error::Format { path: origin.join(&name), expected: "a file inside the tar", got });
        let what = file_kind(&name);
        if let (FileKind::Ignored(IgnoreReason::Hidden), Kind::File) = (what, kind) {
            collector.ignored("").add(IgnoreReason::Hidden, name);
            continue;
        }
        let Some(path) = MemberPath::from_name(&name) else {
            if what == FileKind::Image && kind == Kind::File {
                others.insert(split_name(&name).0.to_string());
                collector.ignored("").add(IgnoreReason::Outside, name);
            }
            continue;
        };
        if let Some(other) = top.replace(path.top.to_string()).filter(|other| other != path.top) {
            return refuse(format!("two top-level folders, {other:?} and {:?}", path.top));
        }
        match (kind, what, path.class) {
            (Kind::Folder, _, Some(class)) => collector.add_class(path.folder, class),
            (Kind::Special, FileKind::Image, Some(_)) => return refuse("a special file".into()),
            (Kind::File, FileKind::Image, Some(class)) if path.is_inside => {
                collector.add(path.folder, class, name.clone(), offset, length);
            }
            (Kind::File, FileKind::Image, _) => collector.add_loose(path.folder, name.clone(), offset, length),
            (Kind::File, FileKind::Ignored(reason), _) => collector.ignored(path.folder).add(reason, &name),
            _ => {}
        }
    }
    let outside = std::mem::take(collector.ignored(""));
    collector.add_ignored_outside(&outside);
    // Images directly in the top folder are not in a class.
    let other = others.iter().find(|other| !other.is_empty() && Some(*other) != top.as_ref());
    match other.filter(|_| collector.has_one_split()) {
        None => Ok(collector),
        Some(other) => {
            let expected = "a .tar with train/ and val/, or with neither";
            let got = format!("one split, beside {other}/ with images; the split's name may be that of a class");
            Err(Error::Format { path: origin.into(), expected, got })
        }
    }
}

/// Collects all images of a tar without splits. The class of an image is the first folder of its
/// path.
pub(crate) fn collect_unsplit(contents: Contents, origin: &Path) -> Collector {
    let mut collector = Collector::new(origin);
    collector.ignored("").join(&contents.ignored);
    for Member { name, kind, offset, length } in contents.members {
        match file_kind(&name) {
            FileKind::Image if kind == Kind::File => {
                let class = name.trim_start_matches("./").split_once('/').map_or("", |(class, _)| class).to_string();
                collector.add("", &class, name, offset, length);
            }
            FileKind::Ignored(reason) if kind == Kind::File => collector.ignored("").add(reason, name),
            _ => {}
        }
    }
    collector
}

/// Returns whether a tar has the folder of a split.
pub(crate) fn is_image_folder(members: &[Member]) -> bool {
    members.iter().any(|member| MemberPath::from_name(&member.name).is_some())
}

/// The parts of a name `{top?}/{train,val}/{class}/../{image}`. Hidden files have no place.
struct MemberPath<'a> {
    top: &'a str,
    folder: &'static str,
    /// The component after the split's folder: a class or a file.
    class: Option<&'a str>,
    /// Whether the name is inside the class's folder and not the folder itself.
    is_inside: bool,
}

impl<'a> MemberPath<'a> {
    fn from_name(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.iter().any(|part| crate::ignored::is_hidden(part)) {
            return None;
        }
        (0..2).find_map(|at| {
            let folder =
                Split::ALL.into_iter().flat_map(Split::folders).find(|folder| parts.get(at) == Some(folder))?;
            let top = if at == 0 { "" } else { parts[0] };
            parts.get(at + 1)?;
            Some(MemberPath { top, folder, class: parts.get(at + 1).copied(), is_inside: parts.len() > at + 2 })
        })
    }
}
