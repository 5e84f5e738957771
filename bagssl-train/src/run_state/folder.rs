//! The folder of a run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::staged::{failed, remove_partial, sync_folder};
use super::states::is_state;
use crate::error::{Error, Result};

/// The settings of a run, as TOML.
pub const CONFIG: &str = "config.toml";
/// The lines of a run's steps.
pub const METRICS: &str = "metrics.jsonl";
/// What a run leaves for use.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The folder of the states that a run is resumed from.
pub const STATES: &str = "states";
/// What runs were resumed from before there was a folder of states.
pub const OLD_STATE: &str = "state.safetensors";
/// How the names of TensorBoard's files begin.
pub(crate) const EVENTS: &str = "events.out.tfevents.";

/// Who writes has it locked.
const LOCK: &str = "lock";
/// Where a run's files are put together before they are removed: as long as it has this name the run is to be restored.
const LEAVING: &str = ".leaving";
/// The same when the run is gone.
const GONE: &str = ".gone";

/// The folder of a run, which nobody else writes to until this is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    is_locked: bool,
    lock: File,
}

impl RunFolder {
    /// Makes the folder if there is none, and keeps others out. What a program that was killed has left half done is put
    /// right.
    ///
    /// # Errors
    /// [`Error::InUse`] if somebody else has it, [`Error::File`] if it cannot be written to.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| failed(path, error))?;
        let lock = path.join(LOCK);
        check_lock(&lock).map_err(|error| failed(&lock, error))?;
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let mut file = open.map_err(|error| failed(&lock, error))?;
        let is_locked = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: path.into(), holder: holder(&lock) }),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => false,
            Err(TryLockError::Error(error)) => return Err(failed(&lock, error)),
        };
        let signed = file.set_len(0).and_then(|()| file.write_all(own_name().as_bytes()));
        signed.map_err(|error| failed(&lock, error))?;
        let folder = RunFolder { path: path.into(), is_locked, lock: file };
        folder.put_right().map_err(|error| failed(path, error))?;
        Ok(folder)
    }

    /// Refuses to go on if the lock is no longer that of the folder's path: the folder has been moved or replaced, and what is at its path
    /// may be another's.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn check_held(&self) -> Result<()> {
        let lock = self.join(LOCK);
        match is_same(&self.lock, &lock) {
            Ok(true) => Ok(()),
            _ => {
                let why =
                    "expected the lock that this run holds, got another or none: the folder was moved or replaced";
                Err(failed(&lock, io::Error::other(why)))
            }
        }
    }

    /// Whether others are kept out: some file systems have no locks.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes the run that is there, as one act: whoever opens the folder after this was cut short finds all of it or
    /// nothing. Files that are not a run's stay, also those among its states.
    ///
    /// # Errors
    /// [`Error::File`] if that cannot be done; the run is still there.
    pub fn clear(&self) -> Result<()> {
        let (leaving, gone) = (self.join(LEAVING), self.join(GONE));
        let clear = || {
            self.gather()?;
            sync_folder(&leaving.join(STATES))?;
            sync_folder(&leaving)?;
            fs::rename(&leaving, &gone)?;
            sync_folder(&gone)
        };
        if let Err(error) = clear() {
            // The first error is the one to tell.
            let _ = self.put_right();
            return Err(failed(&self.path, error));
        }
        // What cannot be removed now is removed when the folder is opened again.
        let _ = fs::remove_dir_all(gone);
        Ok(())
    }

    /// Puts all files of the run together.
    fn gather(&self) -> io::Result<()> {
        let leaving = self.join(LEAVING);
        fs::create_dir(&leaving)?;
        for name in self.names()? {
            let (from, to) = (self.path.join(&name), leaving.join(&name));
            match name == STATES && from.symlink_metadata()?.is_dir() {
                true => gather_states(&from, &to)?,
                false => fs::rename(from, to)?,
            }
        }
        Ok(())
    }

    /// The files of the run.
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

    /// Restores a run that was not removed as a whole, and removes what was begun.
    fn put_right(&self) -> io::Result<()> {
        let leaving = self.join(LEAVING);
        if leaving.is_dir() {
            let states = self.join(STATES);
            // Some of them may have stayed, or what is not the run's.
            if leaving.join(STATES).symlink_metadata().is_ok_and(|meta| meta.is_dir()) && states.is_dir() {
                move_all(&leaving.join(STATES), &states)?;
            }
            move_all(&leaving, &self.path)?;
        }
        if self.join(GONE).is_dir() {
            fs::remove_dir_all(self.join(GONE))?;
        }
        remove_partial(&self.path)?;
        if self.join(STATES).is_dir() { remove_partial(&self.join(STATES)) } else { Ok(()) }
    }
}

/// Moves the states of a folder, and the folder if nothing else is in it.
fn gather_states(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if is_state(&entry.path()) && entry.file_type()?.is_file() {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    sync_folder(&to.join("a state"))?;
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
/// The longest name of a holder.
const LONGEST_NAME: u64 = 300;

/// Refuses a lock that is a link, no file, or somebody's own file.
fn check_lock(path: &Path) -> io::Result<()> {
    let refuse = |got: &str| Err(io::Error::other(format!("expected a file that locks a run, got {got}")));
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_symlink() => refuse("a link"),
        Ok(meta) if !meta.is_file() => refuse("a folder, a pipe or a device"),
        Ok(meta) if meta.len() > LONGEST_NAME => refuse("another file"),
        Ok(_) => match fs::read(path)? {
            name if name.is_empty() || name.starts_with(NAME.as_bytes()) => Ok(()),
            _ => refuse("another file"),
        },
    }
}

/// Whether an open file is the one of a name.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let (own, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    #[cfg(unix)]
    let is_same = {
        use std::os::unix::fs::MetadataExt as _;
        (own.dev(), own.ino()) == (there.dev(), there.ino())
    };
    // Elsewhere an open file cannot be moved.
    #[cfg(not(unix))]
    let is_same = own.is_file() && there.is_file();
    Ok(is_same)
}

