//! `bagssl data split`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bagssl_data::curate::{group_by_key, group_duplicates, similar_names, split_groups};
use bagssl_data::lists::{self, ListEntry};
use bagssl_data::{Dataset, Format, Ignored, Split};
use regex::Regex;
use serde::Serialize;

use crate::input::files::{self, Output, write_together};
use crate::input::source::{BadImage, BadImageArgs, report_ignored, report_skipped};
use crate::memory::{ImageMemoryArgs, LimitArgs};
use crate::terminal::output::{escaped, note, one_line, say};
use crate::terminal::progress::Progress;

/// Split a folder of images into training and validation, keeping groups of images together
///
/// No group has images in both splits. Writes train.txt and val.txt to a folder, which every
/// command accepts as a data set. Each line has an image's path relative to that folder, a tab and
/// its class. Images are not copied.
///
/// The class of an image is the first folder in its path. In a folder with train/ and val/, it is
/// the folder below these, and the images of both are split again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of image files
    path: PathBuf,
    /// Output folder for the lists
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Criterion that puts images into the same group
    #[arg(long, value_enum)]
    by: GroupBy,
    /// Regular expression for --by name, matched against each image's path in the folder
    ///
    /// Images belong to the same group if all capture groups `(..)` match the same text. Without
    /// capture groups, the entire match must be the same.
    #[arg(long, value_name = "REGEX", required_if_eq("by", "name"))]
    pattern: Option<String>,
    /// Share of the images to hold out for validation, in total and per class as far as the groups
    /// allow
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    validation: f64,
    /// Seed of the random split
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    bad: BadImageArgs,
    #[command(flatten)]
    memory: ImageMemoryArgs,
    /// Overwrite existing lists
    #[arg(long)]
    force: bool,
    /// Print the result as JSON, without progress
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GroupBy {
    /// The folder of the image
    Folder,
    /// The part of the image's path that matches --pattern
    Name,
    /// Exact or near duplicates
    Duplicates,
}

/// An image to assign to a split.
struct SplitReport {
    /// The image's path relative to the folder.
    name: String,
    class: String,
    group: Option<u32>,
}

/// The number of images of a class in each split.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Counts {
    train: usize,
    validation: usize,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let [train, validation] = ["train.txt", "val.txt"].map(|name| args.output.join(name));
    if args.pattern.is_some() && args.by != GroupBy::Name {
        bail!("--pattern: expected --by name, got another");
    }
    if args.bad.on_bad_image == BadImage::Skip && args.by != GroupBy::Duplicates {
        bail!("--on-bad-image skip: expected --by duplicates, got another, which reads no images");
    }
    if !args.force
        && let Some(there) = [&train, &validation].into_iter().find(|path| path.symlink_metadata().is_ok())
    {
        bail!("{}: already exists; --force replaces it", there.display());
    }
    files::check_folder(&args.output)?;
    let mut found = images(&args.path)?;
    skip_non_utf8(args, &mut found)?;
    group(args, &mut found)?;
    found.retain(|image| image.group.is_some());
    let groups = group_by_key(found.iter().map(|image| image.group));
    let classes = group_by_key(found.iter().map(|image| image.class.as_str()));
    let splits = split_groups(&groups, &classes, args.validation, args.seed)
        .with_context(|| format!("{} by {}", args.path.display(), name_of(args.by)))?;

    files::make_folder(&args.output)?;
    let way = relative_path(&args.output, &args.path)?;
    let list = |split: Split| {
        let of_split = found.iter().zip(&splits).filter(|(_, of_image)| **of_image == split);
        let listed = |(image, _): (&SplitReport, _)| ListEntry {
            path: format!("{way}{}", image.name),
            class: image.class.clone(),
        };
        lists::print(&of_split.map(listed).collect::<Vec<_>>())
    };
    let (of_train, of_validation) = (list(Split::Train), list(Split::Validation));
    let outputs = (Output::new(&train, args.force, &[])?, Output::new(&validation, args.force, &[])?);
    write_together([(outputs.0, of_train.as_bytes()), (outputs.1, of_validation.as_bytes())])?;
    report_split(args, &found, &groups, &splits)?;
    Ok(ExitCode::SUCCESS)
}

