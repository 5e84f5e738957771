//! What of CUDA this machine has.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cudarc::driver::sys as driver;
use cudarc::{cublas, cudnn, nccl, nvrtc};

use crate::error::{Error, Result};

/// The oldest driver whose events span a whole context, as `1000 * major + 10 * minor`.
const OLDEST_DRIVER: i32 = 12050;

/// Headers that kernels compiled at run time include.
const HEADERS: [&str; 4] = ["cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h", "mma.h"];

/// What is there of what the CUDA backend needs. [`probe`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The parts, in the order in which they are needed.
    pub parts: Vec<Part>,
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// NCCL, which only training on several GPUs needs.
    pub nccl: Part,
}

/// A part of CUDA: a library, or the headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its version or place, or what is wrong with it.
    pub found: std::result::Result<String, String>,
    /// How to get it.
    pub help: &'static str,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its name, as the driver says it.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its compute capability, major and minor.
    pub capability: (i32, i32),
}

impl Report {
    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }

    /// A line for each part that is missing, with how to get it.
    pub fn missing(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.parts.iter().filter_map(Part::missing).collect();
        let driver = self.parts.iter().any(|part| part.name == DRIVER && part.found.is_ok());
        if driver && self.gpus.is_empty() {
            lines.push("GPU: the driver knows of none; see `nvidia-smi` and CUDA_VISIBLE_DEVICES".into());
        }
        lines
    }
}

impl Part {
    /// A line that says that it is missing and how to get it, if it is.
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
        Ok(())
    }
}

const DRIVER: &str = "NVIDIA driver";

/// Looks for what the CUDA backend needs. It touches no device and does not panic, whatever is missing.
pub fn probe() -> Report {
    let driver = guarded(driver_version).and_then(|version| match version >= OLDEST_DRIVER {
        true => Ok(format!("CUDA {}.{}", version / 1000, version % 1000 / 10)),
        false => Err(format!("expected CUDA 12.5 or later, got {}.{}", version / 1000, version % 1000 / 10)),
    });
    let gpus = match driver {
        Ok(_) => guarded(gpus).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let part = |name, help, found| Part { name, found, help };
    let parts = vec![
        part(DRIVER, "install NVIDIA's driver 555 or later", driver),
        part("cuDNN", "install cuDNN 9 for CUDA 12, or add its folder to LD_LIBRARY_PATH", guarded(cudnn_version)),
        part("cuBLAS", "install cuBLAS of CUDA 12, or add its folder to LD_LIBRARY_PATH", guarded(cublas_version)),
        part("NVRTC", "install NVRTC of CUDA 12, or add its folder to LD_LIBRARY_PATH", guarded(nvrtc_version)),
        part(
            "CUDA headers",
            "install the CUDA 12 toolkit, or set CUDA_PATH to a folder whose include/ has them",
            headers(toolkit().as_deref()),
        ),
    ];
    let nccl = part("NCCL", "install NCCL 2 for CUDA 12, or add its folder to LD_LIBRARY_PATH", guarded(nccl_version));
    Report { parts, gpus, nccl }
}

/// Refuses a machine on which the CUDA backend cannot run. To be asked before the first tensor on a GPU: Burn's backend
/// panics where a part is missing.
///
/// # Errors
/// [`Error::Cuda`] with all that is missing and how to get it.
pub fn require() -> Result<()> {
    match probe().missing() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(Error::Cuda(missing.join("; "))),
    }
}

/// Refuses a machine on which these GPUs cannot train together.
///
/// # Errors
/// As [`require`], and if NCCL is missing or there is no GPU with one of these numbers.
pub(super) fn require_nccl(gpus: &[usize]) -> Result<()> {
    let report = probe();
    let mut missing = report.missing();
    missing.extend(report.nccl.missing());
    if missing.is_empty()
        && let Some(gpu) = gpus.iter().find(|&&gpu| gpu >= report.gpus.len())
    {
        missing.push(format!("GPU {gpu}: expected a number below {}, the GPUs of this machine", report.gpus.len()));
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Cuda(missing.join("; "))) }
}

/// What a call says, or why it cannot be made: a function that a library lacks is a panic in the bindings.
fn guarded<T>(call: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("the library lacks a function that is needed".into()))
}

fn driver_version() -> std::result::Result<i32, String> {
    let mut version = 0;
    // SAFETY: the library is there before it is called, and the call writes one integer.
    unsafe {
        if !driver::is_culib_present() {
            return Err("libcuda not found".into());
        }
        match driver::cuDriverGetVersion(&mut version) {
            driver::CUresult::CUDA_SUCCESS => Ok(version),
            error => Err(format!("{error:?}")),
        }
    }
}

