//! The tidy gate: what no compiler checks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::metadata::{self, Package};
use crate::run;

/// Lines that a file of Rust may have.
const LONGEST_FILE: usize = 600;
/// Packages that bagssl-core's tree may have with default features off, itself counted.
const LARGEST_CORE: usize = 12;

pub(crate) fn check() -> Result<()> {
    let root = run::root();
    let mut found = Vec::new();
    let tracked = run::output(std::process::Command::new("git").args(["ls-files"]).current_dir(&root))?;
    for name in tracked.lines() {
        let path = root.join(name);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        found.extend(in_file(name, &text));
        if path.extension().is_some_and(|extension| extension == "html") || name.ends_with(".partial") {
            found.push(format!("{name}: a file that is made belongs in no commit"));
        }
    }
    let packages = metadata::packages()?;
    found.extend(wrong_directions(&packages));
    found.extend(too_new(&packages));
    found.extend(manifests(&root, &packages)?);
    let tree = ["tree", "-p", "bagssl-core", "-e", "normal", "--no-default-features", "--prefix", "none", "--locked"];
    found.extend(heavy_core(&run::output(&mut run::cargo(&tree))?));
    if !found.is_empty() {
        bail!("not tidy:\n    {}", found.join("\n    "));
    }
    println!("  {} files and {} packages are tidy", tracked.lines().count(), packages.len());
    Ok(())
}

/// What is wrong in a file.
fn in_file(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // In two parts each, so that this file does not find itself.
    let never = [
        (concat!("/wo", "rk/"), "a path of one machine"),
        (concat!("/ho", "me/"), "a path of one machine"),
        (concat!("to", "do!("), "unfinished code"),
        (concat!("unimple", "mented!("), "unfinished code"),
        (concat!("#[ig", "nore"), "a test that does not run"),
    ];
    for (number, line) in text.lines().enumerate() {
        for (word, what) in never {
            if line.contains(word) && !name.ends_with("Cargo.lock") {
                found.push(format!("{name}:{}: {what} ({word})", number + 1));
            }
        }
    }
    let lines = text.lines().count();
    if name.ends_with(".rs") && lines > LONGEST_FILE {
        found.push(format!("{name}: {lines} lines, expected at most {LONGEST_FILE}"));
    }
    found
}

/// Dependencies that point the wrong way.
fn wrong_directions(packages: &[Package]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("bagssl-core", [].as_slice()),
        ("bagssl-data", &["bagssl-core"]),
        ("bagssl-train", &["bagssl-core"]),
        ("bagssl-eval", &["bagssl-core"]),
        ("bagssl-cli", &["bagssl-core", "bagssl-data", "bagssl-train", "bagssl-eval"]),
        ("bagssl-tests", &["bagssl-core", "bagssl-data", "bagssl-train", "bagssl-eval"]),
        ("xtask", &[]),
    ]);
    let members = packages.iter().filter(|package| package.is_member);
    members
        .flat_map(|package| {
            let Some(allowed) = allowed.get(package.name.as_str()) else {
                return vec![format!("{}: a crate that the tidy gate does not know", package.name)];
            };
            let ours = package.dependencies.iter().filter(|name| name.starts_with("bagssl-"));
            let wrong = ours.filter(|name| !allowed.contains(&name.as_str()));
            wrong
                .map(|name| format!("{} depends on {name}: dependencies point from cli to core", package.name))
                .collect()
        })
        .collect()
}

/// Packages that need a newer compiler than the workspace says.
fn too_new(packages: &[Package]) -> Vec<String> {
    let number = |version: &String| -> Vec<u32> { version.split('.').filter_map(|part| part.parse().ok()).collect() };
    let ours = packages.iter().filter(|package| package.is_member).filter_map(|package| package.rust_version.as_ref());
    let Some(ours) = ours.map(number).min() else { return vec!["no crate states its rust-version".into()] };
    let newer = |package: &&Package| package.rust_version.as_ref().is_some_and(|version| number(version) > ours);
    let tell = |package: &Package| {
        format!(
            "{} {} needs Rust {:?}, the workspace says {ours:?}",
            package.name, package.version, package.rust_version
        )
    };
    packages.iter().filter(newer).map(tell).collect()
}