fn name_of(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Folder => "folder",
        GroupBy::Name => "name",
        GroupBy::Duplicates => "duplicates",
    }
}

/// Returns the images of a folder, with their classes. Ignores existing lists in the folder,
/// because they are written again.
fn images(path: &Path) -> Result<Vec<SplitReport>> {
    if !path.is_dir() {
        bail!("{}: expected a folder of image files (unpack archives first), got none", path.display());
    }
    let splits: Vec<Dataset> = match Dataset::format_of_folder(path) {
        Err(_) | Ok(Format::WholeFolder) => vec![Dataset::from_folder(path)?],
        // A folder with only one of train/ and val/ can be split, too.
        Ok(Format::ImageFolder) => {
            Split::ALL.into_iter().filter_map(|split| Dataset::from_split_folders(path, split).ok()).collect()
        }
        Ok(other) => bail!("{}: expected a folder of image files, got {other}", path.display()),
    };
    let mut ignored = Ignored::default();
    match &splits[..] {
        [train, validation] => ignored.join(&train.ignored_with(validation)),
        splits => splits.iter().for_each(|split| ignored.join(&split.ignored())),
    }
    report_ignored(&ignored);
    let is_unsplit = |split: &Dataset| split.format() == Format::Files;
    let class = |split: &Dataset, image: usize| match is_unsplit(split) {
        true => split.name(image).split_once('/').map_or("", |(folder, _)| folder).to_string(),
        false => split.classes()[split.label(image) as usize].clone(),
    };
    let found = |split: &Dataset| -> Vec<SplitReport> {
        let found = |image| SplitReport { name: split.name(image).into(), class: class(split, image), group: None };
        (0..split.len()).map(found).collect()
    };
    Ok(splits.iter().flat_map(found).collect())
}

/// Rejects or skips files whose names a list cannot represent.
fn skip_non_utf8(args: &Args, found: &mut Vec<SplitReport>) -> Result<()> {
    let count = found.len();
    for image in found.extract_if(.., |image| {
        image.name.contains(char::REPLACEMENT_CHARACTER) && args.path.join(&image.name).symlink_metadata().is_err()
    }) {
        let line = format!("{}/{}: expected a file name in UTF-8, got another", args.path.display(), image.name);
        if args.bad.on_bad_image == BadImage::Fail {
            bail!("{line}");
        }
        note!("skipped: {}", one_line(&line));
    }
    match count - found.len() {
        0 => {}
        1 => note!("skipped 1 image"),
        skipped => note!("skipped {skipped} images"),
    }
    Ok(())
}

/// Assigns a group to each image. Skipped images get `None`.
fn group(args: &Args, found: &mut [SplitReport]) -> Result<()> {
    let groups: Vec<Option<u32>> = match (args.by, &args.pattern) {
        (GroupBy::Folder, _) => {
            let folder = |image: &SplitReport| image.name.rsplit_once('/').map_or("", |(folder, _)| folder).to_string();
            group_by_key(found.iter().map(folder)).into_iter().map(Some).collect()
        }
        (GroupBy::Name, pattern) => {
            let text = pattern.as_deref().unwrap_or_default();
            let pattern =
                Regex::new(text).map_err(|error| anyhow::anyhow!("--pattern: {}", short(&error.to_string())))?;
            let keys: Vec<String> = found.iter().map(|image| key(&pattern, &image.name)).collect::<Result<_>>()?;
            group_by_key(keys).into_iter().map(Some).collect()
        }
        (GroupBy::Duplicates, _) => {
            let paths: Vec<PathBuf> = found.iter().map(|image| args.path.join(&image.name)).collect();
            let bar = Progress::images("compare", paths.len(), args.json);
            let all = Dataset::from_files(&paths)?.with_budget(args.memory.budget());
            let (groups, skipped) = group_duplicates(&all, args.bad.on_bad_image.into(), &|| bar.inc(1))?;
            bar.finish();
            report_skipped(&skipped);
            groups
        }
    };
    found.iter_mut().zip(groups).for_each(|(image, group)| image.group = group);
    Ok(())
}

