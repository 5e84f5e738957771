//! The tidy gate: checks that no compiler performs.

mod circles;
mod layout;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::metadata::{self, Package};
use crate::run;

/// The maximum number of lines in a Rust file.
const MAX_FILE_LINES: usize = 600;
/// The maximum number of packages in the tree of bagssl-core without default features, including
/// itself.
const MAX_CORE_PACKAGES: usize = 12;

pub(crate) fn check() -> Result<()> {
    let root = run::root();
    let mut found = Vec::new();
    // Includes untracked files, so that the result is the same as in a clone after committing.
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let tracked = run::output(std::process::Command::new("git").args(list).current_dir(&root))?;
    for name in tracked.lines() {
        let path = root.join(name);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        found.extend(in_file(name, &text));
        if path.extension().is_some_and(|extension| extension == "html") || name.ends_with(".partial") {
            found.push(format!("{name}: generated files must not be committed"));
        }
    }
    let packages = metadata::packages()?;
    found.extend(wrong_directions(&packages));
    found.extend(too_new(&packages));
    found.extend(manifests(&root, &packages)?);
    found.extend(layout::check(&root, &folders(&packages))?);
    let tree = ["tree", "-p", "bagssl-core", "-e", "normal", "--no-default-features", "--prefix", "none", "--locked"];
    found.extend(heavy_core(&run::output(&mut run::cargo(&tree))?));
    if !found.is_empty() {
        bail!("not tidy:\n    {}", found.join("\n    "));
    }
    println!("  {} files and {} packages are tidy", tracked.lines().count(), packages.len());
    Ok(())
}

/// Returns the problems of a file.
fn in_file(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Each is split in two, so that this file does not match itself.
    let never = [
        (concat!("to", "do!("), "unfinished code"),
        (concat!("unimple", "mented!("), "unfinished code"),
        (concat!("#[ig", "nore"), "a test that does not run"),
    ];
    for (number, line) in text.lines().enumerate() {
        for (word, what) in never {
            if line.contains(word) {
                found.push(format!("{name}:{}: {what} ({word})", number + 1));
            }
        }
        if let Some(folder) = path_of_one_machine(line) {
            found.push(format!("{name}:{}: a machine-specific path ({folder})", number + 1));
        }
    }
    let lines = text.lines().count();
    if name.ends_with(".rs") && lines > MAX_FILE_LINES {
        found.push(format!("{name}: {lines} lines, expected at most {MAX_FILE_LINES}"));
    }
    found
}

/// Returns the first absolute path in a line that leads to a user's own files. A path preceded by a
/// name is part of an address or a relative path, and does not count.
fn path_of_one_machine(line: &str) -> Option<String> {
    let folders = ["home", "root", "work", "Users", "mnt"].map(|name| format!("/{name}/"));
    folders.into_iter().find(|folder| {
        line.match_indices(folder.as_str()).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|before| before.is_alphanumeric() || "._-~/)}>*$".contains(before))
        })
    })
}

