//! The folder of a run, with a single writer.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use bagssl_files::{create_folder, remove_partial, sync_folder_of};

use super::failed;
use super::states::is_state;
use crate::error::{Error, Result};

/// The settings of a run, as TOML.
pub const CONFIG: &str = "config.toml";
/// The metrics of a run, as JSON lines.
pub const METRICS: &str = "metrics.jsonl";
/// The final checkpoint of a run.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The folder of the states to resume from.
pub const STATES: &str = "states";
/// The file to resume from in earlier versions, which had no folder of states.
pub const OLD_STATE: &str = "state.safetensors";
/// The prefix of TensorBoard event files.
pub(crate) const EVENTS: &str = "events.out.tfevents.";

/// The lock file, held by the writing process.
const LOCK: &str = "lock";
/// The folder that collects a run's files before they are removed. While it has this name, the run
/// will be restored.
const REMOVING: &str = ".leaving";
/// The name of this folder once the removal is final.
const REMOVED: &str = ".gone";

/// The folder of a run, locked against other writers until this is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    is_locked: bool,
    lock: File,
}

impl RunFolder {
    /// Creates the folder if necessary and locks it. Repairs the leftovers of a process that was
    /// killed.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process holds the lock, [`Error::File`] if the folder cannot be
    /// written to.
    pub fn open(path: &Path) -> Result<Self> {
        create_folder(path).map_err(|error| failed(path, error))?;
        let lock = path.join(LOCK);
        check_lock_file(&lock).map_err(|error| failed(&lock, error))?;
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let mut file = open.map_err(|error| failed(&lock, error))?;
        let is_locked = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: path.into(), holder: holder(&lock) }),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => false,
            Err(TryLockError::Error(error)) => return Err(failed(&lock, error)),
        };
        let signed = file.set_len(0).and_then(|()| file.write_all(owner_name().as_bytes()));
        signed.map_err(|error| failed(&lock, error))?;
        let folder = RunFolder { path: path.into(), is_locked, lock: file };
        folder.repair().map_err(|error| failed(path, error))?;
        Ok(folder)
    }

    /// Checks that the lock file at the folder's path is still the one that this process holds. If
    /// it is not, the folder has been moved or replaced, and the path may belong to another run.
    ///
    /// # Errors
    /// [`Error::File`] if the lock is missing or belongs to another run.
    pub fn verify_lock(&self) -> Result<()> {
        let lock = self.join(LOCK);
        match is_same(&self.lock, &lock) {
            Ok(true) => Ok(()),
            _ => {
                let why = "expected this run's lock, got another or none: the folder was moved or replaced";
                Err(failed(&lock, io::Error::other(why)))
            }
        }
    }

    /// Whether other writers are locked out. Some file systems do not support locks.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes the existing run atomically: after an interruption, the next [`RunFolder::open`]
    /// restores the entire run or finishes the removal. Files that do not belong to a run are left
    /// alone.
    ///
    /// # Errors
    /// [`Error::File`] if the removal fails. The run is then restored.
    pub fn clear(&self) -> Result<()> {
        let (removing, removed) = (self.join(REMOVING), self.join(REMOVED));
        let clear = || {
            self.collect_files()?;
            sync_folder_of(&removing.join(STATES))?;
            sync_folder_of(&removing)?;
            fs::rename(&removing, &removed)?;
            sync_folder_of(&removed)
        };
        if let Err(error) = clear() {
            // The first error is the one to report.
            let _ = self.repair();
            return Err(failed(&self.path, error));
        }
        // Leftovers are removed when the folder is opened again.
        let _ = fs::remove_dir_all(removed);
        Ok(())
    }

    /// Moves all files of the run into the folder to be removed.
    fn collect_files(&self) -> io::Result<()> {
        let removing = self.join(REMOVING);
        fs::create_dir(&removing)?;
        for name in self.names()? {
            let (from, to) = (self.path.join(&name), removing.join(&name));
            match name == STATES && from.symlink_metadata()?.is_dir() {
                true => collect_states(&from, &to)?,
                false => fs::rename(from, to)?,
            }
        }
        Ok(())
    }

    /// Returns the names of the run's files.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if [CONFIG, METRICS, CHECKPOINT, STATES, OLD_STATE].contains(&&*name) || name.starts_with(EVENTS) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Restores a run whose removal was interrupted, and deletes leftovers and partially written
    /// files.
    fn repair(&self) -> io::Result<()> {
        let removing = self.join(REMOVING);
        if removing.is_dir() {
            let states = self.join(STATES);
            // Some of them may have stayed, or what is not the run's.
            if removing.join(STATES).symlink_metadata().is_ok_and(|meta| meta.is_dir()) && states.is_dir() {
                move_all(&removing.join(STATES), &states)?;
            }
            move_all(&removing, &self.path)?;
        }
        if self.join(REMOVED).is_dir() {
            fs::remove_dir_all(self.join(REMOVED))?;
        }
        remove_partial(&self.path)?;
        if self.join(STATES).is_dir() { remove_partial(&self.join(STATES)) } else { Ok(()) }
    }
}

