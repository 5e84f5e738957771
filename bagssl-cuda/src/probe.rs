//! Detects the CUDA components of this machine.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cudarc::driver::sys as driver;
use cudarc::{cublas, cudnn, nccl, nvrtc};

use super::libraries::{self, Libraries, Library, Version, driver_version};
use super::settings;
pub use crate::gpu::Gpu;
use bagssl_train::error::{Error, Result};

/// The oldest supported driver, as `1000 * major + 10 * minor`: the first with context-wide events.
const OLDEST_DRIVER: i32 = 12050;

/// The headers that Burn's run-time compiled kernels include.
const HEADERS: [&str; 3] = ["cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h"];

/// The header that only Burn's tensor-core matrix products include. A separate Python package
/// provides it.
const PRODUCTS: &str = "crt/mma.h";

/// The CUDA components of this machine that the CUDA backend needs. Returned by [`probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The components, in the order in which they are needed.
    pub parts: Vec<Part>,
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// NCCL, which is only needed for training on several GPUs.
    pub nccl: Part,
    /// A description of the searched locations.
    pub looked_in: String,
}

/// A CUDA component: a library or the headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The name.
    pub name: &'static str,
    /// The version and location, or the reason why it is unusable.
    pub found: std::result::Result<String, String>,
    /// Instructions for installing it.
    pub help: &'static str,
}

impl Report {
    /// Whether no required component is missing.
    pub fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }

    /// Returns a line for each missing component, with installation instructions.
    pub fn missing(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.parts.iter().filter_map(Part::missing).collect();
        let driver = self.parts.iter().any(|part| part.name == DRIVER && part.found.is_ok());
        if driver && self.gpus.is_empty() {
            lines.push("GPU: the driver found none; check `nvidia-smi` and CUDA_VISIBLE_DEVICES".into());
        }
        if self.parts.iter().any(|part| part.found.is_err()) {
            lines.push(format!("searched {}", self.looked_in));
        }
        lines
    }
}

