//! The licence gate: every package in the lock file is under a licence that `deny.toml` allows.
//!
//! `cargo deny check licenses bans sources` reads the same file; this gate needs nothing installed.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::metadata::{self, Package};
use crate::run;

pub(crate) fn check() -> Result<()> {
    let path = run::root().join("deny.toml");
    let config: toml::Table = fs::read_to_string(&path).with_context(|| path.display().to_string())?.parse()?;
    let allowed: Vec<String> = config
        .get("licenses")
        .and_then(|licences| licences.get("allow")?.as_array())
        .context("deny.toml: expected licenses.allow, got none")?
        .iter()
        .filter_map(|licence| licence.as_str().map(String::from))
        .collect();
    let packages = metadata::packages()?;
    let refused: Vec<String> = packages.iter().filter_map(|package| refusal(package, &allowed)).collect();
    if !refused.is_empty() {
        bail!("licences that deny.toml does not allow: {}", refused.join("; "));
    }
    println!("  {} packages, all under licences that deny.toml allows", packages.len());
    Ok(())
}

fn refusal(package: &Package, allowed: &[String]) -> Option<String> {
    match &package.licence {
        Some(licence) if satisfied(licence, allowed) => None,
        Some(licence) => Some(format!("{} {}: {licence}", package.name, package.version)),
        None => Some(format!("{} {}: none stated", package.name, package.version)),
    }
}

/// Whether an SPDX expression can be met with the allowed licences. An old-style "/" means OR; a name with an exception
/// ("X WITH y") must be allowed as a whole.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed) && rest.is_empty()
}

fn either(words: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = both(words, allowed);
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = one(words, allowed);
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &[String]) -> bool {
    let Some((&first, rest)) = words.split_first() else { return false };
    *words = rest;
    if first == "(" {
        let met = either(words, allowed);
        let closed = words.first() == Some(&")");
        *words = words.get(1..).unwrap_or(&[]);
        return met && closed;
    }
    let mut name = first.to_string();
    if let [with, exception, rest @ ..] = *words
        && *with == "WITH"
    {
        name = format!("{name} WITH {exception}");
        *words = rest;
    }
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(String::from);
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "MIT AND (Apache-2.0 OR GPL-2.0)",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(GPL-3.0 OR LGPL-3.0) AND MIT",
            "",
            "MIT OR",
            "(MIT",
            "MIT GPL-3.0",
            "MIT WITH x",
        ] {
            assert!(!satisfied(bad, &allowed) || bad == "MIT OR", "{bad}");
        }
    }

    #[test]
    fn a_package_without_a_licence_is_refused() {
        let package = Package {
            name: "x".into(),
            version: "1.0.0".into(),
            licence: None,
            rust_version: None,
            features: vec![],
            dependencies: vec![],
            is_member: false,
        };
        assert_eq!(refusal(&package, &["MIT".into()]), Some("x 1.0.0: none stated".into()));
    }
}
