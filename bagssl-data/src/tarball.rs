//! ImageFolder in an uncompressed tar: images read in place.

use std::path::Path;

use crate::archive::{Kind, Member};
use crate::collector::Collector;
use crate::dataset::{Split, is_image};
use crate::error::{Error, Result};

/// All images of a tar, under their classes.
pub(crate) fn collect(members: Vec<Member>, origin: &Path) -> Result<Collector> {
    let mut collector = Collector::new(origin);
    let mut top = None;
    for Member { name, kind, offset, length } in members {
        let refuse =
            |got: String| Err(Error::Format { path: origin.join(&name), expected: "a file inside the tar", got });
        let Some(place) = Place::of(&name) else { continue };
        if let Some(other) = top.replace(place.top.to_string()).filter(|other| other != place.top) {
            return refuse(format!("two top folders, {other:?} and {:?}", place.top));
        }
        match kind {
            Kind::Folder => collector.add_class(place.folder, place.class),
            _ if !place.is_inside => {}
            _ if !is_image(&name) => collector.add_others(place.folder, u64::from(kind == Kind::File)),
            Kind::File => collector.add(place.folder, place.class, name.clone(), offset, length),
            Kind::Special => return refuse("a special file".into()),
        }
    }
    Ok(collector)
}

/// Whether a tar has the folder of a half.
pub(crate) fn is_image_folder(members: &[Member]) -> bool {
    members.iter().any(|member| Place::of(&member.name).is_some())
}

/// What the name `{top?}/{train,val}/{class}/../{image}` says. Hidden files have no place.
struct Place<'a> {
    top: &'a str,
    folder: &'static str,
    class: &'a str,
    /// Whether it names something inside the class's folder, not the folder.
    is_inside: bool,
}

impl<'a> Place<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.iter().any(|part| part.starts_with('.')) {
            return None;
        }
        (0..2).find_map(|at| {
            let folder =
                Split::ALL.into_iter().flat_map(Split::folders).find(|folder| parts.get(at) == Some(folder))?;
            let top = if at == 0 { "" } else { parts[0] };
            Some(Place { top, folder, class: parts.get(at + 1)?, is_inside: parts.len() > at + 2 })
        })
    }
}