/// Returns dependencies that point in the wrong direction.
fn wrong_directions(packages: &[Package]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("bagssl-core", [].as_slice()),
        ("bagssl-files", &[]),
        ("bagssl-data", &["bagssl-core"]),
        // The tests of the next two crates link bagssl-backend; cargo rejects cyclic dependencies
        // of libraries.
        ("bagssl-train", &["bagssl-core", "bagssl-files", "bagssl-backend"]),
        ("bagssl-cuda", &["bagssl-core", "bagssl-train", "bagssl-backend"]),
        ("bagssl-backend", &["bagssl-core", "bagssl-train", "bagssl-cuda"]),
        ("bagssl-eval", &["bagssl-core", "bagssl-files"]),
        ("bagssl", &["bagssl-core", "bagssl-data", "bagssl-eval"]),
        (
            "bagssl-cli",
            &[
                "bagssl",
                "bagssl-core",
                "bagssl-data",
                "bagssl-train",
                "bagssl-cuda",
                "bagssl-backend",
                "bagssl-eval",
                "bagssl-files",
            ],
        ),
        (
            "bagssl-tests",
            &["bagssl", "bagssl-core", "bagssl-data", "bagssl-train", "bagssl-backend", "bagssl-eval", "bagssl-files"],
        ),
        ("xtask", &[]),
        ("photo-tiles", &[]),
    ]);
    let members = packages.iter().filter(|package| package.is_member);
    members
        .flat_map(|package| {
            let Some(allowed) = allowed.get(package.name.as_str()) else {
                return vec![format!("{}: a crate unknown to the tidy gate", package.name)];
            };
            let mut found = Vec::new();
            for name in &package.dependencies {
                if (name == "bagssl" || name.starts_with("bagssl-")) && !allowed.contains(&name.as_str()) {
                    found.push(format!("{} depends on {name}: dependencies point from cli to core", package.name));
                }
                if name == "burn-cuda" && package.name != "bagssl-cuda" {
                    found.push(format!("{} depends on {name}: only bagssl-cuda may depend on it", package.name));
                }
            }
            found
        })
        .collect()
}

/// Returns packages that need a newer compiler than the workspace declares.
fn too_new(packages: &[Package]) -> Vec<String> {
    let number = |version: &String| -> [u32; 3] {
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(u32::MAX));
        std::array::from_fn(|_| parts.next().unwrap_or(0))
    };
    let ours = packages.iter().filter(|package| package.is_member).filter_map(|package| package.rust_version.as_ref());
    let Some(ours) = ours.map(number).min() else { return vec!["no crate states its rust-version".into()] };
    let newer = |package: &&Package| package.rust_version.as_ref().is_some_and(|version| number(version) > ours);
    let tell = |package: &Package| {
        let theirs = package.rust_version.as_deref().unwrap_or_default();
        format!("{} {} needs Rust {theirs}, the workspace says {}.{}", package.name, package.version, ours[0], ours[1])
    };
    packages.iter().filter(newer).map(tell).collect()
}

/// Returns crates that do not inherit the workspace's lints, and missing license statements of the
/// data.
fn manifests(root: &Path, packages: &[Package]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in packages.iter().filter(|package| package.is_member) {
        let path = root.join(folder(&package.name)).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        found.extend(in_manifest(&package.name, &text)?);
    }
    let data = packages.iter().find(|package| package.name == "bagssl-data");
    let license = data.and_then(|package| package.license.clone()).unwrap_or_default();
    let attribution = fs::read_to_string(root.join("bagssl-data/data/ATTRIBUTION.md")).unwrap_or_default();
    found.extend(unattributed(&attribution, &license));
    Ok(found)
}

/// Returns the folder of a package of the workspace.
fn folder(package: &str) -> &str {
    match package {
        "bagssl-tests" => "tests",
        "photo-tiles" => "xtask/photo-tiles",
        name => name,
    }
}

/// Returns the folders of the packages of the workspace.
fn folders(packages: &[Package]) -> Vec<String> {
    packages.iter().filter(|package| package.is_member).map(|package| folder(&package.name).into()).collect()
}

/// Returns licenses of the photographs that are missing in the attribution or the crate's license.
fn unattributed(attribution: &str, license: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["CC-BY-4.0", "CC0-1.0"] {
        for (place, text) in [("data/ATTRIBUTION.md", attribution), ("the license in Cargo.toml", license)] {
            if !text.contains(name) {
                found.push(format!("bagssl-data: {place}: expected {name} of its photographs, got none"));
            }
        }
    }
    found
}

fn in_manifest(name: &str, text: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = text.parse().with_context(|| name.to_string())?;
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool()) == Some(true);
    Ok(if inherits { vec![] } else { vec![format!("{name}: does not inherit the workspace's lints")] })
}