/// Crates that do not share the workspace's lints, or data without its licences.
fn manifests(root: &Path, packages: &[Package]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in packages.iter().filter(|package| package.is_member) {
        let folder = if package.name == "bagssl-tests" { "tests" } else { &package.name };
        let path = root.join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        found.extend(in_manifest(&package.name, &text)?);
    }
    let data = packages.iter().find(|package| package.name == "bagssl-data");
    let licence = data.and_then(|package| package.licence.clone()).unwrap_or_default();
    let attribution = root.join("bagssl-data/data/ATTRIBUTION.md").is_file();
    if !attribution || !["CC-BY-4.0", "CC0-1.0"].iter().all(|name| licence.contains(name)) {
        found.push("bagssl-data: the photographs' attribution or licences are not stated".into());
    }
    Ok(found)
}

fn in_manifest(name: &str, text: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = text.parse().with_context(|| name.to_string())?;
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool()) == Some(true);
    Ok(if inherits { vec![] } else { vec![format!("{name}: does not take the workspace's lints")] })
}

/// Whether bagssl-core is small where nothing is asked of it.
fn heavy_core(tree: &str) -> Vec<String> {
    let mut packages: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut found = Vec::new();
    if packages.len() > LARGEST_CORE {
        found.push(format!(
            "bagssl-core: {} packages without features, expected at most {LARGEST_CORE}",
            packages.len()
        ));
    }
    found.extend(
        packages
            .iter()
            .filter(|name| name.starts_with("burn"))
            .map(|name| format!("bagssl-core: {name} without features")),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str], rust_version: &str) -> Package {
        Package {
            name: name.into(),
            version: "0.1.0".into(),
            licence: None,
            rust_version: Some(rust_version.into()),
            features: vec![],
            dependencies: dependencies.iter().map(|name| (*name).into()).collect(),
            is_member: name.starts_with("bagssl"),
        }
    }

    #[test]
    fn bad_files_are_found() {
        assert!(in_file("a.rs", "fn main() {}\n").is_empty());
        for bad in [concat!("open(\"/wo", "rk/x\")"), concat!("to", "do!()"), concat!("#[ig", "nore]")] {
            assert_eq!(in_file("a.rs", bad).len(), 1, "{bad}");
        }
        assert_eq!(in_file("a.rs", &"//\n".repeat(LONGEST_FILE + 1)).len(), 1);
        assert!(in_file("a.md", &"//\n".repeat(LONGEST_FILE + 1)).is_empty());
    }

    #[test]
    fn wrong_directions_are_found() {
        assert!(wrong_directions(&[package("bagssl-data", &["bagssl-core", "image"], "1.95")]).is_empty());
        assert_eq!(wrong_directions(&[package("bagssl-eval", &["bagssl-data"], "1.95")]).len(), 1);
        assert_eq!(wrong_directions(&[package("bagssl-core", &["bagssl-train"], "1.95")]).len(), 1);
        assert_eq!(wrong_directions(&[package("bagssl-new", &[], "1.95")]).len(), 1);
    }

    #[test]
    fn newer_compilers_are_found() {
        let of = |theirs: &str| too_new(&[package("bagssl-core", &[], "1.95"), package("image", &[], theirs)]).len();
        assert_eq!((of("1.88.0"), of("1.95"), of("1.95.1"), of("1.100")), (0, 0, 1, 1));
    }

    #[test]
    fn missing_lints_are_found() {
        assert!(in_manifest("x", "[lints]\nworkspace = true\n").unwrap().is_empty());
        assert_eq!(in_manifest("x", "[lints]\nworkspace = false\n").unwrap().len(), 1);
        assert_eq!(in_manifest("x", "").unwrap().len(), 1);
    }

    #[test]
    fn a_heavy_core_is_found() {
        assert!(heavy_core("bagssl-core v0.1.0 (x)\nlibm v0.2.16\nlibm v0.2.16 (*)\n").is_empty());
        assert_eq!(heavy_core("bagssl-core v0.1.0\nburn-core v0.21.0\n").len(), 1);
        let many: String = (0..13).map(|number| format!("p{number} v1.0.0\n")).collect();
        assert_eq!(heavy_core(&many).len(), 1);
    }
}
