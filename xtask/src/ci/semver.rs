//! The semver gate: what has changed in the API since the last release fits the version.
//!
//! It needs `cargo-semver-checks`, and a tag of a release in the repository.

use std::cmp::Reverse;
use std::process::Command;

use anyhow::Result;

use crate::{metadata, run};

pub(crate) fn check() -> Result<()> {
    let tags = run::output(Command::new("git").args(["tag", "--list", "v*", "--merged"]).current_dir(run::root()))?;
    let Some(tag) = latest(&tags) else {
        println!("  skipped: no tag");
        return Ok(());
    };
    if run::output(&mut run::cargo(&["semver-checks", "--version"])).is_err() {
        println!("  skipped: expected cargo-semver-checks, got none: cargo install cargo-semver-checks");
        return Ok(());
    }
    let mut command = run::cargo(&["semver-checks", "--all-features", "--baseline-rev", tag]);
    // The program's library is there for the program alone.
    let packages =
        metadata::packages()?.into_iter().filter(|package| package.is_published && package.name != "bagssl-cli");
    packages.for_each(|package| {
        command.args(["-p", &package.name]);
    });
    run::run_checked(&mut command)
}

/// The newest release among these tags: `v` and a version. Releases that come before one (`v1.0.0-rc.1`) do not count.
fn latest(tags: &str) -> Option<&str> {
    let version = |tag: &&str| -> Option<[u64; 3]> {
        let parts: Vec<u64> = tag.strip_prefix('v')?.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    tags.lines().filter(|tag| version(tag).is_some()).min_by_key(|tag| Reverse(version(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_taken() {
        assert_eq!(latest("v0.1.0\nv0.10.0\nv0.9.2\n"), Some("v0.10.0"));
        assert_eq!(latest("v1.0.0-rc.1\nv0.1.0\nversion-2\nv2\nv1.2.3.4\n"), Some("v0.1.0"));
        assert_eq!(latest("v1.0.0-rc.1\n"), None);
        assert_eq!(latest(""), None);
    }
}
