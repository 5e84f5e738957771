//! What is in a packed crate.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use toml::Table;

/// The bytes of a packed crate that crates.io accepts.
const LARGEST: usize = 10 << 20;

/// Categories of crates.io that suit these crates. It ignores others.
const CATEGORIES: [&str; 9] = [
    "algorithms",
    "command-line-utilities",
    "computer-vision",
    "filesystem",
    "hardware-support",
    "multimedia::images",
    "no-std",
    "science",
    "visualization",
];

/// The texts of the licenses, by the names of their files.
#[derive(Debug)]
pub(crate) struct Licenses(BTreeMap<&'static str, Vec<u8>>);

impl Licenses {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let text = |name| Ok((name, fs::read(root.join(name)).context(name)?));
        ["LICENSE-MIT", "LICENSE-APACHE"].into_iter().map(text).collect::<Result<_>>().map(Licenses)
    }
}

/// The files of a packed crate.
#[derive(Debug)]
pub(crate) struct Contents {
    packed: usize,
    /// Their bytes, by their paths in the crate's folder.
    files: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    /// Reads a `.crate`: a tar with one folder, packed with gzip.
    pub(crate) fn read(packed: &[u8]) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(GzDecoder::new(packed)).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let kind = entry.header().entry_type();
            ensure!(kind.is_file(), "{path}: expected a file, got {kind:?}");
            let (_, name) = path.split_once('/').with_context(|| format!("{path}: expected a folder, got none"))?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(name.to_string(), bytes);
        }
        Ok(Contents { packed: packed.len(), files })
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Makes `folder` hold these files and no others. Those that are there already are left as they are, for cargo goes by
    /// their times.
    pub(crate) fn unpack(&self, folder: &Path) -> Result<()> {
        remove_others(folder, folder, &self.files)?;
        self.files.iter().try_for_each(|(name, bytes)| write_changed(&folder.join(name), bytes))
    }

    /// What crates.io would refuse, or its readers would miss.
    pub(crate) fn wrong(&self, licenses: &Licenses) -> Vec<String> {
        let mut found = Vec::new();
        if self.packed > LARGEST {
            found.push(format!("expected at most {LARGEST} bytes packed, got {}", self.packed));
        }
        for (name, text) in &licenses.0 {
            if self.files.get(*name) != Some(text) {
                found.push(format!("{name}: expected the repository's, got another or none"));
            }
        }
        for name in self.files.keys().filter(|name| name.starts_with("tests/") || name.starts_with("benches/")) {
            found.push(format!("{name}: needs the repository"));
        }
        match (self.manifest(), self.text("README.md")) {
            (Some(manifest), Some(readme)) => {
                found.extend(wrong_manifest(&manifest));
                found.extend(wrong_readme(readme, &manifest));
            }
            (manifest, _) => {
                let name = if manifest.is_none() { "Cargo.toml" } else { "README.md" };
                found.push(format!("{name}: expected one, got none"));
            }
        }
        found
    }

    fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.files.get(name)?).ok()
    }

    fn manifest(&self) -> Option<Table> {
        self.text("Cargo.toml")?.parse().ok()
    }
}

fn wrong_manifest(manifest: &Table) -> Vec<String> {
    let mut found = Vec::new();
    let get = |name: &str| manifest.get("package")?.get(name);
    let list = |name: &str| -> Vec<&str> {
        get(name).and_then(|value| value.as_array()).into_iter().flatten().filter_map(|value| value.as_str()).collect()
    };
    for name in ["description", "license", "readme", "repository", "rust-version"] {
        if get(name).and_then(|value| value.as_str()).is_none_or(str::is_empty) {
            found.push(format!("{name}: expected one, got none"));
        }
    }
    for (name, list) in [("keywords", list("keywords")), ("categories", list("categories"))] {
        if !(1..=5).contains(&list.len()) {
            found.push(format!("{name}: expected 1 to 5, got {}", list.len()));
        }
    }
    let keyword = |word: &&str| {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-+".contains(letter);
        word.len() <= 20 && word.starts_with(|first: char| first.is_ascii_alphanumeric()) && word.chars().all(allowed)
    };
    let wrong = list("keywords").into_iter().find(|word| !keyword(word));
    found.extend(wrong.map(|word| format!("keywords: expected at most 20 letters, digits, - and _, got {word:?}")));
    let unknown = list("categories").into_iter().find(|slug| !CATEGORIES.contains(slug));
    found.extend(unknown.map(|slug| format!("categories: expected some of crates.io's, got {slug:?}")));
    let documented =
        get("metadata").and_then(|metadata| metadata.get("docs")?.get("rs")?.get("all-features")?.as_bool());
    if documented != Some(true) {
        found.push("metadata.docs.rs: expected all-features = true, got none".into());
    }
    found
}

/// Features that the readme does not name, and links that lead nowhere on crates.io.
fn wrong_readme(readme: &str, manifest: &Table) -> Vec<String> {
    let features = manifest.get("features").and_then(|features| features.as_table());
    let unnamed = features.into_iter().flat_map(Table::keys).filter(|name| *name != "default");
    let unnamed = unnamed.filter(|name| !readme.contains(&format!("| `{name}` |")));
    let mut found: Vec<_> =
        unnamed.map(|name| format!("README.md: expected a row for the feature {name}, got none")).collect();
    let links = readme.match_indices("](").map(|(at, _)| readme[at + 2..].split(')').next().unwrap_or_default());
    let relative = links.filter(|link| !link.starts_with("https://"));
    found.extend(relative.map(|link| format!("README.md: expected a link to https://.., got {link:?}")));
    found
}

