//! Detection of the format at a path.

use std::borrow::Cow;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::{Archive, open_file};
use crate::format::Format;
use crate::formats::archive::{self, Contents, Section};
use crate::formats::parquet::columns::Columns;
use crate::formats::split_folders::SplitFolders;
use crate::formats::splits::{self, NamedPath};
use crate::formats::{cifar, folder, imagenet, lists, parquet, tarball, walk, webdataset};
use crate::ignored;
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;

/// The supported layouts, for error messages.
pub(crate) const KNOWN: &str = "a folder with train/ and val/ (each with one folder of images per class), an \
                                uncompressed .tar of one, CIFAR's binary files or .tar.gz, WebDataset's .tar shards, \
                                .parquet files, lists train.txt and val.txt, or ILSVRC2012_img_train.tar and \
                                ILSVRC2012_img_val.tar";

/// Opens one split of the data set at `path`.
pub(crate) fn open(path: &Path, split: Split, columns: &Columns) -> Result<Index> {
    let format = format(path)?;
    if let (Some(column), true) = (columns.image.as_ref().or(columns.label.as_ref()), format != Format::Parquet) {
        let expected = "parquet files".to_string();
        return Err(Error::Setting { name: "column", expected, got: format!("{format} with column {column}") });
    }
    match format {
        Format::Cifar => cifar::open(path, cifar::layout(path)?.expect("it was found just now"), split),
        Format::CifarArchive => cifar::open_archive(path, split),
        Format::WebDataset if splits::is_pattern(path) => webdataset::open(path, &splits::matching(path)?, split),
        Format::WebDataset => {
            with_ignored_beside(path, "tar", webdataset::open(path, &splits::files(path, "tar")?, split)?)
        }
        Format::Parquet if splits::is_pattern(path) => parquet::open(path, &splits::matching(path)?, split, columns),
        Format::Parquet if path.is_dir() => {
            with_ignored_beside(path, "parquet", parquet::open(path, &splits::files(path, "parquet")?, split, columns)?)
        }
        Format::Parquet => parquet::open(path, &[(walk::text(path), path.into())], split, columns),
        Format::ImageNet => imagenet::open(imagenet::archives(path).expect("they were found just now"), split),
        Format::ImageNetFolder => imagenet::open_flat(path, split),
        Format::ImageFolderTar => tar(path, split),
        Format::Lists => lists::open(path, split),
        Format::WholeFolder if split == Split::Validation => Err(no_splits(path)),
        Format::WholeFolder => folder::open_unsplit(path),
        _ => folder::open(path, split),
    }
}

/// Adds the ignored files beside the files with the extension `own`.
fn with_ignored_beside(path: &Path, own: &str, mut index: Index) -> Result<Index> {
    index.ignored_outside.join(&folder::ignored_beside(path, SplitFolders([None, None]), own)?);
    Ok(index)
}

/// The error for a data set without a validation split.
fn no_splits(path: &Path) -> Error {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parent = path
        .parent()
        .filter(|parent| splits::split_in_name(name) == Some(name) && SplitFolders::find(parent).have_both());
    let got = match parent {
        Some(parent) if parent.as_os_str().is_empty() => "one split alone; pass its parent folder".into(),
        Some(parent) => format!("one split alone; pass {}", parent.display()),
        None => format!("images without splits{}", Split::Validation.advice()),
    };
    Error::Format { path: path.into(), expected: "a validation split: val/, validation/ or test/ beside train/", got }
}

/// Detects the format at `path`.
pub(crate) fn format(path: &Path) -> Result<Format> {
    let meta = match fs::metadata(path) {
        Err(_) if splits::is_pattern(path) => {
            let is_table = path.extension().is_some_and(|ending| ending == "parquet");
            return Ok(if is_table { Format::Parquet } else { Format::WebDataset });
        }
        meta => meta.map_err(|error| Error::Read { path: path.into(), error })?,
    };
    if imagenet::archives(path).is_some() {
        return Ok(Format::ImageNet);
    }
    if meta.is_dir() {
        return if lists::is_lists(path)? { Ok(Format::Lists) } else { format_of_folder(path) };
    }
    if !meta.is_file() {
        return refuse(path, KNOWN, "a special file".into());
    }
    match &start(path)?[..] {
        [0x1f, 0x8b, ..] => Ok(Format::CifarArchive),
        [b'P', b'A', b'R', b'1', ..] => Ok(Format::Parquet),
        _ => Ok(Format::ImageFolderTar),
    }
}