/// Moves the states of a folder, and the folder if nothing else is in it.
fn collect_states(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if is_state(&entry.path()) && entry.file_type()?.is_file() {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    sync_folder_of(&to.join("a state"))?;
    match fs::remove_dir(from) {
        Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

/// Moves all that is in a folder into another, and removes the folder.
fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    fs::remove_dir(from)
}

/// How what this program writes into the lock begins.
const NAME: &str = "process ";
/// The maximum length of a lock file in bytes.
const MAX_NAME_BYTES: u64 = 300;

/// Rejects a lock path that is a symbolic link, not a regular file, or a file of another program.
fn check_lock_file(path: &Path) -> io::Result<()> {
    let refuse = |got: &str| Err(io::Error::other(format!("expected a run's lock file, got {got}")));
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_symlink() => refuse("a link"),
        Ok(meta) if !meta.is_file() => refuse("a folder, a pipe or a device"),
        Ok(meta) if meta.len() > MAX_NAME_BYTES => refuse("another file"),
        Ok(_) => match fs::read(path)? {
            name if name.is_empty() || name.starts_with(NAME.as_bytes()) => Ok(()),
            _ => refuse("another file"),
        },
    }
}

/// Whether an open file is the file at `path`.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let (own, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    #[cfg(unix)]
    let is_same = {
        use std::os::unix::fs::MetadataExt as _;
        (own.dev(), own.ino()) == (there.dev(), there.ino())
    };
    // On other systems an open file cannot be moved.
    #[cfg(not(unix))]
    let is_same = own.is_file() && there.is_file();
    Ok(is_same)
}

/// Returns the text for the lock file: the ids of this process and its machine.
fn owner_name() -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let machine = machine.or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok());
    let process = std::process::id();
    match machine.as_deref().map(str::trim) {
        Some(machine) if !machine.is_empty() => format!("{NAME}{process} on {machine}"),
        _ => format!("{NAME}{process}"),
    }
}

