//! The tidy gate: what no compiler checks.

mod circles;
mod layout;

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
    // Files that will be added too, so that the gate says here what it would say of a clone.
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let tracked = run::output(std::process::Command::new("git").args(list).current_dir(&root))?;
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
    found.extend(layout::check(&root, &folders(&packages))?);
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
            found.push(format!("{name}:{}: a path of one machine ({folder})", number + 1));
        }
    }
    let lines = text.lines().count();
    if name.ends_with(".rs") && lines > LONGEST_FILE {
        found.push(format!("{name}: {lines} lines, expected at most {LONGEST_FILE}"));
    }
    found
}

/// The first absolute path in a line that leads to somebody's own files. What follows a name is part of an address or of
/// a relative path, and is none.
fn path_of_one_machine(line: &str) -> Option<String> {
    let folders = ["home", "root", "work", "Users", "mnt"].map(|name| format!("/{name}/"));
    folders.into_iter().find(|folder| {
        line.match_indices(folder.as_str()).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|before| before.is_alphanumeric() || "._-~/)}>*$".contains(before))
        })
    })
}

/// Dependencies that point the wrong way.
fn wrong_directions(packages: &[Package]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("bagssl-core", [].as_slice()),
        ("bagssl-data", &["bagssl-core"]),
        // These two's tests link what is compiled in bagssl-backend; cargo refuses a circle of libraries.
        ("bagssl-train", &["bagssl-core", "bagssl-backend"]),
        ("bagssl-cuda", &["bagssl-core", "bagssl-train", "bagssl-backend"]),
        ("bagssl-backend", &["bagssl-core", "bagssl-train", "bagssl-cuda"]),
        ("bagssl-eval", &["bagssl-core"]),
        ("bagssl", &["bagssl-core", "bagssl-data", "bagssl-eval"]),
        (
            "bagssl-cli",
            &["bagssl", "bagssl-core", "bagssl-data", "bagssl-train", "bagssl-cuda", "bagssl-backend", "bagssl-eval"],
        ),
        ("bagssl-tests", &["bagssl-core", "bagssl-data", "bagssl-train", "bagssl-backend", "bagssl-eval"]),
        ("xtask", &[]),
        ("photo-tiles", &[]),
    ]);
    let members = packages.iter().filter(|package| package.is_member);
    members
        .flat_map(|package| {
            let Some(allowed) = allowed.get(package.name.as_str()) else {
                return vec![format!("{}: a crate that the tidy gate does not know", package.name)];
            };
            let mut found = Vec::new();
            for name in &package.dependencies {
                if name.starts_with("bagssl-") && !allowed.contains(&name.as_str()) {
                    found.push(format!("{} depends on {name}: dependencies point from cli to core", package.name));
                }
                if name == "burn-cuda" && package.name != "bagssl-cuda" {
                    found.push(format!("{} depends on {name}: it is reached through bagssl-cuda alone", package.name));
                }
            }
            found
        })
        .collect()
}

/// Packages that need a newer compiler than the workspace says.
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

/// Crates that do not share the workspace's lints, or data without its licenses.
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

/// Where a package of the workspace lies.
fn folder(package: &str) -> &str {
    match package {
        "bagssl-tests" => "tests",
        "photo-tiles" => "xtask/photo-tiles",
        name => name,
    }
}

/// Where those of the workspace lie.
fn folders(packages: &[Package]) -> Vec<String> {
    packages.iter().filter(|package| package.is_member).map(|package| folder(&package.name).into()).collect()
}

/// Licenses of the photographs that the attribution or the crate's license does not state.
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
        assert_eq!(in_file("a.rs", &"//\n".repeat(LONGEST_FILE + 1)).len(), 1);
        assert!(in_file("a.md", &"//\n".repeat(LONGEST_FILE + 1)).is_empty());
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
