//! Chooses between several installed versions.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use super::elf;
use super::places::{Places, entries, numbers};

/// A CUDA version: major, minor.
pub(in super::super) type Version = (u32, u32);

/// The CUDA versions that this crate supports.
pub(super) const MAJORS: [u32; 2] = [13, 12];

/// A library with several possible versions. The driver is not included: a machine has only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Library {
    Nvrtc,
    Cublas,
    Cudnn,
    Nccl,
}

impl Library {
    pub(super) const ALL: [Library; 4] = [Library::Nvrtc, Library::Cublas, Library::Cudnn, Library::Nccl];

    /// Returns the file name without a version, as requested by the bindings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Library::Nvrtc => "libnvrtc.so",
            Library::Cublas => "libcublas.so",
            Library::Cudnn => "libcudnn.so",
            Library::Nccl => "libnccl.so",
        }
    }

    /// Returns the version in the file name for a major CUDA version.
    pub(super) fn version(self, cuda: u32) -> u32 {
        match self {
            Library::Nvrtc | Library::Cublas => cuda,
            Library::Cudnn => 9,
            Library::Nccl => 2,
        }
    }
}

/// A library file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundLibrary {
    pub(super) file: PathBuf,
    /// The libraries that it requests by name only, which must be loaded first.
    pub(super) before: Vec<PathBuf>,
    /// The CUDA version, if the file names reveal it.
    version: Option<Version>,
    /// The index of its folder in the search order.
    rank: usize,
}

/// The files that were found for one major CUDA version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// The major CUDA version.
    pub(super) cuda: u32,
    /// The libraries, in the order of [`Library::ALL`].
    pub(super) found: [Option<FoundLibrary>; 4],
    /// The folder whose `include` contains the headers.
    pub(super) headers: Option<PathBuf>,
}

impl Choice {
    /// Returns the version with the fewest missing components. Ties are resolved in favor of a
    /// version that the driver supports, then the version found first in the search order, then the
    /// newest. A driver supports libraries of its own CUDA version and of older ones.
    pub(super) fn best(places: &Places, driver: Option<Version>) -> Option<Self> {
        let known = MAJORS.into_iter().filter(|&cuda| driver.is_none_or(|(newest, _)| cuda <= newest));
        let choices = known.map(|cuda| Choice::find(cuda, places, driver));
        choices.min_by_key(|choice| {
            let nvrtc = choice.found[0].as_ref();
            let too_new = nvrtc.is_some_and(|nvrtc| is_newer(nvrtc.version, driver));
            (choice.missing(), too_new, nvrtc.map(|nvrtc| nvrtc.rank), Reverse(choice.cuda))
        })
    }

    /// Finds the files of a major CUDA version.
    pub(super) fn find(cuda: u32, places: &Places, driver: Option<Version>) -> Self {
        let found = Library::ALL.map(|library| {
            let all: Vec<_> = (0..).zip(&places.folders).filter_map(|at| find(library, cuda, at)).collect();
            let fits = all.iter().position(|found| !is_newer(found.version, driver));
            all.into_iter().nth(fits.unwrap_or(0))
        });
        let exact = found[0].as_ref().and_then(|nvrtc| nvrtc.version);
        let headers = places.roots.iter().filter_map(|root| Some((root, headers(root)?)));
        let fit: Vec<_> = headers.filter(|(_, version)| version.is_none_or(|(major, _)| major == cuda)).collect();
        let same = fit.iter().find(|(_, version)| version.is_some() && *version == exact);
        let headers = same.or(fit.first()).map(|(root, _)| root.to_path_buf());
        Choice { cuda, found, headers }
    }

    /// Whether no component is missing, including those that only several GPUs need.
    pub(super) fn is_complete(&self) -> bool {
        self.missing() == 0 && self.found.iter().all(Option::is_some)
    }