/// Describes the holder of a lock, and how long it has held it.
fn holder(lock: &Path) -> String {
    let named = fs::read_to_string(lock).ok().filter(|name| !name.is_empty() && name.len() as u64 <= MAX_NAME_BYTES);
    let named = named.unwrap_or_else(|| "another process".into());
    let since = fs::metadata(lock).and_then(|meta| meta.modified()).ok().and_then(|then| then.elapsed().ok());
    match since.map(|since| since.as_secs()) {
        Some(seconds @ 0..120) => format!("{named}, started {seconds} s ago"),
        Some(seconds) => format!("{named}, started {} h {} min ago", seconds / 3600, seconds / 60 % 60),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_files::write_atomic;

    /// Creates a run, and a file that does not belong to it.
    fn run(folder: &Path) -> RunFolder {
        let run = RunFolder::open(folder).unwrap();
        fs::create_dir_all(run.join(STATES)).unwrap();
        for name in [CONFIG, METRICS, CHECKPOINT, "events.out.tfevents.1.2", "states/step-1.safetensors", "notes.txt"] {
            write_atomic(&run.join(name), name.as_bytes()).unwrap();
        }
        run
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    const ALL: [&str; 7] = [CHECKPOINT, CONFIG, "events.out.tfevents.1.2", LOCK, METRICS, "notes.txt", STATES];

    #[test]
    fn second_writer_is_refused_with_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run");
        let first = RunFolder::open(&path).unwrap();
        assert!(first.is_locked());
        let error = RunFolder::open(&path).unwrap_err().to_string();
        let process = format!("process {}", std::process::id());
        assert!(error.contains("new/run: ") && error.contains(&process) && error.contains("s ago"), "{error}");
        drop(first);
        RunFolder::open(&path).unwrap();
    }

    #[test]
    fn foreign_lock_file_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("run"), folder.path().join("victim"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(LOCK), "my own file").unwrap();
        let refused = || RunFolder::open(&path).unwrap_err().to_string();
        assert!(refused().contains("run/lock: expected a run's lock file, got another file"), "{}", refused());
        assert_eq!(fs::read(path.join(LOCK)).unwrap(), b"my own file");
        #[cfg(unix)]
        {
            fs::write(&victim, "text").unwrap();
            fs::remove_file(path.join(LOCK)).unwrap();
            std::os::unix::fs::symlink(&victim, path.join(LOCK)).unwrap();
            assert!(refused().ends_with("got a link") && fs::read(&victim).unwrap() == b"text", "{}", refused());
        }
    }

    /// Another run may have taken the path.
    #[test]
    fn moved_folder_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let first = RunFolder::open(&path).unwrap();
        first.verify_lock().unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        assert!(first.verify_lock().is_err());
        let second = RunFolder::open(&path).unwrap();
        let error = first.verify_lock().unwrap_err().to_string();
        assert!(error.contains("run/lock: expected this run's lock, got another or none"), "{error}");
        second.verify_lock().unwrap();
    }

    #[test]
    fn clear_removes_only_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path());
        assert_eq!(names(folder.path()), ALL);
        run.clear().unwrap();
        assert_eq!(names(folder.path()), [LOCK, "notes.txt"]);
        run.clear().unwrap();
        assert_eq!(names(folder.path()), [LOCK, "notes.txt"]);
    }

    /// Among the states too: what is no state by its name, or has the name of one and is none.
    #[test]
    fn clear_keeps_foreign_files_in_states() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path());
        let states = run.join(STATES);
        fs::remove_file(states.join("step-1.safetensors")).unwrap();
        fs::create_dir_all(states.join("step-3.safetensors")).unwrap();
        let foreign = ["best.safetensors", "notes.txt", "step-x.safetensors", "step-4.safetensors.bak"];
        let own = ["step-00000007.safetensors", "step-00000008-milestone.safetensors", "step-00000009.damaged"];
        let with = |names: &[&str]| {
            let mut all: Vec<_> = names.iter().copied().chain(["step-3.safetensors"]).map(String::from).collect();
            all.sort();
            all
        };
        let all = with(&[&foreign[..], &own].concat());
        foreign.iter().chain(&own).for_each(|name| fs::write(states.join(name), name).unwrap());
        assert_eq!(names(&states), all);
        // Cut short before the end of it, after the states are on their way and after some of them: all comes back.
        run.collect_files().unwrap();
        assert_eq!(names(&states), with(&foreign));
        drop(run);
        let run = RunFolder::open(folder.path()).unwrap();
        assert_eq!((names(&states), names(folder.path())), (all.clone(), ALL.map(String::from).to_vec()));
        fs::create_dir_all(run.join(REMOVING).join(STATES)).unwrap();
        fs::rename(states.join(own[1]), run.join(REMOVING).join(STATES).join(own[1])).unwrap();
        drop(run);
        let run = RunFolder::open(folder.path()).unwrap();
        assert_eq!(names(&states), all);
        run.clear().unwrap();
        assert_eq!(names(folder.path()), [LOCK, "notes.txt", STATES]);
        assert_eq!(names(&states), with(&foreign));
        assert_eq!(fs::read(states.join(foreign[0])).unwrap(), b"best.safetensors");
    }

    /// Killed after any part of it, there is the whole run or nothing of it.
    #[test]
    fn interrupted_clear_is_repaired() {
        for moved in 0..=5 {
            let folder = tempfile::tempdir().unwrap();
            let run = run(folder.path());
            fs::create_dir(run.join(REMOVING)).unwrap();
            for name in run.names().unwrap().into_iter().take(moved) {
                fs::rename(run.join(&name), run.join(REMOVING).join(&name)).unwrap();
            }
            drop(run);
            let run = RunFolder::open(folder.path()).unwrap();
            assert_eq!(names(folder.path()), ALL, "{moved} files were on their way");
            assert_eq!(fs::read(run.join("states/step-1.safetensors")).unwrap(), b"states/step-1.safetensors");
            run.collect_files().unwrap();
            fs::rename(run.join(REMOVING), run.join(REMOVED)).unwrap();
            fs::remove_file(run.join(REMOVED).join(METRICS)).unwrap();
            drop(run);
            RunFolder::open(folder.path()).unwrap();
            assert_eq!(names(folder.path()), [LOCK, "notes.txt"]);
        }
    }

    #[test]
    fn failed_clear_restores_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path());
        // Blocks the last rename.
        fs::create_dir_all(run.join(REMOVED).join("x")).unwrap();
        let error = run.clear().unwrap_err().to_string();
        assert!(error.contains(&*folder.path().to_string_lossy()), "{error}");
        assert_eq!(names(folder.path()), ALL);
    }
}
