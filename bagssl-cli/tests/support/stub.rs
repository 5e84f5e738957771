//! A stub of CUDA's libraries, under which the CUDA path runs on a CPU, and what it records.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The libraries of the stub, built.
pub(crate) struct Stub {
    source: PathBuf,
    libraries: PathBuf,
    kernels: PathBuf,
}

/// The stub, built once for all tests. `None`, and a line, where there is no compiler for it.
pub(crate) fn stub() -> Option<&'static Stub> {
    static STUB: OnceLock<Option<Stub>> = OnceLock::new();
    STUB.get_or_init(build).as_ref()
}

fn build() -> Option<Stub> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bagssl-cuda/tests/stub").canonicalize().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-stub");
    let [libraries, kernels] = ["libraries", "kernels"].map(|name| folder.join(name));
    fs::create_dir_all(&kernels).unwrap();
    let small = folder.join("small.cpp");
    fs::write(&small, "#include <barrier>\nint main() { std::barrier<> barrier(1); }\n").unwrap();
    let compiled =
        Command::new("c++").args(["-std=c++20", "-pthread", "-o"]).args([&folder.join("small"), &small]).output();
    if !(cfg!(target_os = "linux") && compiled.is_ok_and(|output| output.status.success())) {
        eprintln!("skipped: no Linux with a C++20 compiler found as c++");
        return None;
    }
    // What the libraries were made of, so that they are made again when it changes.
    let mut texts = vec![source.display().to_string()];
    let mut files: Vec<_> = fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    texts.extend(files.iter().filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()));
    let (made_of, stamp) = (texts.concat(), libraries.join("made-of"));
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&made_of) {
        let output = Command::new("sh").arg(source.join("build.sh")).arg(&libraries).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(stamp, made_of).unwrap();
    }
    Some(Stub { source, libraries, kernels })
}

/// What a run said and what the stub recorded.
pub(crate) struct Run {
    pub(crate) output: Output,
    pub(crate) record: Record,
}

impl Run {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The same run, which has to have succeeded without a call that the stub found wrong.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.output.status.success(), "{}\n{}", self.stderr(), self.record.tail());
        assert_eq!(self.record.faults(), Vec::<&str>::new(), "{}", self.stderr());
        self
    }
}

impl Stub {
    /// Runs the program in a folder with these libraries as CUDA's. `variables` are the stub's (and other) ones.
    pub(crate) fn bagssl(&self, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        self.bagssl_with(&self.libraries, folder, arguments, variables)
    }

    /// The same without one of the libraries.
    pub(crate) fn bagssl_without(&self, library: &str, folder: &Path, arguments: &[&str]) -> Run {
        let libraries = folder.join("libraries");
        fs::create_dir_all(&libraries).unwrap();
        for entry in fs::read_dir(&self.libraries).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            if !name.to_string_lossy().starts_with(library) {
                fs::copy(&path, libraries.join(name)).unwrap();
            }
        }
        self.bagssl_with(&libraries, folder, arguments, &[])
    }

    /// The kernels that NVRTC was given so far, as it was given them.
    pub(crate) fn sources(&self) -> Vec<String> {
        let files = fs::read_dir(&self.kernels).unwrap().map(|entry| entry.unwrap().path());
        let sources = files.filter(|path| path.extension().is_some_and(|end| end == "cu"));
        sources.map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    fn bagssl_with(&self, libraries: &Path, folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        let log = folder.join("record.txt");
        let _ = fs::remove_file(&log);
        let output = Command::new(env!("CARGO_BIN_EXE_bagssl"))
            .args(arguments)
            .current_dir(folder)
            .env("LD_LIBRARY_PATH", libraries)
            .env("CUDA_PATH", &self.source)
            .env("CUDA_STUB_CACHE", &self.kernels)
            .env("CUDA_STUB_LOG", &log)
            // Plans of convolutions and tuned kernels that other runs have found are not looked at.
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .env("HOME", folder)
            // The program's own settings of Burn's backend apply.
            .env_remove("CUBECL_AUTOTUNE_LEVEL")
            .env("RUST_BACKTRACE", "0")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Run { output, record: Record(fs::read_to_string(log).unwrap_or_default().lines().map(String::from).collect()) }
    }
}

/// The calls, a line each.
pub(crate) struct Record(Vec<String>);

impl Record {
    /// What the stub found wrong.
    pub(crate) fn faults(&self) -> Vec<&str> {
        // Engines of cuDNN that do not run are part of the stub, and some calls are made to fail.
        let expected = ["this engine does not run", "CUDA_STUB_FAIL", "as CUDA_STUB_FAIL says"];
        let lines = self.0.iter().map(String::as_str).filter(|line| line.starts_with('!'));
        lines.filter(|line| !expected.iter().any(|end| line.ends_with(end))).collect()
    }

    pub(crate) fn lines(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn tail(&self) -> String {
        self.0[self.0.len().saturating_sub(20)..].join("\n")
    }

    /// The lines of each step of training: up to and with the last launch of the optimizer's kernels in a row.
    pub(crate) fn steps(&self) -> Vec<&[String]> {
        let is_launch = |line: &String| line.starts_with("cuLaunchKernel ") || line.starts_with("cudnn ");
        let is_step = |line: &String| line.starts_with("cuLaunchKernel step_");
        let launches: Vec<usize> = (0..self.0.len()).filter(|&at| is_launch(&self.0[at])).collect();
        let mut ends = Vec::new();
        for (place, &at) in launches.iter().enumerate() {
            let next = launches.get(place + 1).map(|&next| &self.0[next]);
            if is_step(&self.0[at]) && !next.is_some_and(is_step) {
                ends.push(at + 1);
            }
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(&ends).map(|(start, &end)| &self.0[start..end]).collect()
    }
}

/// How often each function is called in some lines, launches by their kernel.
pub(crate) fn counts(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let name = match words.next() {
            Some("cuLaunchKernel" | "cudnn") => line.split(' ').take(2).collect::<Vec<_>>().join(" "),
            other => other.unwrap_or_default().to_string(),
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

/// The sum of a figure over the calls of a function in some lines.
pub(crate) fn sum(lines: &[String], function: &str, figure: &str) -> u64 {
    let of = |line: &String| {
        line.split(' ').find_map(|word| word.strip_prefix(figure)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    lines.iter().filter(|line| line.split(' ').next() == Some(function)).filter_map(of).sum()
}