    /// Returns the number of missing components that a single GPU needs.
    fn missing(&self) -> usize {
        let needed = Library::ALL.iter().zip(&self.found).filter(|&(&library, _)| library != Library::Nccl);
        needed.filter(|(_, found)| found.is_none()).count() + usize::from(self.headers.is_none())
    }
}

/// Whether a version is too new for the driver, as far as both are known.
fn is_newer(version: Option<Version>, driver: Option<Version>) -> bool {
    matches!((version, driver), (Some(version), Some(driver)) if version > driver)
}

/// Searches a folder for a library of a major CUDA version.
fn find(library: Library, cuda: u32, (rank, folder): (usize, &PathBuf)) -> Option<FoundLibrary> {
    let expected = library.version(cuda);
    let names = [format!("{}.{expected}", library.name()), library.name().into()];
    let file = names.into_iter().map(|name| folder.join(name)).find(|file| elf::is_library(file))?;
    // If the file is a symbolic link, the name of its target is more specific.
    let real = file.canonicalize().ok()?;
    let version = real.file_name()?.to_str()?.strip_prefix(library.name()).map(numbers)?;
    if version.first().is_some_and(|&version| version != expected) || made_for(&real).is_some_and(|made| made != cuda) {
        return None;
    }
    let found = |before, version| Some(FoundLibrary { file, before, version, rank });
    match library {
        Library::Nvrtc => {
            let builtins = entries(folder, &format!("libnvrtc-builtins.so.{cuda}."), "");
            let minor = version.get(1).copied().or_else(|| match &builtins[..] {
                [one] => numbers(one.file_name()?.to_str()?).get(1).copied(),
                _ => None,
            });
            found(builtins, minor.map(|minor| (cuda, minor)))
        }
        Library::Cublas => {
            let light = folder.join(format!("libcublasLt.so.{cuda}"));
            found(if light.is_file() { vec![light] } else { Vec::new() }, None)
        }
        Library::Cudnn | Library::Nccl => found(Vec::new(), None),
    }
}

/// Returns the CUDA version that a library is built for, if its package or path reveals it.
fn made_for(real: &Path) -> Option<u32> {
    let folder = real.parent()?;
    let major = |number: &str| number.split('.').next()?.parse().ok().filter(|major| MAJORS.contains(major));
    let of_folder = |name: &str| ["cuda-", "cu"].iter().find_map(|start| name.strip_prefix(start)).and_then(major);
    let names = || folder.components().rev().filter_map(|folder| folder.as_os_str().to_str());
    // Debian installs cuDNN in `libcudnn/13`.
    of_package(real).or_else(|| names().next().and_then(major)).or_else(|| names().find_map(of_folder))
}

/// Returns the CUDA version of a library `NAME` in `SITE/nvidia/NAME/lib`: the package
/// `nvidia-NAME-cu13` has a metadata folder in `SITE`.
fn of_package(real: &Path) -> Option<u32> {
    let package = real.parent()?.parent()?;
    let start = format!("nvidia_{}_cu", package.file_name()?.to_str()?);
    let versions = entries(package.parent()?.parent()?, &start, ".dist-info")
        .into_iter()
        .filter_map(|folder| numbers(folder.file_name()?.to_str()?).first().copied());
    let versions: Vec<u32> = versions.collect();
    // Two installed packages have overwritten each other's files.
    if let [one] = versions[..] { Some(one) } else { None }
}