/// Returns the key that all names of a group share.
fn key(pattern: &Regex, name: &str) -> Result<String> {
    let Some(captures) = pattern.captures(name) else {
        bail!(
            "--pattern: expected a pattern that matches every image path, got {:?}, which does not match {name:?}",
            pattern.as_str()
        );
    };
    let parts: Vec<&str> = captures.iter().skip(1).map(|part| part.map_or("", |part| part.as_str())).collect();
    // Joins the parts with a character that cannot occur in a path.
    Ok(if parts.is_empty() { captures[0].into() } else { parts.join("\0") })
}

/// Returns the last line of a regular expression error, which describes the problem.
fn short(message: &str) -> &str {
    message.lines().last().unwrap_or(message).trim_start_matches("error: ")
}

/// Returns the relative path from one folder to another with a trailing slash, or an empty string
/// if they are the same.
fn relative_path(from: &Path, to: &Path) -> Result<String> {
    let whole = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
    let (from, to) = (whole(from)?, whole(to)?);
    let text = |component: Component<'_>| -> Result<String> {
        let name = component.as_os_str().to_str().map(Into::into);
        name.with_context(|| format!("{}: expected a name in UTF-8, got another", to.display()))
    };
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    if common == 0 {
        // The folders are on different drives.
        return Ok(format!("{}/", to.to_str().context("expected a path in UTF-8, got another")?));
    }
    let mut way = "../".repeat(from.components().count() - common);
    for component in to.components().skip(common) {
        way.push_str(&text(component)?);
        way.push('/');
    }
    Ok(way)
}

/// Prints a summary of the split.
fn report_split(args: &Args, found: &[SplitReport], groups: &[u32], splits: &[Split]) -> Result<()> {
    let mut classes: BTreeMap<&str, Counts> = BTreeMap::new();
    for (image, split) in found.iter().zip(splits) {
        let counts = classes.entry(&image.class).or_default();
        match split {
            Split::Train => counts.train += 1,
            Split::Validation => counts.validation += 1,
        }
    }
    let of = |split: Split| splits.iter().filter(|of_image| **of_image == split).count();
    let (train, validation) = (of(Split::Train), of(Split::Validation));
    let count = groups.iter().max().map_or(0, |most| most + 1);
    if args.json {
        let done = serde_json::json!({
            "output": args.output, "groups": count, "train": train, "validation": validation, "classes": classes,
        });
        say!("{}", serde_json::to_string_pretty(&done)?);
    } else {
        for (class, Counts { train, validation }) in &classes {
            say!("{train:>8} {validation:>8}  {}", escaped(class));
        }
        let (by, output) = (name_of(args.by), args.output.display());
        say!(
            "{train} images for training, {validation} for validation, in {count} groups by {by}; bagssl train --data \
             {output}"
        );
    }
    for names in similar_names(classes.keys().copied()) {
        note!("note: {} differ only in Unicode form, case or spaces", one_line(&format!("{names:?}")));
    }
    let one_sided: Vec<&str> = classes
        .iter()
        .filter(|(_, counts)| counts.train == 0 || counts.validation == 0)
        .map(|(class, _)| *class)
        .collect();
    if let Some(first) = one_sided.first() {
        note!(
            "note: {} of {} classes are only in one split, such as {:?}: their groups are too few or too large",
            one_sided.len(),
            classes.len(),
            first
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_names() {
        let of = |pattern: &str, name: &str| key(&Regex::new(pattern).unwrap(), name).ok();
        assert_eq!(of(r"^[a-z]+", "cat12_3.jpg").as_deref(), Some("cat"));
        assert_eq!(of(r"(p\d+)_\d+(a|b)?", "x/p12_3a.jpg").as_deref(), Some("p12\0a"));
        assert_ne!(of("(a)(bc)?", "abc"), of("(ab)(c)?", "abc"));
        assert_eq!(of(r"^p", "x/p12.jpg"), None);
    }

    #[test]
    fn relative_path_between_folders() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["a/b", "a/c/d"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let of = |from: &str, to: &str| relative_path(&root.path().join(from), &root.path().join(to)).unwrap();
        assert_eq!(of("a/b", "a/c/d"), "../c/d/");
        assert_eq!(of("a", "a/c/d"), "c/d/");
        assert_eq!(of("a/c/d", "a"), "../../");
        assert_eq!(of("a", "a"), "");
    }
}