/// The expected layout, for error messages about a folder that almost has it.
const FOLDER: &str = "train/ and val/, each with one folder of images per class";

fn refuse<T>(path: &Path, expected: &'static str, got: String) -> Result<T> {
    Err(Error::Format { path: path.into(), expected, got })
}

/// Detects the format of a folder, ignoring lists. Unambiguous names take precedence over ambiguous
/// ones.
pub(crate) fn format_of_folder(path: &Path) -> Result<Format> {
    if cifar::layout(path)?.is_some() {
        return Ok(Format::Cifar);
    }
    if imagenet::is_flat(path)? {
        return Ok(Format::ImageNetFolder);
    }
    let folders = SplitFolders::find(path);
    if folders.have_images() {
        check_one_split(path, folders)?;
        return Ok(Format::ImageFolder);
    }
    let [tables, shards] = [splits::files(path, "parquet")?, splits::files(path, "tar")?];
    let names_split = |files: &[NamedPath]| files.iter().any(|(name, _)| splits::split_in_name(name).is_some());
    let has_image = walk::has_image(path);
    match () {
        () if names_split(&tables) || (!tables.is_empty() && !has_image) => Ok(Format::Parquet),
        () if names_split(&shards) || (!shards.is_empty() && !has_image) => Ok(Format::WebDataset),
        () => detect_unsplit(path, folders, has_image),
    }
}

/// Returns [`Format::WholeFolder`], or an error that says why the folder is not one.
fn detect_unsplit(path: &Path, folders: SplitFolders, has_image: bool) -> Result<Format> {
    let without = |names: String| format!("{names} without images in a supported format{}", describe_ignored(path));
    if let [Some((train, _)), Some((validation, _))] = folders.0 {
        return refuse(path, FOLDER, without(format!("{train}/ and {validation}/")));
    }
    if cifar::is_python(path) {
        return refuse(path, "the files of CIFAR-10 or of CIFAR-100", cifar::PYTHON_VERSION.into());
    }
    if let Some(got) = describe_near_match(path)? {
        return refuse(path, FOLDER, got);
    }
    if let [Some((folder, _)), None] | [None, Some((folder, _))] = folders.0 {
        return refuse(path, FOLDER, without(format!("{folder}/")));
    }
    match has_image {
        true => Ok(Format::WholeFolder),
        false => refuse(path, KNOWN, format!("a folder without any of these{}", describe_ignored(path))),
    }
}

/// Describes the ignored files in a folder, for error messages.
fn describe_ignored(path: &Path) -> String {
    match walk::images(path) {
        Ok(found) if !found.ignored.is_empty() => format!(", but {}", found.ignored),
        _ => String::new(),
    }
}

/// Describes a data set one folder further down, or splits with unsupported names, for error
/// messages.
fn describe_near_match(path: &Path) -> Result<Option<String>> {
    let folders: Vec<PathBuf> = walk::list(path)?.into_iter().filter(|inside| inside.is_dir()).collect();
    let name = |inside: &Path| inside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let near = |split| folders.iter().map(|inside| name(inside)).find(|name| splits::likely_split(name) == Some(split));
    if let [Some(train), Some(validation)] = Split::ALL.map(near) {
        return Ok(Some(format!(
            "{train}/ and {validation}/; if these are the splits, rename them to train/ and val/"
        )));
    }
    const MAX_FOLDERS: usize = 64;
    for inside in folders.iter().take(MAX_FOLDERS) {
        let files = [splits::files(inside, "parquet")?, splits::files(inside, "tar")?].concat();
        let folders = SplitFolders::find(inside);
        let is_set = (folders.have_images() && check_one_split(inside, folders).is_ok())
            || cifar::layout(inside)?.is_some()
            || files.iter().any(|(name, _)| splits::split_in_name(name).is_some());
        if is_set {
            return Ok(Some(format!("a folder that contains a data set; pass {}", inside.display())));
        }
    }
    Ok(None)
}