/// Writes a file, unless it holds these bytes already.
pub(crate) fn write_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = path.parent().context("a file in no folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// Removes the files below `root` that are not among `files`.
fn remove_others(root: &Path, folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
        if path.is_dir() {
            remove_others(root, &path, files)?;
        } else if !files.contains_key(&name) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"x\"\ndescription = \"d\"\nlicense = \"MIT\"\nreadme = \"README.md\"\n\
        repository = \"https://e.org\"\nrust-version = \"1.95\"\nkeywords = [\"k\"]\ncategories = [\"science\"]\n\
        [package.metadata.docs.rs]\nall-features = true\n[features]\ndefault = []\ncuda = []\n";
    const README: &str = "[x](https://e.org)\n\n| feature | adds |\n|---|---|\n| `cuda` | GPUs |\n";

    fn licenses() -> Licenses {
        Licenses(BTreeMap::from([("LICENSE-MIT", b"mit".to_vec()), ("LICENSE-APACHE", b"apache".to_vec())]))
    }

    fn packed(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("x-0.1.0/{name}"), text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    /// What is wrong with a good crate in which some files have another text, or are missing.
    fn wrong(changes: &[(&str, Option<&str>)]) -> String {
        let good =
            [("Cargo.toml", MANIFEST), ("README.md", README), ("LICENSE-MIT", "mit"), ("LICENSE-APACHE", "apache")];
        let mut files = BTreeMap::from(good.map(|(name, text)| (name, Some(text))));
        files.extend(changes.iter().copied());
        let files: Vec<_> = files.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        Contents::read(&packed(&files)).unwrap().wrong(&licenses()).join("; ")
    }

    #[test]
    fn an_incomplete_crate_is_refused() {
        assert_eq!(wrong(&[]), "");
        assert_eq!(wrong(&[("README.md", None)]), "README.md: expected one, got none");
        assert_eq!(wrong(&[("LICENSE-MIT", None)]), "LICENSE-MIT: expected the repository's, got another or none");
        // What a system without links makes of one.
        assert!(wrong(&[("LICENSE-APACHE", Some("../LICENSE-APACHE"))]).starts_with("LICENSE-APACHE: expected"));
        assert_eq!(wrong(&[("tests/all.rs", Some(""))]), "tests/all.rs: needs the repository");
        let readme = README.replace("cuda", "other").replace("https://e.org", "docs/x.md");
        let found = wrong(&[("README.md", Some(&readme))]);
        assert!(found.contains("the feature cuda") && found.contains("got \"docs/x.md\""), "{found}");
    }

    #[test]
    fn registry_rules_are_checked() {
        for (from, to, part) in [
            ("description = \"d\"\n", "", "description: expected one"),
            ("[\"k\"]", "[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]", "keywords: expected 1 to 5, got 6"),
            ("[\"k\"]", "[\"twenty-one-letters-xx\"]", "got \"twenty-one-letters-xx\""),
            ("[\"k\"]", "[\"two words\"]", "got \"two words\""),
            ("[\"science\"]", "[\"machine-learning\"]", "got \"machine-learning\""),
            ("categories = [\"science\"]\n", "", "categories: expected 1 to 5, got 0"),
            ("all-features = true", "features = []", "metadata.docs.rs"),
        ] {
            let found = wrong(&[("Cargo.toml", Some(&MANIFEST.replace(from, to)))]);
            assert!(found.contains(part), "{found}");
        }
        let large = Contents { packed: LARGEST + 1, files: BTreeMap::new() };
        assert!(large.wrong(&licenses())[0].ends_with("got 10485761"));
    }

    #[test]
    fn a_link_is_no_file() {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "x-0.1.0/LICENSE-MIT", "../LICENSE-MIT").unwrap();
        let bytes = tar.into_inner().unwrap().finish().unwrap();
        let error = Contents::read(&bytes).unwrap_err().to_string();
        assert!(error.starts_with("x-0.1.0/LICENSE-MIT: expected a file"), "{error}");
    }

    #[test]
    fn a_folder_holds_what_is_packed_alone() {
        let folder = std::env::temp_dir().join(format!("bagssl-unpack-{}", std::process::id()));
        let files = |files: &[(&str, &str)]| Contents::read(&packed(files)).unwrap();
        files(&[("a/one", "1"), ("two", "2")]).unpack(&folder).unwrap();
        let before = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(folder.join("two")).unwrap().set_modified(before).unwrap();
        files(&[("two", "2"), ("a/three", "3")]).unpack(&folder).unwrap();
        assert_eq!(fs::metadata(folder.join("two")).unwrap().modified().unwrap(), before);
        assert!(!folder.join("a/one").exists());
        assert_eq!(fs::read(folder.join("a/three")).unwrap(), b"3");
        fs::remove_dir_all(&folder).unwrap();
    }
}
