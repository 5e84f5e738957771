//! CUDA's libraries and headers, found where they lie, without a path that somebody has set.
//!
//! The bindings ask the loader for libraries by name, and the loader knows its own path alone: not Python's packages, nor each
//! toolkit, and for NCCL no name that is in use. So [`load`], before anybody asks, looks in [`places`], takes files that fit each
//! other and the driver ([`choice`]), loads them from where they are, and has the loader give them to whoever asks for the name
//! ([`alias`]). What those ask for in turn is then there as well: the loader takes what it has already.

use cudarc::driver::sys as driver;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

mod alias;
mod choice;
mod elf;
mod places;

pub(super) use alias::why;
use choice::{Choice, MAJORS};
pub(super) use choice::{Library, Version};
use places::{Places, ask_python};

/// What was found and loaded.
#[derive(Debug)]
pub(super) struct Libraries {
    /// Where was looked, in a few words.
    pub(super) looked_in: String,
    choice: Option<Choice>,
    places: Places,
    driver: Option<Version>,
    /// Why a file that was found could not be loaded.
    broken: Vec<(Library, String)>,
}

/// Finds the libraries and loads them, at the first call.
pub(super) fn load() -> &'static Libraries {
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        // Elsewhere the bindings find what is installed.
        let mut places = match cfg!(target_os = "linux") {
            true => Places::new(|name| std::env::var_os(name), Path::new("/")),
            false => Places::default(),
        };
        load_driver(&places);
        let driver = driver_version().ok().map(|version| (version as u32 / 1000, version as u32 % 1000 / 10));
        let mut choice = Choice::best(&places, driver);
        if cfg!(target_os = "linux") && !choice.as_ref().is_some_and(Choice::is_complete) {
            places.python(ask_python());
            choice = Choice::best(&places, driver);
        }
        let broken = choice.as_ref().map(load_all).unwrap_or_default();
        if let Some(headers) = choice.as_ref().and_then(|choice| choice.headers.as_deref()) {
            name_headers(headers);
        }
        Libraries { looked_in: places.summary(), choice, places, driver, broken }
    })
}

impl Libraries {
    /// Where a library that is loaded lies, or why it is not.
    pub(super) fn place(&self, library: Library, is_present: bool) -> Result<String, String> {
        if is_present {
            return Ok(elf::loaded(library.name()).unwrap_or_else(|| "found by the loader".into()));
        }
        let broken = self.broken.iter().find(|(broken, _)| *broken == library);
        Err(broken.map_or_else(|| self.why_not(library), |(_, why)| why.clone()))
    }

    /// The folder of the headers, or why there is none.
    pub(super) fn headers(&self) -> Result<PathBuf, String> {
        if let Some(headers) = self.choice.as_ref().and_then(|choice| choice.headers.as_ref()) {
            return Ok(headers.join("include"));
        }
        let other = self.places.roots.iter().find_map(|root| Some((root, choice::headers(root)??)));
        match (other, &self.choice) {
            (Some((root, (major, minor))), Some(choice)) => Err(format!(
                "expected those of CUDA {}, got {major}.{minor} in {}",
                choice.cuda,
                root.join("include").display()
            )),
            _ => Err("include/cuda_runtime.h not found".into()),
        }
    }

    fn why_not(&self, library: Library) -> String {
        let of = |cuda| Choice::find(cuda, &self.places, None).found[library as usize].clone();
        let chosen = self.choice.as_ref().map(|choice| choice.cuda);
        let other = MAJORS.into_iter().filter(|&cuda| Some(cuda) != chosen).find_map(|cuda| Some((cuda, of(cuda)?)));
        let Some((cuda, found)) = other else {
            let names = MAJORS.map(|cuda| format!("{}.{}", library.name(), library.version(cuda)));
            return if names[0] == names[1] {
                format!("{} not found", names[0])
            } else {
                format!("{} or {} not found", names[0], names[1])
            };
        };
        let file = found.file.display();
        match (self.driver, chosen) {
            (Some((major, minor)), _) if cuda > major => {
                format!("only found for CUDA {cuda}, got a driver for {major}.{minor}: {file}")
            }
            (_, Some(chosen)) => format!("only found for CUDA {cuda}, expected {chosen} as of the others: {file}"),
            _ => format!("only found for CUDA {cuda}: {file}"),
        }
    }
}

/// The name of the driver's library.
const DRIVER: &str = "libcuda.so.1";

/// Loads the driver: the loader's, or one where drivers put themselves.
fn load_driver(places: &Places) {
    let found = || {
        let files = places.folders.iter().map(|folder| folder.join(DRIVER)).filter(|file| elf::is_library(file));
        files.into_iter().find(|file| alias::load(file).is_ok())
    };
    let driver = match alias::load(Path::new(DRIVER)) {
        Ok(()) => Some(PathBuf::from(DRIVER)),
        Err(_) => found(),
    };
    if let Some(driver) = driver {
        // Without the alias the bindings ask for this name last.
        let _ = alias::add("libcuda.so", &driver);
    }
}

/// Where the driver lies, if it is loaded.
pub(super) fn driver_place() -> Option<String> {
    elf::loaded("libcuda.so")
}

/// Loads what was chosen, and says what could not be.
fn load_all(choice: &Choice) -> Vec<(Library, String)> {
    let found = Library::ALL.into_iter().zip(&choice.found);
    let load = |(library, found): (Library, &Option<choice::FoundLibrary>)| {
        let found = found.as_ref()?;
        let before = found.before.iter().try_for_each(|file| alias::load(file));
        let loaded =
            before.and_then(|()| alias::load(&found.file)).and_then(|()| alias::add(library.name(), &found.file));
        Some((library, loaded.err()?))
    };
    found.filter_map(load).collect()
}

/// Has Burn's backend take headers from here: it reads `CUDA_PATH`, else takes the first folder that there is of a few.
fn name_headers(root: &Path) {
    if cubecl::cuda::install::cuda_path().is_none_or(|path| path != root) {
        // SAFETY: Rust's own readers of the environment wait for this. Others that read it meanwhile would have to be
        // threads of C libraries, of which none has been loaded yet but CUDA's, which start no threads when they are loaded.
        unsafe { std::env::set_var("CUDA_PATH", root) };
    }
}

/// The newest version of CUDA that the driver runs, as `1000 * major + 10 * minor`.
pub(crate) fn driver_version() -> std::result::Result<i32, String> {
    let mut version = 0;
    // SAFETY: the library is there before it is called, and the call writes one integer.
    unsafe {
        if !driver::is_culib_present() {
            return Err("libcuda.so.1 not found".into());
        }
        match driver::cuDriverGetVersion(&mut version) {
            driver::CUresult::CUDA_SUCCESS => Ok(version),
            error => Err(format!("{error:?}")),
        }
    }
}