fn cudnn_version() -> std::result::Result<String, String> {
    // SAFETY: the library is there before it is called; the call takes nothing.
    let version = unsafe {
        if !cudnn::sys::is_culib_present() {
            return Err("libcudnn.so.9 not found".into());
        }
        cudnn::sys::cudnnGetVersion()
    };
    let text = format!("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
    if version >= 90000 { Ok(text) } else { Err(format!("expected version 9, got {version}")) }
}

fn cublas_version() -> std::result::Result<String, String> {
    use cublas::sys::libraryPropertyType::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
    // SAFETY: the library is there before it is called, and each call writes one integer.
    let parts = unsafe {
        if !cublas::sys::is_culib_present() {
            return Err("libcublas not found".into());
        }
        [MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL].map(|part| {
            let mut value = 0;
            cublas::sys::cublasGetProperty(part, &mut value);
            value.to_string()
        })
    };
    Ok(parts.join("."))
}

fn nvrtc_version() -> std::result::Result<String, String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there before it is called, and the call writes two integers.
    unsafe {
        if !nvrtc::sys::is_culib_present() {
            return Err("libnvrtc not found".into());
        }
        nvrtc::sys::nvrtcVersion(&mut major, &mut minor);
    }
    Ok(format!("{major}.{minor}"))
}

fn nccl_version() -> std::result::Result<String, String> {
    let mut version = 0;
    // SAFETY: the library is there before it is called, and the call writes one integer.
    unsafe {
        if !nccl::sys::is_culib_present() {
            return Err("libnccl not found".into());
        }
        nccl::sys::ncclGetVersion(&mut version);
    }
    match version {
        20000.. => Ok(format!("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100)),
        other => Err(format!("expected version 2.9 or later, got {other}")),
    }
}

/// Where Burn's backend looks for the toolkit.
fn toolkit() -> Option<PathBuf> {
    cubecl::cuda::install::cuda_path()
}

/// The folder of headers of a toolkit.
fn headers(toolkit: Option<&Path>) -> std::result::Result<String, String> {
    let Some(toolkit) = toolkit else { return Err("no CUDA toolkit found".into()) };
    let include = toolkit.join("include");
    match HEADERS.iter().find(|header| !include.join(header).is_file()) {
        Some(header) => Err(format!("{} not found", include.join(header).display())),
        None => Ok(include.display().to_string()),
    }
}

fn gpus() -> std::result::Result<Vec<Gpu>, String> {
    let check = |result: driver::CUresult| match result {
        driver::CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(format!("{error:?}")),
    };
    let mut count = 0;
    // SAFETY: the driver is there; each call writes one integer.
    unsafe {
        check(driver::cuInit(0))?;
        check(driver::cuDeviceGetCount(&mut count))?;
    }
    (0..count).map(|index| gpu(index).ok_or_else(|| format!("GPU {index} cannot be asked"))).collect()
}

/// What the driver, which is initialised, says of a GPU.
pub(super) fn gpu(index: i32) -> Option<Gpu> {
    use driver::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let (mut device, mut memory, mut major, mut minor) = (0, 0usize, 0, 0);
    let mut name = [0 as std::ffi::c_char; 128];
    // SAFETY: each call writes one value, the name at most as many bytes as it is told, with a zero at the end.
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
            true => assert!(error.starts_with("cuda: GPU 1048576: expected a number below"), "{error}"),
            false => assert!(error.contains("missing") || error.contains("not found"), "{error}"),
        }
    }

    #[test]
    fn headers_are_looked_for_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(headers(None).unwrap_err(), "no CUDA toolkit found");
        assert!(headers(Some(folder.path())).unwrap_err().ends_with("cuda_runtime.h not found"));
        let include = folder.path().join("include");
        std::fs::create_dir(&include).unwrap();
        for header in &HEADERS[..3] {
            std::fs::write(include.join(header), "").unwrap();
        }
        assert!(headers(Some(folder.path())).unwrap_err().ends_with("mma.h not found"));
        std::fs::write(include.join(HEADERS[3]), "").unwrap();
        assert_eq!(headers(Some(folder.path())).unwrap(), include.display().to_string());
    }

    #[test]
    fn a_driver_without_a_gpu_is_said() {
        let part = |name, found| Part { name, found, help: "install it" };
        let parts = vec![part(DRIVER, Ok("CUDA 12.8".into()))];
        let mut report = Report { parts, gpus: Vec::new(), nccl: part("NCCL", Err("gone".into())) };
        assert_eq!(report.missing().len(), 1);
        assert!(report.missing()[0].starts_with("GPU: "));
        report.gpus.push(Gpu { name: "A".into(), memory: 3 << 29, capability: (9, 0) });
        assert!(report.is_complete());
        assert!(report.to_string().ends_with("GPU 0          A, 1.5 GiB, compute capability 9.0\n"));
        report.parts.push(part("cuDNN", Err("gone".into())));
        assert_eq!(report.missing(), ["cuDNN: gone; install it"]);
        // One GPU needs no NCCL.
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
