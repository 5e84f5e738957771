//! Cargo's metadata of the workspace.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run;

/// A package, as described by cargo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    /// The package's source; `None` for packages of the workspace.
    pub(crate) source: Option<String>,
    pub(crate) rust_version: Option<String>,
    pub(crate) features: Vec<String>,
    /// The names of its dependencies, including those of its tests and build script.
    pub(crate) dependencies: Vec<String>,
    pub(crate) is_member: bool,
    /// Whether it is of the workspace and may be published.
    pub(crate) is_published: bool,
}

/// Returns all packages in the lock file.
pub(crate) fn packages() -> Result<Vec<Package>> {
    parse(&run::output(&mut run::cargo(&["metadata", "--format-version", "1", "--all-features", "--locked"]))?)
}

/// Returns the target directory.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let text = run::output(&mut run::cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let value: Value = serde_json::from_str(&text)?;
    Ok(value["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

fn parse(text: &str) -> Result<Vec<Package>> {
    let value: Value = serde_json::from_str(text)?;
    let members: Vec<&str> =
        value["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let packages = value["packages"].as_array().context("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().map(String::from);
    Ok(packages
        .iter()
        .map(|package| (package, package["id"].as_str().is_some_and(|id| members.contains(&id))))
        .map(|(package, is_member)| Package {
            name: text(&package["name"]).unwrap_or_default(),
            version: text(&package["version"]).unwrap_or_default(),
            license: text(&package["license"]),
            source: text(&package["source"]),
            rust_version: text(&package["rust_version"]),
            features: package["features"]
                .as_object()
                .into_iter()
                .flat_map(|features| features.keys().cloned())
                .collect(),
            dependencies: package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|dependency| text(&dependency["name"]))
                .collect(),
            is_member,
            // `publish = false` is an empty list of registries.
            is_published: is_member && package["publish"].is_null(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read() {
        let text = r#"{
            "workspace_members": ["path+file:///w/ours#0.1.0"],
            "packages": [
                {"id": "path+file:///w/ours#0.1.0", "name": "ours", "version": "0.1.0", "license": "MIT", "source": null,
                 "rust_version": "1.95", "features": {"default": [], "cuda": ["dep:x"]},
                 "dependencies": [{"name": "x", "kind": null}, {"name": "y", "kind": "dev"}]},
                {"id": "x", "name": "x", "version": "2.0.0", "license": null, "source": "registry+r",
                 "rust_version": null, "features": {}, "dependencies": []}
            ]}"#;
        let ours = Package {
            name: "ours".into(),
            version: "0.1.0".into(),
            license: Some("MIT".into()),
            source: None,
            rust_version: Some("1.95".into()),
            features: vec!["cuda".into(), "default".into()],
            dependencies: vec!["x".into(), "y".into()],
            is_member: true,
            is_published: true,
        };
        let theirs = Package {
            name: "x".into(),
            version: "2.0.0".into(),
            source: Some("registry+r".into()),
            ..Package::default()
        };
        assert_eq!(parse(text).unwrap(), [ours, theirs]);
        let private = parse(&text.replace("\"license\": \"MIT\"", "\"publish\": []")).unwrap();
        assert!(private[0].is_member && !private[0].is_published);
        assert!(parse("{}").is_err());
    }
}