impl Part {
    /// Returns a line with installation instructions if the component is missing.
    fn missing(&self) -> Option<String> {
        self.found.as_ref().err().map(|why| format!("{}: {why}; {}", self.name, self.help))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Part { name, found, help } = self;
        match found {
            Ok(found) => write!(f, "{name:<14} {found}"),
            Err(why) => write!(f, "{name:<14} missing: {why}; {help}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            writeln!(f, "{part}")?;
        }
        if self.gpus.len() > 1 {
            writeln!(f, "{}", self.nccl)?;
        }
        for (index, Gpu { name, memory, capability }) in self.gpus.iter().enumerate() {
            let gib = *memory as f64 / f64::from(1u32 << 30);
            let (major, minor) = capability;
            writeln!(f, "GPU {index:<10} {name}, {gib:.1} GiB, compute capability {major}.{minor}")?;
        }
        if self.parts.iter().any(|part| part.found.is_err()) {
            writeln!(f, "{:<14} {}", "searched", self.looked_in)?;
        }
        Ok(())
    }
}

const DRIVER: &str = "NVIDIA driver";

/// Searches the loader's path, CUDA toolkits and Python packages for the components that the CUDA
/// backend needs, and loads them. Uses no device and never panics, whatever is missing.
pub fn probe() -> Report {
    let libraries = libraries::load();
    let version = guarded(driver_version);
    let driver = version.clone().and_then(|version| match version >= OLDEST_DRIVER {
        true => Ok(at(&text(cuda(version)), libraries::driver_place())),
        false => Err(format!("expected CUDA 12.5 or later, got {}", text(cuda(version)))),
    });
    let gpus = match driver {
        Ok(_) => guarded(gpus).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let part = |name, help, found| Part { name, found, help };
    let compiler = guarded(nvrtc_version).ok();
    let newest = version.ok().map(cuda);
    let parts = vec![
        part(DRIVER, "install NVIDIA's driver 555 or later", driver),
        part("cuDNN", CUDNN, guarded(|| cudnn(libraries, compiler))),
        part("cuBLAS", CUBLAS, guarded(|| cublas(libraries, compiler))),
        part("NVRTC", NVRTC, guarded(|| nvrtc(libraries, newest))),
        part("CUDA headers", CUDA_HEADERS, libraries.headers().and_then(|include| headers(&include))),
    ];
    let nccl = part("NCCL", NCCL, guarded(|| nccl(libraries)));
    Report { parts, gpus, nccl, looked_in: libraries.looked_in.clone() }
}

const CUDNN: &str =
    "install cuDNN 9 for CUDA 12 or 13 (`pip install nvidia-cudnn-cu13`), or add its folder to LD_LIBRARY_PATH";
const CUBLAS: &str =
    "install cuBLAS for CUDA 12 or 13 (`pip install nvidia-cublas`), or add its folder to LD_LIBRARY_PATH";
const NVRTC: &str =
    "install NVRTC for CUDA 12 or 13 (`pip install nvidia-cuda-nvrtc`), or add its folder to LD_LIBRARY_PATH";
const CUDA_HEADERS: &str = "install the CUDA 12 or 13 toolkit or its headers (`pip install nvidia-cuda-runtime`), or \
                            set CUDA_PATH to a folder whose include/ contains them";
const NCCL: &str =
    "install NCCL 2 for CUDA 12 or 13 (`pip install nvidia-nccl-cu13`), or add its folder to LD_LIBRARY_PATH";

/// Checks that the CUDA backend can run on this machine. Must be called before the first tensor is
/// created on a GPU: Burn's backend panics if a component is missing.
///
/// # Errors
/// [`Error::Cuda`] with all missing components and installation instructions.
pub fn require() -> Result<()> {
    let report = probe();
    match report.missing() {
        missing if missing.is_empty() => {
            let compiler = guarded(nvrtc_version).map_err(Error::Cuda)?;
            settings::apply(&text(compiler), &report.gpus);
            Ok(())
        }
        missing => Err(Error::Cuda(missing.join("; "))),
    }
}

/// Checks that these GPUs can train as one group.
///
/// # Errors
/// As [`require`], and if NCCL is missing or a GPU index does not exist.
pub(super) fn require_nccl(gpus: &[usize]) -> Result<()> {
    let report = probe();
    let mut missing = report.missing();
    missing.extend(report.nccl.missing());
    if missing.is_empty()
        && let Some(gpu) = gpus.iter().find(|&&gpu| gpu >= report.gpus.len())
    {
        missing.push(format!("GPU {gpu}: expected an index below {} (the number of GPUs)", report.gpus.len()));
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Cuda(missing.join("; "))) }
}

/// Runs a call into a library and converts a panic to an error: the bindings panic if a library
/// lacks a function.
fn guarded<T>(call: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("the library lacks a required function".into()))
}

/// Decodes a CUDA version number.
fn cuda(number: i32) -> Version {
    (number as u32 / 1000, number as u32 % 1000 / 10)
}

fn text((major, minor): Version) -> String {
    format!("{major}.{minor}")
}

/// Formats a version with the path of its file.
fn at(version: &str, place: Option<String>) -> String {
    place.map_or_else(|| version.to_owned(), |place| format!("{version} ({place})"))
}

/// Checks that a library is built for the same major CUDA version as the compiler.
fn same(cuda: u32, compiler: Option<Version>, place: &str) -> std::result::Result<(), String> {
    match compiler {
        Some((major, _)) if major != cuda => {
            Err(format!("expected a version for CUDA {major} (as NVRTC), got one for {cuda}: {place}"))
        }
        _ => Ok(()),
    }
}

