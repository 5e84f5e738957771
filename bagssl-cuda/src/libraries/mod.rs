//! Finds the CUDA libraries and headers without requiring the user to set a path.
//!
//! The bindings request libraries by name, and the loader only searches its own path. That path
//! does not include Python packages or every toolkit. For NCCL, the bindings request names that are
//! not in use. So [`load`], which must be called before the bindings, searches [`places`] and
//! chooses files that match each other and the driver ([`choice`]). It loads them by path, and
//! makes the loader return them for the requested names ([`alias`]). Dependencies between these
//! libraries are then resolved too: the loader reuses libraries that are already loaded.

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

/// The libraries that were found and loaded.
#[derive(Debug)]
pub(super) struct Libraries {
    /// A short description of the searched locations.
    pub(super) looked_in: String,
    choice: Option<Choice>,
    places: Places,
    driver: Option<Version>,
    /// The libraries that were found but could not be loaded, with the reasons.
    broken: Vec<(Library, String)>,
}

/// Finds and loads the libraries at the first call.
pub(super) fn load() -> &'static Libraries {
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        // On other systems the bindings find the installed libraries themselves.
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
    /// Returns the path of a loaded library, or the reason why it is not loaded.
    pub(super) fn place(&self, library: Library, is_present: bool) -> Result<String, String> {
        if is_present {
            return Ok(elf::loaded(library.name()).unwrap_or_else(|| "found by the loader".into()));
        }
        let broken = self.broken.iter().find(|(broken, _)| *broken == library);
        Err(broken.map_or_else(|| self.why_not(library), |(_, why)| why.clone()))
    }

    /// Returns the folder of the headers, or the reason why there is none.
    pub(super) fn headers(&self) -> Result<PathBuf, String> {
        if let Some(headers) = self.choice.as_ref().and_then(|choice| choice.headers.as_ref()) {
            return Ok(headers.join("include"));
        }
        let other = self.places.roots.iter().find_map(|root| Some((root, choice::headers(root)??)));
        match (other, &self.choice) {
            (Some((root, (major, minor))), Some(choice)) => Err(format!(
                "expected headers of CUDA {}, got {major}.{minor} in {}",
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
                format!("found only for CUDA {cuda}, but the driver supports {major}.{minor}: {file}")
            }
            (_, Some(chosen)) => {
                format!("found only for CUDA {cuda}, expected {chosen} as for the other libraries: {file}")
            }
            _ => format!("found only for CUDA {cuda}: {file}"),
        }
    }
}

/// The file name of the driver's library.
const DRIVER: &str = "libcuda.so.1";

/// Loads the driver: the loader's, or one from the usual locations of drivers.
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
        // Without the alias, the bindings only try this name last.
        let _ = alias::add("libcuda.so", &driver);
    }
}

/// Returns the path of the driver's library, if it is loaded.
pub(super) fn driver_place() -> Option<String> {
    elf::loaded("libcuda.so")
}

/// Loads the chosen libraries and returns those that failed, with the reasons.
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

/// Makes Burn's backend use the headers of this folder. Burn's backend reads `CUDA_PATH`, or else
/// takes the first existing folder of a fixed list.
fn name_headers(root: &Path) {
    if cubecl::cuda::install::cuda_path().is_none_or(|path| path != root) {
        // SAFETY: Rust's own readers of the environment are synchronized with this call. Other
        // concurrent readers would have to be threads of C libraries. Only CUDA's libraries have
        // been loaded yet, and they start no threads when they are loaded.
        unsafe { std::env::set_var("CUDA_PATH", root) };
    }
}

/// Returns the newest CUDA version that the driver supports, as `1000 * major + 10 * minor`.
pub(crate) fn driver_version() -> std::result::Result<i32, String> {
    let mut version = 0;
    // SAFETY: the library is loaded before it is called, and the call writes one integer.
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
