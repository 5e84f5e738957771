//! The examples gate: the examples of the published crates run.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{metadata, run};

/// The examples that run without arguments.
const RUN: [&str; 7] = ["patches", "batches", "presets", "probe", "embed", "report", "export_onnx"];

/// What those get that need arguments; they work in an empty folder.
const ARGUMENTS: [(&str, &[&str]); 2] =
    [("export_onnx", &["--random", "resnet-small", "random.safetensors", "model.onnx"]), ("report", &["pages"])];

/// The examples that are only compiled, and why.
const COMPILED: [(&str, &str); 3] = [
    ("index_open", "writes 0.7 GB"),
    ("baselines", "takes minutes; the tests cover what it measures"),
    ("digest_cost", "a benchmark, which needs a release build"),
];

pub(crate) fn check(features: &str) -> Result<()> {
    let programs = build(features)?;
    let names: Vec<&str> = programs.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(found) = unlisted(&names) {
        bail!("{found}");
    }
    let folder = metadata::target_folder()?.join("examples");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (name, path) in programs.iter().filter(|(name, _)| RUN.contains(&name.as_str())) {
        let arguments = ARGUMENTS.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, arguments)| arguments);
        let output = run::output(Command::new(path).args(arguments).current_dir(&folder))?;
        println!("  {name}: {} lines", output.lines().count());
    }
    for (name, why) in COMPILED {
        println!("  {name}: not run: {why}");
    }
    Ok(())
}

/// Compiles the examples as the tests do, so that little is left to do after these, and returns those of published crates.
fn build(features: &str) -> Result<Vec<(String, PathBuf)>> {
    let published: Vec<_> = metadata::packages()?.into_iter().filter(|package| package.is_published).collect();
    let mut command = run::cargo(&["build", "--workspace", "--examples", "--locked", "--features", features]);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    eprintln!("  $ {}", run::show(&command));
    let output = command.spawn().and_then(std::process::Child::wait_with_output).context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the examples do not build: {}", output.status);
    }
    let all = String::from_utf8(output.stdout)?;
    let of_published =
        |manifest: &str| published.iter().any(|package| manifest.ends_with(&format!("{}/Cargo.toml", package.name)));
    Ok(all
        .lines()
        .filter_map(example)
        .filter(|(manifest, ..)| of_published(manifest))
        .map(|(_, name, path)| (name, path))
        .collect())
}

/// The manifest, the name and the program of the example that a line of cargo's messages is about.
fn example(line: &str) -> Option<(String, String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["target"]["kind"][0] != "example" {
        return None;
    }
    let text = |value: &Value| value.as_str().map(String::from);
    Some((text(&message["manifest_path"])?, text(&message["target"]["name"])?, message["executable"].as_str()?.into()))
}

/// What is wrong if these are not the examples that are listed here.
fn unlisted(names: &[&str]) -> Option<String> {
    let listed = || RUN.into_iter().chain(COMPILED.map(|(name, _)| name));
    let unknown = names.iter().find(|name| listed().all(|known| known != **name));
    let gone = listed().find(|known| !names.contains(known));
    let unknown = unknown.map(|name| format!("{name}: example not listed in xtask/src/ci/examples.rs"));
    unknown.or(gone.map(|name| format!("{name}: expected an example, got none")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_example_is_listed() {
        let all: Vec<&str> = RUN.into_iter().chain(COMPILED.map(|(name, _)| name)).collect();
        assert_eq!(unlisted(&all), None);
        assert!(unlisted(&[&all[..], &["new"]].concat()).unwrap().starts_with("new: example not listed"));
        assert!(unlisted(&all[1..]).unwrap().starts_with("patches: expected an example"));
    }

    #[test]
    fn an_example_is_read() {
        let line = |kind: &str| {
            format!(
                r#"{{"reason": "compiler-artifact", "manifest_path": "/w/bagssl-core/Cargo.toml",
                   "executable": "/t/examples/x", "target": {{"kind": ["{kind}"], "name": "x"}}}}"#
            )
        };
        let expected = ("/w/bagssl-core/Cargo.toml".into(), "x".into(), "/t/examples/x".into());
        assert_eq!(example(&line("example")), Some(expected));
        assert_eq!(example(&line("bin")), None);
        assert_eq!(example("warning: something"), None);
    }
}
