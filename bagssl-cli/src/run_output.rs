//! Checks where a run's folder may be, and whether its config file is unmodified.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use bagssl_data::Dataset;
use bagssl_train::config::flatten;
use bagssl_train::run_state::{CONFIG, METRICS, STATES};

use crate::config::RunConfig;
use crate::input::files;
use crate::terminal::output::note;

/// Checks that a run's folder is not inside the training images' folder or inside another run.
///
/// # Errors
/// If it is.
pub(crate) fn check_output(out: &Path, dataset: &Dataset) -> Result<()> {
    let resolve_links = resolve_links(out);
    let refuse = |what: &str, folder: &Path| {
        bail!("--out: expected a folder outside of {what}, got {} in {}", out.display(), folder.display())
    };
    if let Some(folder) = dataset.folder().filter(|folder| resolve_links.starts_with(self::resolve_links(folder))) {
        return refuse("the images", folder);
    }
    let is_run = |folder: &&Path| {
        let has = |name: &str| folder.join(name).symlink_metadata().is_ok();
        has(CONFIG) && (has(METRICS) || has(STATES))
    };
    match resolve_links.ancestors().skip(1).find(is_run) {
        Some(folder) => refuse("other runs", folder),
        None => Ok(()),
    }
}

/// Returns the path with symbolic links resolved, as far as the path exists.
fn resolve_links(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let stored = whole.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, mut resolve_links)) = stored else { return whole };
    for part in whole.strip_prefix(above).unwrap_or(Path::new("")).components() {
        match part {
            Component::ParentDir => drop(resolve_links.pop()),
            part => resolve_links.push(part),
        }
        // After `..` a component may exist again, and be a link.
        resolve_links = resolve_links.canonicalize().unwrap_or(resolve_links);
    }
    resolve_links
}

/// The settings that `--resume-from` may change, besides learning rates.
const MAY_CHANGE: [&str; 2] = ["schedule.epochs", "on_not_finite"];
const LEARNING_RATE: &str = ".learning_rate";

/// Writes the settings that a run resumes with. A file with the same settings stays unchanged. If a
/// user has changed the settings in the file, the error lists the differences and the file stays.
/// With `may_change`, settings that `--resume-from` may change are overwritten, with a note.
pub(crate) fn write_resumed(path: &Path, config: &RunConfig, may_change: bool) -> Result<()> {
    let text = config.to_toml()?;
    if path.symlink_metadata().is_err() {
        return files::write(path, text.as_bytes());
    }
    let origin = path.display().to_string();
    let advice = "the run does not read this file: restore or remove it, or pass it with --config";
    let stored = match String::from_utf8(files::read_text(path)?) {
        Ok(text) => RunConfig::parse(&config.name, &text, &origin),
        Err(_) => bail!("{origin}: expected text in UTF-8, got other bytes; {advice}"),
    };
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => bail!("{error}; {advice}"),
    };
    let differences = differences(&flatten(&stored), &flatten(config));
    if differences.is_empty() {
        return Ok(());
    }
    let is_free = |name: &str| MAY_CHANGE.contains(&name) || name.ends_with(LEARNING_RATE);
    if !may_change || !differences.iter().all(|(name, ..)| is_free(name)) {
        let [before, now] = [
            |(name, stored, _): &Difference| format!("{name} {stored}"),
            |(name, _, now): &Difference| format!("{name} {now}"),
        ]
        .map(|text| differences.iter().map(text).collect::<Vec<_>>().join(", "));
        bail!("{origin}: expected the settings of the run ({now}), got others ({before}); {advice}");
    }
    for (name, stored, now) in &differences {
        note!("{origin}: {name} was {stored}, is {now} from now on");
    }
    files::write(path, text.as_bytes())
}

/// A setting's name, its value in one configuration, and its value in the other.
type Difference = (String, String, String);

fn differences(stored: &[(String, String)], now: &[(String, String)]) -> Vec<Difference> {
    let value = |settings: &[(String, String)], name: &str| {
        settings.iter().find(|(other, _)| other == name).map_or("none".to_string(), |(_, value)| value.clone())
    };
    let mut names: Vec<&String> = stored.iter().chain(now).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let both = names.into_iter().map(|name| (name.clone(), value(stored, name), value(now, name)));
    both.filter(|(_, stored, now)| stored != now).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_train::preset::PRESETS;
    use std::fs;

    #[test]
    fn changed_config_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG);
        let mut config = RunConfig::preset(PRESETS[0]);
        write_resumed(&path, &config, false).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, config.to_toml().unwrap());
        let refused = |text: &str, may_change, words: &[&str]| {
            fs::write(&path, text).unwrap();
            let error = write_resumed(&path, &config, may_change).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        };
        let seed = format!("seed = {}", config.train.seed);
        let edited = text.replacen(&seed, "seed = 77", 1);
        for may_change in [false, true] {
            let words = ["config.toml: expected the settings of the run (seed 0), got others (seed 77); the run does"];
            refused(&edited, may_change, &words);
            refused("seed = = 1", may_change, &["config.toml line 1", "restore or remove it"]);
        }
        // A comment does not change the settings.
        let remarked = format!("# mine\n{text}");
        fs::write(&path, &remarked).unwrap();
        write_resumed(&path, &config, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), remarked);
        // Changes that --resume-from allows are written.
        config.train.schedule.epochs += 1;
        assert!(write_resumed(&path, &config, false).is_err());
        write_resumed(&path, &config, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), config.to_toml().unwrap());
    }

    /// After a folder that is not there, `..` leads back to what is.
    #[cfg(unix)]
    #[test]
    fn resolve_links_follows_links_after_missing_folders() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("images")).unwrap();
        std::os::unix::fs::symlink(root.join("images"), root.join("link")).unwrap();
        assert_eq!(resolve_links(&root.join("new/../link/run")), root.join("images/run"));
    }

    #[test]
    fn resolve_links_of_missing_paths() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("a")).unwrap();
        for path in ["a/b/c", "a/../a/b/c", "new/../a/b/c", "a/b/new/../c"] {
            assert_eq!(resolve_links(&root.join(path)), root.join("a/b/c"), "{path}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("a", root.join("link")).unwrap();
            assert_eq!(resolve_links(&root.join("link/b")), root.join("a/b"));
        }
    }
}