/// Returns the version of the CUDA headers in a folder's `include`: `None` without headers,
/// `Some(None)` if their version is unknown.
pub(super) fn headers(root: &Path) -> Option<Option<Version>> {
    let include = root.join("include");
    include.join("cuda_runtime.h").is_file().then(|| {
        let text = std::fs::read_to_string(include.join("cuda_runtime_api.h")).ok()?;
        let number = text.lines().find_map(|line| line.trim().strip_prefix("#define CUDART_VERSION"))?;
        let number: u32 = number.trim().parse().ok()?;
        Some((number / 1000, number % 1000 / 10))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fake machine with the given files: each is a library, a text that follows `=`, or a link
    /// to the target after `->`.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(files: &[&str]) -> Self {
            let machine = Machine(tempfile::tempdir().unwrap());
            for file in files {
                let (name, content) = file.split_once('=').unwrap_or((file, ""));
                let (name, link) = name.split_once("->").unwrap_or((name, ""));
                let path = machine.path(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                match (link, content) {
                    ("", "") => std::fs::write(path, elf::start_of_library()).unwrap(),
                    ("", text) => std::fs::write(path, text).unwrap(),
                    (link, _) => std::os::unix::fs::symlink(link, path).unwrap(),
                }
            }
            machine
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(name)
        }

        /// Returns the chosen paths, relative to the machine: NVRTC, cuBLAS, cuDNN, NCCL, headers.
        fn chosen(&self, variables: &[(&str, &str)], driver: Option<Version>) -> (u32, [Option<String>; 5]) {
            let choice = Choice::best(&self.places(variables), driver).unwrap();
            let Choice { cuda, found: [nvrtc, cublas, cudnn, nccl], headers } = choice;
            let start = self.path("");
            let place = |path: PathBuf| path.strip_prefix(&start).unwrap().to_str().unwrap().to_owned();
            let file = |found: Option<FoundLibrary>| found.map(|found| place(found.file));
            (cuda, [file(nvrtc), file(cublas), file(cudnn), file(nccl), headers.map(place)])
        }

        fn places(&self, variables: &[(&str, &str)]) -> Places {
            let value = |name: &str| variables.iter().find(|(variable, _)| *variable == name);
            Places::new(|name| value(name).map(|(_, path)| self.path(path).into_os_string()), &self.path(""))
        }
    }

    /// The files of one version in a folder, as laid out by the wheels of CUDA 13.
    fn thirteen(folder: &str) -> Vec<String> {
        let names = ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libcublas.so.13", "libcublasLt.so.13"];
        names.iter().map(|name| format!("{folder}/{name}")).collect()
    }

    fn headers_of(folder: &str, version: u32) -> Vec<String> {
        let text = format!("{folder}/include/cuda_runtime_api.h=/* CUDA */\n#define CUDART_VERSION  {version}\n");
        vec![format!("{folder}/include/cuda_runtime.h= "), text]
    }

    fn machine(files: &[Vec<String>]) -> Machine {
        Machine::new(&files.iter().flatten().map(String::as_str).collect::<Vec<_>>())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    const SITE: &str = "venv/lib/python3.12/site-packages";
    const VENV: (&str, &str) = ("VIRTUAL_ENV", "venv");

    /// The wheels that PyTorch for CUDA 13 depends on.
    fn wheels_13() -> Vec<String> {
        let site = |names: &[&str]| names.iter().map(|name| format!("{SITE}/{name}")).collect::<Vec<_>>();
        let own = site(&["nvidia/cudnn/lib/libcudnn.so.9", "nvidia/nccl/lib/libnccl.so.2"]);
        let packages =
            site(&["nvidia_cudnn_cu13-9.13.0.50.dist-info/METADATA", "nvidia_nccl_cu13-2.28.dist-info/METADATA"]);
        let root = format!("{SITE}/nvidia/cu13");
        [thirteen(&format!("{root}/lib")), headers_of(&root, 13000), own, packages].concat()
    }

    #[test]
    fn the_wheels_of_cuda_13_are_found() {
        let machine = machine(&[wheels_13()]);
        let site = |name: &str| Some(format!("{SITE}/nvidia/{name}"));
        let expected = [
            site("cu13/lib/libnvrtc.so.13"),
            site("cu13/lib/libcublas.so.13"),
            site("cudnn/lib/libcudnn.so.9"),
            site("nccl/lib/libnccl.so.2"),
            site("cu13"),
        ];
        assert_eq!(machine.chosen(&[VENV], Some((13, 0))), (13, expected));
        let choice = Choice::best(&machine.places(&[VENV]), None).unwrap();
        assert!(choice.is_complete());
        let before = |library: usize| choice.found[library].as_ref().unwrap().before.clone();
        let folder = machine.path(SITE).join("nvidia/cu13/lib");
        assert_eq!(before(0), [folder.join("libnvrtc-builtins.so.13.0")]);
        assert_eq!(before(1), [folder.join("libcublasLt.so.13")]);
        // The same packages, as found by asking Python.
        let mut places = machine.places(&[]);
        assert!(!Choice::best(&places, None).unwrap().is_complete());
        places.python([machine.path(SITE)]);
        assert!(Choice::best(&places, None).unwrap().is_complete());
    }

    #[test]
    fn the_wheels_of_cuda_12_are_found() {
        let files =
            ["cuda_nvrtc/lib/libnvrtc.so.12", "cuda_nvrtc/lib/libnvrtc-builtins.so.12.8", "cublas/lib/libcublas.so.12"];
        let more = ["cudnn/lib/libcudnn.so.9", "nccl/lib/libnccl.so.2"];
        let files = files.iter().chain(&more).map(|file| format!("{SITE}/nvidia/{file}")).collect();
        let machine = machine(&[files, headers_of(&format!("{SITE}/nvidia/cuda_runtime"), 12080)]);
        let (cuda, found) = machine.chosen(&[VENV], Some((13, 0)));
        assert_eq!(cuda, 12);
        assert_eq!(found[0], Some(format!("{SITE}/nvidia/cuda_nvrtc/lib/libnvrtc.so.12")));
        assert_eq!(found[4], Some(format!("{SITE}/nvidia/cuda_runtime")));
        assert!(found.iter().all(Option::is_some));
    }

    #[test]
    fn a_toolkit_and_the_systems_libraries_are_found() {
        let toolkit = "usr/local/cuda-13.0";
        let links = names(&["usr/local/cuda->cuda-13.0", "usr/lib64/libcudnn.so.9", "usr/lib64/libnccl.so.2"]);
        let machine =
            machine(&[thirteen(&format!("{toolkit}/targets/x86_64-linux/lib")), links, headers_of(toolkit, 13000)]);
        let root = if cfg!(target_arch = "x86_64") { "usr/local/cuda" } else { return };
        let lib = format!("{root}/targets/x86_64-linux/lib");
        let (cuda, found) = machine.chosen(&[], None);
        assert_eq!(cuda, 13);
        assert_eq!(found[0], Some(format!("{lib}/libnvrtc.so.13")));
        assert_eq!(found[3..], [Some("usr/lib64/libnccl.so.2".into()), Some(root.into())]);
    }

    #[test]
    fn all_are_of_one_version_the_one_that_is_complete() {
        // CUDA 12 without cuDNN is on the loader's path, and all of CUDA 13 is in Python's
        // packages.
        let toolkit = names(&["usr/lib64/libnvrtc.so.12", "usr/lib64/libcublas.so.12"]);
        let files = [toolkit, headers_of("usr/local/cuda", 12080), wheels_13()];
        let (cuda, found) = machine(&files).chosen(&[VENV], None);
        assert_eq!(cuda, 13);
        assert!(found.iter().flatten().all(|file| file.starts_with(SITE)), "{found:?}");
        // With a cuDNN of unknown CUDA version, CUDA 12 is complete too. Folders named by the user
        // come first.
        let cudnn = names(&["mine/libcudnn.so.9", "mine/libnvrtc.so.12"]);
        let machine = machine(&[&files[..], &[cudnn]].concat());
        let named = [VENV, ("LD_LIBRARY_PATH", "mine")];
        assert_eq!(machine.chosen(&named, None).0, 12);
        assert_eq!(machine.chosen(&named, None).1[2].as_deref(), Some("mine/libcudnn.so.9"));
        assert_eq!(machine.chosen(&named, Some((13, 0))).0, 12);
        assert_eq!(machine.chosen(&named, None).1[4].as_deref(), Some("usr/local/cuda"));
    }

    #[test]
    fn the_driver_must_be_able_to_run_it() {
        let twelve = names(&["usr/lib64/libnvrtc.so.12", "usr/lib64/libcublas.so.12"]);
        let machine = machine(&[twelve, wheels_13()]);
        // CUDA 12 lacks cuDNN, but the driver cannot run CUDA 13.
        let (cuda, found) = machine.chosen(&[VENV], Some((12, 8)));
        assert_eq!((cuda, &found[2], &found[4]), (12, &None, &None));
        assert!(Choice::find(13, &machine.places(&[VENV]), None).is_complete());
        assert!(Choice::best(&machine.places(&[VENV]), Some((11, 8))).is_none());
    }

    #[test]
    fn of_two_compilers_the_one_that_the_driver_understands_is_taken() {
        let compilers = names(&["new/libnvrtc.so.13.1.2", "new/libnvrtc.so.13->libnvrtc.so.13.1.2"]);
        let old = names(&["old/libnvrtc.so.13", "old/libnvrtc-builtins.so.13.0"]);
        let headers = [headers_of("usr/local/cuda-13.1", 13010), headers_of("usr/local/cuda-13.0", 13000)].concat();
        let machine = machine(&[compilers, old, headers]);
        let path = std::env::join_paths([machine.path("new"), machine.path("old")]).unwrap();
        let places = Places::new(|name| (name == "LD_LIBRARY_PATH").then(|| path.clone()), &machine.path(""));
        for (driver, folder, toolkit) in
            [((13, 1), "new", "cuda-13.1"), ((13, 0), "old", "cuda-13.0"), ((13, 2), "new", "cuda-13.1")]
        {
            let Choice { found: [nvrtc, ..], headers, .. } = Choice::best(&places, Some(driver)).unwrap();
            assert_eq!(nvrtc.unwrap().file, machine.path(folder).join("libnvrtc.so.13"));
            assert_eq!(headers.unwrap(), machine.path("usr/local").join(toolkit));
        }
    }

    #[test]
    fn what_is_of_another_version_or_no_library_is_passed_over() {
        let machine = Machine::new(&[
            // A link without a version in its name has the version of its target. A file without
            // any version may be of any version.
            "a/libnvrtc.so->libnvrtc.so.12.4.1",
            "a/libnvrtc.so.12.4.1",
            "b/libnvrtc.so",
            "a/libcublas.so.13=INPUT(somewhere)",
            "a/libcudnn.so->libcudnn.so.8",
            "a/libcudnn.so.8",
            "usr/local/cuda-12.8/lib64/libcudnn.so.9",
            "usr/lib64/libnccl.so.2->/gone",
        ]);
        let path = std::env::join_paths([machine.path("a"), machine.path("b")]).unwrap();
        let places = Places::new(|name| (name == "LD_LIBRARY_PATH").then(|| path.clone()), &machine.path(""));
        let of = |cuda| Choice::find(cuda, &places, None).found.map(|found| found.map(|found| found.file));
        assert_eq!(of(13), [Some(machine.path("b/libnvrtc.so")), None, None, None]);
        let [nvrtc, _, cudnn, _] = of(12);
        assert_eq!(nvrtc, Some(machine.path("a/libnvrtc.so")));
        assert_eq!(cudnn, Some(machine.path("usr/local/cuda-12.8/lib64/libcudnn.so.9")));
    }

    #[test]
    fn headers_are_there_if_the_first_one_is() {
        let machine =
            machine(&[names(&["none/include/other.h= ", "old/include/cuda_runtime.h= "]), headers_of("new", 13010)]);
        assert_eq!(headers(&machine.path("none")), None);
        assert_eq!(headers(&machine.path("old")), Some(None));
        assert_eq!(headers(&machine.path("new")), Some(Some((13, 1))));
    }
}
