//! The package gate: the packed crates are complete, and build from what is packed alone, as their users build them.
//!
//! The packed sources are laid out beside `tests/external-cuda`, which uses a GPU through them. All is checked from a folder
//! outside the repository, so that no `.cargo/config.toml` is found.

mod contents;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

use crate::metadata::{self, Package};
use crate::run;
use contents::{Contents, Licenses};

/// A crate outside the workspace that is checked together with the packed ones.
const USER: &str = "tests/external-cuda";

/// The folder of the packed sources in their workspace. Cargo tells crates apart by their paths in a workspace: without this folder
/// it would take what it has compiled of the repository's sources for theirs.
const CRATES: &str = "crates";

pub(crate) fn check() -> Result<()> {
    let packages: Vec<Package> = metadata::packages()?.into_iter().filter(|package| package.is_published).collect();
    let target = metadata::target_folder()?;
    pack(&packages)?;
    let licenses = Licenses::read(&run::root())?;
    let folder = target.join("packed");
    let mut found = Vec::new();
    for package in &packages {
        let path = target.join("package").join(format!("{}-{}.crate", package.name, package.version));
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let contents = Contents::read(&bytes).with_context(|| path.display().to_string())?;
        println!("  {:<14} {:>5} KiB packed, {} files", package.name, bytes.len().div_ceil(1024), contents.len());
        found.extend(contents.wrong(&licenses).into_iter().map(|what| format!("{}: {what}", package.name)));
        contents.unpack(&folder.join(CRATES).join(&package.name))?;
    }
    if !found.is_empty() {
        bail!("incomplete packages:\n    {}", found.join("\n    "));
    }
    lay_out(&folder, &packages)?;
    run::run_checked(&mut outside(&["check", "--workspace", "--all-features", "--offline"], &folder, &target))?;
    let tree = ["tree", "--offline", "--workspace", "-e", "normal,build", "--prefix", "none", "-f", "{p} {f}"];
    fixed_cuda(&run::output(&mut outside(&tree, &folder, &target))?)
}

/// Packs all crates that are published. Uncommitted changes are packed as well. `cargo metadata` has downloaded all packages;
/// cargo would ask the registry about each of them again.
fn pack(packages: &[Package]) -> Result<()> {
    let mut command = run::cargo(&["package", "--no-verify", "--allow-dirty", "--locked", "--offline", "--quiet"]);
    packages.iter().for_each(|package| {
        command.args(["-p", &package.name]);
    });
    run::run_checked(&mut command)
}

/// Cargo for the packed workspace, started outside the repository and without what its configuration sets.
fn outside(arguments: &[&str], folder: &Path, target: &Path) -> std::process::Command {
    let mut command = run::cargo(arguments);
    command.arg("--manifest-path").arg(folder.join("Cargo.toml")).current_dir(std::env::temp_dir());
    command.env("CARGO_TARGET_DIR", target).env_remove("CUDARC_CUDA_VERSION");
    command
}