/// What this program writes into the lock: which process of which machine it is.
fn own_name() -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let machine = machine.or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok());
    let process = std::process::id();
    match machine.as_deref().map(str::trim) {
        Some(machine) if !machine.is_empty() => format!("{NAME}{process} on {machine}"),
        _ => format!("{NAME}{process}"),
    }
}

/// What the holder of a lock has written into it, and how long ago.
fn holder(lock: &Path) -> String {
    let named = fs::read_to_string(lock).ok().filter(|name| !name.is_empty() && name.len() as u64 <= LONGEST_NAME);
    let named = named.unwrap_or_else(|| "another process".into());
    let since = fs::metadata(lock).and_then(|meta| meta.modified()).ok().and_then(|then| then.elapsed().ok());
    match since.map(|since| since.as_secs()) {
        Some(seconds @ 0..120) => format!("{named}, begun {seconds} s ago"),
        Some(seconds) => format!("{named}, begun {} h {} min ago", seconds / 3600, seconds / 60 % 60),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_state::write_whole;

    /// A run and a file that is none of its own.
    fn run(folder: &Path) -> RunFolder {
        let run = RunFolder::open(folder).unwrap();
        fs::create_dir_all(run.join(STATES)).unwrap();
        for name in [CONFIG, METRICS, CHECKPOINT, "events.out.tfevents.1.2", "states/step-1.safetensors", "notes.txt"] {
            write_whole(&run.join(name), name.as_bytes()).unwrap();
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
    fn who_comes_second_hears_who_is_there() {
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
    fn a_lock_of_others_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("run"), folder.path().join("victim"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(LOCK), "my own file").unwrap();
        let refused = || RunFolder::open(&path).unwrap_err().to_string();
        assert!(refused().contains("run/lock: expected a file that locks a run, got another file"), "{}", refused());
        assert_eq!(fs::read(path.join(LOCK)).unwrap(), b"my own file");
        #[cfg(unix)]
        {
            fs::write(&victim, "text").unwrap();
            fs::remove_file(path.join(LOCK)).unwrap();
            std::os::unix::fs::symlink(&victim, path.join(LOCK)).unwrap();
            assert!(refused().ends_with("got a link") && fs::read(&victim).unwrap() == b"text", "{}", refused());
        }
    }

    /// Another run may be where the folder was.
    #[test]
    fn a_folder_that_was_moved_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let first = RunFolder::open(&path).unwrap();
        first.check_held().unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        assert!(first.check_held().is_err());
        let second = RunFolder::open(&path).unwrap();
        let error = first.check_held().unwrap_err().to_string();
        assert!(error.contains("run/lock: expected the lock that this run holds, got another or none"), "{error}");
        second.check_held().unwrap();
    }

    #[test]
    fn a_run_is_removed_and_nothing_else() {
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
    fn what_others_have_put_among_the_states_stays() {
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
        run.gather().unwrap();
        assert_eq!(names(&states), with(&foreign));
        drop(run);
        let run = RunFolder::open(folder.path()).unwrap();
        assert_eq!((names(&states), names(folder.path())), (all.clone(), ALL.map(String::from).to_vec()));
        fs::create_dir_all(run.join(LEAVING).join(STATES)).unwrap();
        fs::rename(states.join(own[1]), run.join(LEAVING).join(STATES).join(own[1])).unwrap();
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
    fn a_removal_that_was_cut_short() {
        for moved in 0..=5 {
            let folder = tempfile::tempdir().unwrap();
            let run = run(folder.path());
            fs::create_dir(run.join(LEAVING)).unwrap();
            for name in run.names().unwrap().into_iter().take(moved) {
                fs::rename(run.join(&name), run.join(LEAVING).join(&name)).unwrap();
            }
            drop(run);
            let run = RunFolder::open(folder.path()).unwrap();
            assert_eq!(names(folder.path()), ALL, "{moved} files were on their way");
            assert_eq!(fs::read(run.join("states/step-1.safetensors")).unwrap(), b"states/step-1.safetensors");
            run.gather().unwrap();
            fs::rename(run.join(LEAVING), run.join(GONE)).unwrap();
            fs::remove_file(run.join(GONE).join(METRICS)).unwrap();
            drop(run);
            RunFolder::open(folder.path()).unwrap();
            assert_eq!(names(folder.path()), [LOCK, "notes.txt"]);
        }
    }

    #[test]
    fn what_cannot_be_removed_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path());
        // In the way of the last move.
        fs::create_dir_all(run.join(GONE).join("x")).unwrap();
        let error = run.clear().unwrap_err().to_string();
        assert!(error.contains(&*folder.path().to_string_lossy()), "{error}");
        assert_eq!(names(folder.path()), ALL);
    }
}