/// Refuses a folder with one split and other folders with images: the split's name may be that of a
/// class.
fn check_one_split(path: &Path, folders: SplitFolders) -> Result<()> {
    let ([Some((folder, _)), None] | [None, Some((folder, _))]) = folders.0 else { return Ok(()) };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_split_folder = |name: &str| Split::ALL.into_iter().flat_map(Split::folders).any(|folder| *folder == name);
    let is_other = |other: &PathBuf| other.is_dir() && !is_split_folder(&name(other)) && walk::has_image(other);
    let others = walk::list(path)?.into_iter().filter(is_other);
    let others: Vec<String> = others.map(|other| format!("{}/", name(&other))).collect();
    if others.is_empty() {
        return Ok(());
    }
    let missing = if Split::Train.folders().contains(&folder) { Split::Validation } else { Split::Train };
    if let Some(near) = others.iter().find(|other| splits::likely_split(other) == Some(missing)) {
        return refuse(
            path,
            FOLDER,
            format!("{folder}/ and {near}; if {near} is the other split, rename it to {}/", missing.folders()[0]),
        );
    }
    let shown = others.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = if others.len() > 3 { format!(" and {} more", others.len() - 3) } else { String::new() };
    let got = format!(
        "{folder}/ without the other split, beside {shown}{more} with images; if {folder} is a class, run `bagssl data \
         split`; if it is a split, pass {} alone",
        path.join(folder).display()
    );
    refuse(path, FOLDER, got)
}

/// Reads the first 8 bytes of a file.
fn start(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::Read { path: path.into(), error };
    let mut start = Vec::new();
    open_file(path)?.take(8).read_to_end(&mut start).map_err(failed)?;
    Ok(start)
}

/// Opens one split of a tar: a folder of images, or a WebDataset shard.
fn tar(path: &Path, split: Split) -> Result<Index> {
    let archive = Archive::open(path)?;
    let length = archive.stamp.length;
    let contents = archive::contents(Section::new(&archive.file, 0, length), length, path)?;
    if !tarball::is_image_folder(&contents.members) && webdataset::is_shard(&contents.members) {
        return webdataset::open(path, &[(walk::text(path), path.into())], split);
    }
    of_contents(contents, path, split, Storage::Archives(vec![archive]))
}

/// Opens one split of a tar of images.
fn of_contents(contents: Contents, origin: &Path, split: Split, storage: Storage) -> Result<Index> {
    let members = &contents.members;
    if tarball::is_image_folder(members) {
        return tarball::collect(contents, origin)?.finish(split, Format::ImageFolderTar, storage);
    }
    if !members.iter().any(|member| ignored::is_image(&member.name)) {
        let first = members.first().map_or(String::new(), |first| format!(" (the first is {})", first.name));
        let (expected, got) = ("a .tar of images", format!("{} members, none of them an image{first}", members.len()));
        return Err(Error::Format { path: origin.into(), expected, got });
    }
    let images = members.iter().map(|member| member.name.as_str()).filter(|name| ignored::is_image(name));
    if let Some([train, validation]) = splits::find_split_folders(images) {
        let expected = "a .tar with train/ and val/ at its top or in one folder";
        let got = format!("{train}/ and {validation}/; if these are the splits, rename them to train/ and val/");
        return Err(Error::Format { path: origin.into(), expected, got });
    }
    match split {
        Split::Train => tarball::collect_unsplit(contents, origin).finish_unsplit(Format::WholeTar, storage),
        Split::Validation => Err(no_splits(origin)),
    }
}

/// Opens one split of a tar in memory.
pub(crate) fn tar_in_memory(bytes: Cow<'static, [u8]>, origin: &Path, split: Split) -> Result<Index> {
    let contents = archive::contents(Cursor::new(&bytes), bytes.len() as u64, origin)?;
    of_contents(contents, origin, split, Storage::Memory(bytes))
}

/// Opens a WebDataset shard in memory.
pub(crate) fn shard_in_memory(bytes: Vec<u8>, origin: &Path) -> Result<Index> {
    let contents = archive::contents(Cursor::new(&bytes), bytes.len() as u64, origin)?;
    webdataset::from_contents(&contents, bytes, origin)
}