/// Makes a workspace of the unpacked crates and their user, with the versions and profiles of this one: so what other gates
/// have compiled is used again.
fn lay_out(folder: &Path, packages: &[Package]) -> Result<()> {
    let root = run::root();
    for file in ["Cargo.toml", "src/lib.rs"] {
        let text = fs::read_to_string(root.join(USER).join(file)).with_context(|| format!("{USER}/{file}"))?;
        let text = if file == "Cargo.toml" { without_workspace(&text)? } else { text };
        contents::write_changed(&folder.join(CRATES).join(USER).join(file), text.as_bytes())?;
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let manifest = workspace(&fs::read_to_string(root.join("Cargo.toml"))?, &names)?;
    contents::write_changed(&folder.join("Cargo.toml"), manifest.as_bytes())?;
    contents::write_changed(&folder.join("Cargo.lock"), &fs::read(root.join("Cargo.lock"))?)
}

/// The manifest of a workspace of the packed crates, which take each other from its folders.
fn workspace(ours: &str, names: &[&str]) -> Result<String> {
    let ours: Table = ours.parse()?;
    let folder = |name: &&str| Value::from(format!("{CRATES}/{name}"));
    let patch = |name: &&str| (name.to_string(), Table::from_iter([("path".into(), folder(name))]).into());
    let patches: Table = names.iter().map(patch).collect();
    let members: Vec<Value> = names.iter().chain([&USER]).map(folder).collect();
    let mut manifest = Table::new();
    let resolver = ours.get("workspace").and_then(|workspace| workspace.get("resolver")).context("no resolver")?;
    let workspace = Table::from_iter([("resolver".into(), resolver.clone()), ("members".into(), members.into())]);
    manifest.insert("workspace".into(), workspace.into());
    manifest.insert("patch".into(), Table::from_iter([("crates-io".into(), patches.into())]).into());
    let mut profiles = ours.get("profile").cloned().unwrap_or_else(|| Table::new().into());
    // Cargo warns of a package that is not there.
    let of_packages = profiles.get_mut("dev").and_then(|dev| dev.get_mut("package")?.as_table_mut());
    of_packages.and_then(|packages| packages.remove("xtask"));
    manifest.insert("profile".into(), profiles);
    Ok(toml::to_string(&manifest)?)
}

/// A manifest that belongs to the workspace around it, instead of being one of its own.
fn without_workspace(manifest: &str) -> Result<String> {
    let mut manifest: Table = manifest.parse()?;
    ensure!(manifest.remove("workspace").is_some(), "{USER}: expected a workspace of its own, got none");
    Ok(toml::to_string(&manifest)?)
}

/// Refuses a tree of packages in which a copy of cudarc would ask the machine's `nvcc` which CUDA it is to be built for.
fn fixed_cuda(tree: &str) -> Result<()> {
    let copies: Vec<&str> = tree.lines().filter(|line| line.starts_with("cudarc ")).collect();
    ensure!(!copies.is_empty(), "expected cudarc in the tree of packages, got none");
    match copies.iter().find(|line| !line.contains("cuda-13000")) {
        Some(line) => bail!("expected the feature cuda-13000 of each copy of cudarc, got {line}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_profiles_alone() {
        let ours = "[workspace]\nresolver = \"3\"\nmembers = [\"a\", \"tests\"]\nexclude = [\"fuzz\"]\n\
                    [workspace.dependencies]\nx = \"1\"\n[profile.dev.package]\na.opt-level = 3\nxtask.opt-level = 0\n";
        let made: Table = workspace(ours, &["a"]).unwrap().parse().unwrap();
        let expected = "[workspace]\nresolver = \"3\"\nmembers = [\"crates/a\", \"crates/tests/external-cuda\"]\n\
                        [patch.crates-io]\na = { path = \"crates/a\" }\n[profile.dev.package.a]\nopt-level = 3\n";
        assert_eq!(made, expected.parse().unwrap());
        assert!(workspace("[workspace]", &[]).is_err());
    }

    #[test]
    fn workspace_is_removed_for_users() {
        assert_eq!(without_workspace("[package]\nname = \"u\"\n\n[workspace]\n").unwrap(), "[package]\nname = \"u\"\n");
        assert!(without_workspace("[package]\nname = \"u\"\n").is_err());
    }

    #[test]
    fn each_copy_of_cudarc_has_a_version() {
        assert!(
            fixed_cuda("burn v0.21.0 std\ncudarc v0.19.10 cuda-13000,std\ncudarc v0.19.10 cuda-13000 (*)\n").is_ok()
        );
        let asks = fixed_cuda("cudarc v0.19.10 cuda-13000,std\ncudarc v0.19.10 cuda-version-from-build-system,std\n");
        assert!(asks.unwrap_err().to_string().ends_with("got cudarc v0.19.10 cuda-version-from-build-system,std"));
        assert!(fixed_cuda("burn v0.21.0 std\n").is_err());
    }
}
