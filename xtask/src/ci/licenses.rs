//! The license gate: every package is from the public registry or this workspace, with a license
//! that `deny.toml` allows.
//!
//! `cargo deny check licenses bans sources` reads the same file. This gate requires no
//! installation.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::metadata::{self, Package};
use crate::run;

/// The part of `deny.toml` that this gate reads.
#[derive(Deserialize)]
struct Config {
    licenses: Rules,
}

#[derive(Deserialize)]
struct Rules {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// Additional licenses that are allowed for a single crate.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check() -> Result<()> {
    let path = run::root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rules = toml::from_str::<Config>(&text).map_err(|error| {
        let line = error.message().lines().next().unwrap_or_default().to_string();
        anyhow::anyhow!("{}: {line}", path.display())
    })?;
    let packages = metadata::packages()?;
    let refused: Vec<String> = packages.iter().filter_map(|package| refusal(package, &rules.licenses)).collect();
    if !refused.is_empty() {
        bail!("packages that deny.toml does not allow: {}", refused.join("; "));
    }
    println!("  {} packages, all under licenses that deny.toml allows", packages.len());
    Ok(())
}

/// Returns the reason why a package is not allowed, or `None`.
fn refusal(package: &Package, rules: &Rules) -> Option<String> {
    let refuse = |why: &str| Some(format!("{} {}: {why}", package.name, package.version));
    if let Some(source) = package.source.as_ref().filter(|source| *source != REGISTRY) {
        return refuse(&format!("comes from {source}"));
    }
    let exceptions = rules.exceptions.iter().filter(|exception| exception.name == package.name);
    let allowed: Vec<&str> =
        exceptions.flat_map(|exception| &exception.allow).chain(&rules.allow).map(String::as_str).collect();
    match package.license.as_deref().map(|license| (license, satisfied(license, &allowed))) {
        Some((_, Some(true))) => None,
        Some((license, Some(false))) => refuse(license),
        Some((license, None)) => refuse(&format!("{license:?} is not a license expression")),
        None => refuse("no license"),
    }
}

/// Whether an SPDX expression can be satisfied with the allowed licenses; `None` if it is
/// malformed. An old-style "/" means OR. A name with an exception ("X WITH y") must be allowed as
/// such.
fn satisfied(expression: &str, allowed: &[&str]) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = either(&mut rest, allowed)?;
    rest.is_empty().then_some(met)
}

fn either(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut met = both(words, allowed)?;
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        met |= both(words, allowed)?;
    }
    Some(met)
}

fn both(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let (&first, rest) = words.split_first()?;
    *words = rest;
    match first {
        "OR" | "AND" | "WITH" | ")" => None,
        "(" => {
            let met = either(words, allowed)?;
            let (&last, rest) = words.split_first()?;
            *words = rest;
            (last == ")").then_some(met)
        }
        name => match **words {
            ["WITH", exception, ref rest @ ..] => {
                *words = rest;
                Some(allowed.contains(&format!("{name} WITH {exception}").as_str()))
            }
            _ => Some(allowed.contains(&name)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "GPL-3.0 / MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "MIT AND (Apache-2.0 OR GPL-2.0)",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert_eq!(satisfied(good, &allowed), Some(true), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR LGPL-3.0) AND MIT", "MIT WITH x", "mit"] {
            assert_eq!(satisfied(bad, &allowed), Some(false), "{bad}");
        }
        for malformed in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "()", "MIT GPL-3.0", "MIT WITH"] {
            assert_eq!(satisfied(malformed, &allowed), None, "{malformed}");
        }
    }

    fn refused(name: &str, license: Option<&str>, source: Option<&str>) -> Option<String> {
        let rules =
            toml::from_str::<Rules>("allow = ['MIT']\nexceptions = [{ crate = 'colors', allow = ['MPL-2.0'] }]");
        let (license, source) = (license.map(String::from), source.map(String::from));
        refusal(
            &Package { name: name.into(), version: "1.0.0".into(), license, source, ..Package::default() },
            &rules.unwrap(),
        )
    }

    #[test]
    fn packages_are_refused_for_their_license_or_source() {
        assert_eq!(refused("x", Some("MIT"), Some(REGISTRY)), None);
        assert_eq!(refused("x", Some("MIT"), None), None);
        assert_eq!(refused("colors", Some("MPL-2.0"), None), None);
        assert_eq!(refused("x", Some("MPL-2.0"), None).unwrap(), "x 1.0.0: MPL-2.0");
        assert_eq!(refused("x", None, None).unwrap(), "x 1.0.0: no license");
        assert_eq!(refused("x", Some("MIT OR"), None).unwrap(), "x 1.0.0: \"MIT OR\" is not a license expression");
        assert_eq!(
            refused("x", Some("MIT"), Some("git+https://a.b/x")).unwrap(),
            "x 1.0.0: comes from git+https://a.b/x"
        );
    }
}
