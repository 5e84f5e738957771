//! The possible locations of CUDA libraries and headers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Folders to search, in order of priority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Folders that may contain libraries.
    pub(super) folders: Vec<PathBuf>,
    /// Folders whose `include` may contain headers.
    pub(super) roots: Vec<PathBuf>,
    /// Folders of Python packages. Their CUDA packages are included in the lists above.
    pub(super) sites: Vec<PathBuf>,
}

/// The subfolder that CUDA's installer uses for this architecture.
const TARGET: &str = if cfg!(target_arch = "aarch64") { "targets/sbsa-linux" } else { "targets/x86_64-linux" };

/// The subfolder that Debian packages use for this architecture.
const MULTIARCH: &str = if cfg!(target_arch = "aarch64") { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" };

impl Places {
    /// Collects the places that can be found without running other programs: those named by
    /// environment variables, then the loader's path, toolkits and Python packages. `system` is `/`
    /// except in tests.
    pub(super) fn new(environment: impl Fn(&str) -> Option<OsString>, system: &Path) -> Self {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut places = Places::default();
        if let Some(path) = environment("LD_LIBRARY_PATH") {
            std::env::split_paths(&path).filter(|folder| folder.is_absolute()).for_each(|folder| places.folder(folder));
        }
        ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(variable).for_each(|root| places.root(root));
        for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable) {
            places.environment(environment);
        }
        loader_path(system).into_iter().for_each(|folder| places.folder(folder));
        places.root(system.join("usr/local/cuda"));
        let toolkits = entries(&system.join("usr/local"), "cuda-", "");
        toolkits
            .into_iter()
            .rev()
            .chain([system.join("opt/cuda"), system.join("usr")])
            .for_each(|root| places.root(root));
        let home = variable("HOME").map(|home| sites(&home.join(".local"))).unwrap_or_default();
        places.python(home.into_iter().chain([system.join("usr/lib/python3/dist-packages")]));
        // The locations of drivers under WSL, Kubernetes and NixOS.
        for folder in ["usr/lib/wsl/lib", "usr/local/nvidia/lib64", "run/opengl-driver/lib"] {
            places.folder(system.join(folder));
        }
        places
    }

    /// Adds the CUDA packages in these Python package folders.
    pub(super) fn python(&mut self, sites: impl IntoIterator<Item = PathBuf>) {
        for site in sites.into_iter().filter(|site| site.is_dir()) {
            if self.sites.contains(&site) {
                continue;
            }
            entries(&site.join("nvidia"), "", "").into_iter().for_each(|package| self.root(package));
            self.sites.push(site);
        }
    }

    /// Returns a short description of the searched locations.
    pub(super) fn summary(&self) -> String {
        let sites: Vec<_> = self.sites.iter().map(|site| site.display().to_string()).collect();
        let python = match &sites[..] {
            [] => "no Python packages found".into(),
            sites => format!("nvidia/* in {}", sites.join(", ")),
        };
        format!("LD_LIBRARY_PATH, CUDA_PATH, CUDA_HOME, the loader's path, /usr/local/cuda*, {python}")
    }

    /// Adds a folder that may contain libraries.
    fn folder(&mut self, folder: PathBuf) {
        if folder.is_dir() && !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }

    /// Adds a folder with subfolders of libraries and headers.
    fn root(&mut self, root: PathBuf) {
        let inner = root.join(TARGET);
        for folder in [root.join("lib64"), root.join("lib"), root.join("lib").join(MULTIARCH), inner.join("lib")] {
            self.folder(folder);
        }
        for root in [root, inner] {
            if root.join("include").is_dir() && !self.roots.contains(&root) {
                self.roots.push(root);
            }
        }
    }

    /// Adds a Python or conda environment.
    fn environment(&mut self, environment: PathBuf) {
        let sites = sites(&environment);
        self.root(environment);
        self.python(sites);
    }
}

/// Returns the Python package folders of an environment.
fn sites(environment: &Path) -> Vec<PathBuf> {
    let pythons = entries(&environment.join("lib"), "python3", "");
    pythons.into_iter().rev().map(|python| python.join("site-packages")).collect()
}

/// Lists the entries of a folder with this prefix and suffix, sorted with numbers compared by
/// value. Returns an empty list if the folder cannot be read.
pub(super) fn entries(folder: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end));
    names.sort_by_cached_key(|name| (numbers(name), name.clone()));
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// Returns the numbers in a name, in order.
pub(super) fn numbers(name: &str) -> Vec<u32> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Returns the folders of the loader's search path: configured ones, then the built-in ones.
fn loader_path(system: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    configured(&system.join("etc/ld.so.conf"), system, 0, &mut folders);
    let always =
        ["lib", "usr/lib"].into_iter().flat_map(|lib| [format!("{lib}/{MULTIARCH}"), format!("{lib}64"), lib.into()]);
    folders.extend(always.map(|folder| system.join(folder)));
    folders
}