fn cudnn(libraries: &Libraries, compiler: Option<Version>) -> std::result::Result<String, String> {
    // SAFETY: this only tries to load a library.
    let place = libraries.place(Library::Cudnn, unsafe { cudnn::sys::is_culib_present() })?;
    // SAFETY: the library is loaded before it is called, and the calls take no arguments. The
    // presence of the second function is checked first.
    let (version, made_for) = unsafe {
        let made_for = cudnn::sys::culib().get::<unsafe extern "C" fn() -> usize>(b"cudnnGetCudartVersion\0");
        (cudnn::sys::cudnnGetVersion(), made_for.ok().map(|version| version()))
    };
    if version < 90000 {
        return Err(format!("expected version 9, got {version}: {place}"));
    }
    made_for.map_or(Ok(()), |made_for| same(made_for as u32 / 1000, compiler, &place))?;
    Ok(at(&format!("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100), Some(place)))
}

fn cublas(libraries: &Libraries, compiler: Option<Version>) -> std::result::Result<String, String> {
    use cublas::sys::libraryPropertyType::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
    // SAFETY: this only tries to load a library.
    let place = libraries.place(Library::Cublas, unsafe { cublas::sys::is_culib_present() })?;
    let [major, minor, patch] = [MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL].map(|part| {
        let mut value = 0;
        // SAFETY: the library is loaded before it is called, and the call writes one integer.
        unsafe { cublas::sys::cublasGetProperty(part, &mut value) };
        value
    });
    same(major as u32, compiler, &place)?;
    Ok(at(&format!("{major}.{minor}.{patch}"), Some(place)))
}

fn nvrtc(libraries: &Libraries, newest: Option<Version>) -> std::result::Result<String, String> {
    // SAFETY: this only tries to load a library.
    let place = libraries.place(Library::Nvrtc, unsafe { nvrtc::sys::is_culib_present() })?;
    let version = nvrtc_version()?;
    understood(version, newest)?;
    Ok(at(&text(version), Some(place)))
}

/// Checks that the driver supports the compiler's output, which has the compiler's version.
fn understood(compiler: Version, driver: Option<Version>) -> std::result::Result<(), String> {
    match driver {
        Some(newest) if compiler > newest => {
            Err(format!("expected at most {} (supported by the driver), got {}", text(newest), text(compiler)))
        }
        _ => Ok(()),
    }
}

fn nvrtc_version() -> std::result::Result<Version, String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is loaded before it is called, and the call writes two integers.
    unsafe {
        if !nvrtc::sys::is_culib_present() {
            return Err("libnvrtc not found".into());
        }
        nvrtc::sys::nvrtcVersion(&mut major, &mut minor);
    }
    Ok((major as u32, minor as u32))
}

fn nccl(libraries: &Libraries) -> std::result::Result<String, String> {
    // SAFETY: this only tries to load a library.
    let place = libraries.place(Library::Nccl, unsafe { nccl::sys::is_culib_present() })?;
    let mut version = 0;
    // SAFETY: the library is loaded before it is called, and the call writes one integer.
    unsafe { nccl::sys::ncclGetVersion(&mut version) };
    match version {
        20000.. => Ok(at(&format!("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100), Some(place))),
        other => Err(format!("expected version 2.9 or later, got {other}: {place}")),
    }
}

/// Checks which headers a folder contains.
fn headers(include: &Path) -> std::result::Result<String, String> {
    match HEADERS.iter().find(|header| !include.join(header).is_file()) {
        Some(header) => Err(format!("{} not found", include.join(header).display())),
        None if include.join(PRODUCTS).is_file() => Ok(include.display().to_string()),
        None => Ok(format!(
            "{}, without {PRODUCTS}: Burn's own matrix products run without tensor cores (for CUDA 13: `pip install \
             nvidia-cuda-crt`)",
            include.display()
        )),
    }
}

fn gpus() -> std::result::Result<Vec<Gpu>, String> {
    let check = |result: driver::CUresult| match result {
        driver::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(format!("{error:?}")),
    };
    let mut count = 0;
    // SAFETY: the driver is loaded, and each call writes at most one integer.
    unsafe {
        check(driver::cuInit(0))?;
        check(driver::cuDeviceGetCount(&mut count))?;
    }
    (0..count).map(|index| gpu(index).ok_or_else(|| format!("GPU {index} cannot be queried"))).collect()
}

/// Queries a GPU's properties. The driver must be initialized.
pub(super) fn gpu(index: i32) -> Option<Gpu> {
    use driver::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let (mut device, mut memory, mut major, mut minor) = (0, 0usize, 0, 0);
    let mut name = [0 as std::ffi::c_char; 128];
    // SAFETY: each call writes one value. The name is limited to the given length, including a
    // final zero.
    let results = unsafe {
        [
            driver::cuDeviceGet(&mut device, index),
            driver::cuDeviceTotalMem_v2(&mut memory, device),
            driver::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, device),
            driver::cuDeviceGetAttribute(&mut major, MAJOR, device),
            driver::cuDeviceGetAttribute(&mut minor, MINOR, device),
        ]
    };
    let name: Vec<u8> = name.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8).collect();
    let name = String::from_utf8_lossy(&name).into_owned();
    let all = results.iter().all(|&result| result == driver::CUresult::CUDA_SUCCESS);
    all.then_some(Gpu { name, memory: memory as u64, capability: (major, minor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_part_is_one_line_with_help() {
        let report = probe();
        assert_eq!(report.parts.len(), 5);
        let lines = report.missing();
        for part in report.parts.iter().filter(|part| part.found.is_err()) {
            let line = lines.iter().find(|line| line.starts_with(part.name)).expect("a line for it");
            assert!(line.contains(part.help) && !line.contains('\n'), "{line}");
        }
        match require() {
            Ok(()) => assert!(report.is_complete()),
            Err(error) => assert_eq!(error.to_string(), format!("cuda: {}", lines.join("; "))),
        }
    }

    #[test]
    fn gpus_that_are_not_there_are_refused() {
        let error = require_nccl(&[0, 1 << 20]).unwrap_err().to_string();
        match probe().is_complete() && probe().nccl.found.is_ok() {
            true => assert!(error.starts_with("cuda: GPU 1048576: expected an index below"), "{error}"),
            false => assert!(error.contains("missing") || error.contains("not found"), "{error}"),
        }
    }

    #[test]
    fn headers_are_looked_for_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let include = folder.path();
        assert!(headers(include).unwrap_err().ends_with("cuda_runtime.h not found"));
        for header in &HEADERS[..2] {
            std::fs::write(include.join(header), "").unwrap();
        }
        assert!(headers(include).unwrap_err().ends_with("cuda_bf16.h not found"));
        std::fs::write(include.join(HEADERS[2]), "").unwrap();
        assert!(headers(include).unwrap().contains("without crt/mma.h"));
        std::fs::create_dir(include.join("crt")).unwrap();
        std::fs::write(include.join(PRODUCTS), "").unwrap();
        assert_eq!(headers(include).unwrap(), include.display().to_string());
    }

    #[test]
    fn versions_must_fit_each_other_and_the_driver() {
        assert_eq!(text(cuda(13010)), "13.1");
        assert!(understood((13, 0), Some((13, 0))).is_ok() && understood((12, 9), Some((13, 0))).is_ok());
        assert!(understood((13, 1), None).is_ok());
        let error = understood((13, 1), Some((13, 0))).unwrap_err();
        assert_eq!(error, "expected at most 13.0 (supported by the driver), got 13.1");
        assert!(same(13, Some((13, 0)), "").is_ok() && same(12, None, "").is_ok());
        let error = same(12, Some((13, 0)), "/lib/libcudnn.so.9").unwrap_err();
        assert_eq!(error, "expected a version for CUDA 13 (as NVRTC), got one for 12: /lib/libcudnn.so.9");
    }

    #[test]
    fn a_driver_without_a_gpu_is_said() {
        let part = |name, found| Part { name, found, help: "install it" };
        let parts = vec![part(DRIVER, Ok("CUDA 12.8".into()))];
        let nccl = part("NCCL", Err("gone".into()));
        let mut report = Report { parts, gpus: Vec::new(), nccl, looked_in: "/a, /b".into() };
        assert_eq!(report.missing().len(), 1);
        assert!(report.missing()[0].starts_with("GPU: "));
        report.gpus.push(Gpu { name: "A".into(), memory: 3 << 29, capability: (9, 0) });
        assert!(report.is_complete());
        assert!(report.to_string().ends_with("GPU 0          A, 1.5 GiB, compute capability 9.0\n"));
        report.parts.push(part("cuDNN", Err("gone".into())));
        assert_eq!(report.missing(), ["cuDNN: gone; install it", "searched /a, /b"]);
        assert!(report.to_string().ends_with("\nsearched       /a, /b\n"));
        // A single GPU needs no NCCL.
        assert!(!report.to_string().contains("NCCL"));
        report.gpus.push(report.gpus[0].clone());
        assert!(report.to_string().contains("\nNCCL           missing: gone; install it\n"));
    }

    #[test]
    fn a_panic_in_the_bindings_is_an_error() {
        assert!(guarded(|| -> std::result::Result<(), String> { panic!("Missing symbol") }).is_err());
        assert_eq!(guarded(|| Ok(3)), Ok(3));
    }
}