/// Checks that bagssl-core has few dependencies without features.
fn heavy_core(tree: &str) -> Vec<String> {
    let mut packages: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut found = Vec::new();
    if packages.len() > MAX_CORE_PACKAGES {
        found.push(format!(
            "bagssl-core: {} packages without features, expected at most {MAX_CORE_PACKAGES}",
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
            rust_version: Some(rust_version.into()),
            dependencies: dependencies.iter().map(|name| (*name).into()).collect(),
            is_member: name.starts_with("bagssl"),
            ..Package::default()
        }
    }

    #[test]
    fn bad_files_are_found() {
        assert!(in_file("a.rs", "fn main() {}\n").is_empty());
        for bad in [
            concat!("open(\"/wo", "rk/x\")"),
            concat!("cd /ho", "me/x"),
            concat!("to", "do!()"),
            concat!("#[ig", "nore]"),
        ] {
            assert_eq!(in_file("a.rs", bad).len(), 1, "{bad}");
        }
        assert_eq!(in_file("a.rs", &"//\n".repeat(MAX_FILE_LINES + 1)).len(), 1);
        assert!(in_file("a.md", &"//\n".repeat(MAX_FILE_LINES + 1)).is_empty());
    }

    #[test]
    fn addresses_are_not_paths() {
        for good in [concat!("https://x.org/ho", "me/y"), concat!("data/wo", "rk/x"), concat!("{root}/wo", "rk/x")] {
            assert_eq!(path_of_one_machine(good), None, "{good}");
        }
    }

    #[test]
    fn wrong_directions_are_found() {
        assert!(wrong_directions(&[package("bagssl-data", &["bagssl-core", "image"], "1.95")]).is_empty());
        assert_eq!(wrong_directions(&[package("bagssl-eval", &["bagssl-data"], "1.95")]).len(), 1);
        assert_eq!(wrong_directions(&[package("bagssl-core", &["bagssl-train"], "1.95")]).len(), 1);
        assert_eq!(wrong_directions(&[package("bagssl-new", &[], "1.95")]).len(), 1);
        assert_eq!(wrong_directions(&[package("bagssl-train", &["bagssl"], "1.95")]).len(), 1);
        assert!(wrong_directions(&[package("bagssl-cuda", &["burn-cuda"], "1.95")]).is_empty());
        assert_eq!(wrong_directions(&[package("bagssl-cli", &["burn-cuda"], "1.95")]).len(), 1);
    }

    #[test]
    fn newer_compilers_are_found() {
        let of = |theirs: &str| too_new(&[package("bagssl-core", &[], "1.95"), package("image", &[], theirs)]).len();
        assert_eq!(["1.88.0", "1.95", "1.95.0", "1.95.1", "1.100", "2.0"].map(of), [0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn missing_lints_are_found() {
        assert!(in_manifest("x", "[lints]\nworkspace = true\n").unwrap().is_empty());
        assert_eq!(in_manifest("x", "[lints]\nworkspace = false\n").unwrap().len(), 1);
        assert_eq!(in_manifest("x", "").unwrap().len(), 1);
    }

    #[test]
    fn missing_attribution_is_found() {
        let attribution = "- wine: CC-BY-4.0\n- seeding: CC0-1.0\n";
        assert!(unattributed(attribution, "MIT AND CC-BY-4.0 AND CC0-1.0").is_empty());
        assert_eq!(unattributed("", "MIT AND CC-BY-4.0 AND CC0-1.0").len(), 2);
        assert_eq!(unattributed(attribution, "MIT AND CC-BY-4.0").len(), 1);
    }

    #[test]
    fn a_heavy_core_is_found() {
        assert!(heavy_core("bagssl-core v0.1.0 (x)\nlibm v0.2.16\nlibm v0.2.16 (*)\n").is_empty());
        assert_eq!(heavy_core("bagssl-core v0.1.0\nburn-core v0.21.0\n").len(), 1);
        let many: String = (0..13).map(|number| format!("p{number} v1.0.0\n")).collect();
        assert_eq!(heavy_core(&many).len(), 1);
    }
}