/// Reads a configuration file of the loader. Each line is a folder, or `include` with a file
/// pattern such as `*.conf`.
fn configured(file: &Path, system: &Path, depth: u32, folders: &mut Vec<PathBuf>) {
    const DEEPEST: u32 = 4;
    let text = std::fs::read_to_string(file).unwrap_or_default();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        let within = |path: &str| system.join(path.trim_start_matches('/'));
        match line.strip_prefix("include ") {
            Some(pattern) if depth < DEEPEST => {
                let (folder, names) = pattern.trim().rsplit_once('/').unwrap_or(("etc", pattern.trim()));
                let (start, end) = names.split_once('*').unwrap_or((names, ""));
                for file in entries(&within(folder), start, end) {
                    configured(&file, system, depth + 1, folders);
                }
            }
            None if line.starts_with('/') => folders.push(within(line)),
            _ => {}
        }
    }
}

/// Returns the package folders of the first Python on the path. The list is empty if there is no
/// Python, or it does not respond in time.
pub(super) fn ask_python() -> Vec<PathBuf> {
    const LONGEST: Duration = Duration::from_secs(3);
    let script = r"import sys; print('\n'.join(sys.path))";
    let answer = |python| ask(Command::new(python).args(["-c", script]), LONGEST);
    let lines = ["python3", "python"].into_iter().find_map(answer).unwrap_or_default();
    lines.lines().map(PathBuf::from).filter(|site| site.is_absolute() && site.is_dir()).collect()
}

/// Returns the output of a program, or `None` if it fails or times out.
fn ask(command: &mut Command, longest: Duration) -> Option<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let begun = Instant::now();
    // The output fits into the pipe's buffer, so the program does not block on it.
    while child.try_wait().ok()?.is_none() {
        if begun.elapsed() > longest {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(system: &Path, folders: &[&str]) {
        folders.iter().for_each(|folder| std::fs::create_dir_all(system.join(folder)).unwrap());
    }

    #[test]
    fn what_the_user_names_comes_first_and_what_is_not_there_not_at_all() {
        let system = tempfile::tempdir().unwrap();
        let system = system.path();
        make(system, &["mine", "venv/lib/python3.12/site-packages/nvidia/cu13/lib", "toolkit/lib64", "usr/lib"]);
        make(system, &["venv/lib/python3.12/site-packages/nvidia/cu13/include", "usr/local/cuda-12.8/lib64"]);
        make(
            system,
            &["usr/local/cuda-13.0/lib64", "usr/local/cuda-9.0/lib64", "home/.local/lib/python3.11/site-packages"],
        );
        let environment = |name: &str| {
            let value = |path: &str| Some(system.join(path).into_os_string());
            match name {
                "LD_LIBRARY_PATH" => std::env::join_paths([system.join("mine"), "relative".into()]).ok(),
                "CUDA_PATH" => Some(OsString::new()),
                "CUDA_HOME" => value("toolkit"),
                "VIRTUAL_ENV" => value("venv"),
                "CONDA_PREFIX" => value("gone"),
                "HOME" => value("home"),
                _ => None,
            }
        };
        let places = Places::new(environment, system);
        let wheels = "venv/lib/python3.12/site-packages/nvidia/cu13";
        let expected = ["mine", "toolkit/lib64", "venv/lib", &format!("{wheels}/lib"), "usr/lib"];
        let toolkits = ["usr/local/cuda-13.0/lib64", "usr/local/cuda-12.8/lib64", "usr/local/cuda-9.0/lib64"];
        let expected: Vec<_> = expected.iter().chain(&toolkits).map(|folder| system.join(folder)).collect();
        assert_eq!(places.folders, expected);
        assert_eq!(places.roots, [system.join(wheels)]);
        let home = system.join("home/.local/lib/python3.11/site-packages");
        assert_eq!(places.sites, [system.join("venv/lib/python3.12/site-packages"), home]);
        assert!(places.summary().contains("venv/lib/python3.12/site-packages, "), "{}", places.summary());
    }

    #[test]
    fn the_loaders_configuration_is_followed() {
        let system = tempfile::tempdir().unwrap();
        let system = system.path();
        make(system, &["etc/ld.so.conf.d", "opt/first/lib", "opt/second/lib", "opt/hidden/lib"]);
        let write = |name: &str, text: &str| std::fs::write(system.join("etc").join(name), text).unwrap();
        write("ld.so.conf", "# what follows\ninclude /etc/ld.so.conf.d/*.conf\n/opt/second/lib # a note\n");
        write("ld.so.conf.d/a.conf", "/opt/first/lib\n/opt/gone/lib\ninclude /etc/ld.so.conf\n");
        write("ld.so.conf.d/a.text", "/opt/hidden/lib\n");
        let places = Places::new(|_| None, system);
        assert_eq!(places.folders, [system.join("opt/first/lib"), system.join("opt/second/lib")]);
        assert!(places.summary().ends_with("no Python packages found"));
    }

    #[test]
    fn a_python_that_does_not_answer_in_time_is_left() {
        let shell = |script, longest| ask(Command::new("sh").args(["-c", script]), longest);
        let long = Duration::from_secs(20);
        assert_eq!(shell("echo /a; echo /b", long).as_deref(), Some("/a\n/b\n"));
        assert_eq!(shell("echo /a; exit 1", long), None);
        assert_eq!(ask(&mut Command::new("/gone/python3"), long), None);
        let begun = Instant::now();
        assert_eq!(shell("exec sleep 20", Duration::from_millis(100)), None);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
