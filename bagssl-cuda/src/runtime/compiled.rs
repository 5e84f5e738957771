//! Tests the compiled kernels: NVRTC as the program calls it, then `ptxas` for the machine code.
//! Neither needs a GPU.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::context::{KERNELS, SOURCE, compile};

/// Turing, Ampere, Hopper, Blackwell.
const CAPABILITIES: [i32; 4] = [75, 80, 90, 100];

/// The register limits. A multiprocessor has 65536 registers: for two blocks of 256 threads, or one
/// of 1024.
const MOST_REGISTERS: u32 = 128;
const MOST_IN_LARGE_BLOCKS: u32 = 64;

/// The kernels launched in blocks of 1024 threads.
const LARGE_BLOCKS: [&str; 4] = ["norm_merge", "norm_sums_merge", "sum_columns", "similarity_columns"];

/// The shared memory that a block may use without opting in to more, in bytes.
const MOST_SHARED: u32 = 48 << 10;

/// The resources that a kernel needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Usage {
    registers: u32,
    /// Bytes that did not fit in registers.
    spilled: u32,
    shared: u32,
}

/// Returns a line for each kernel that is missing, unknown, or needs too many resources.
fn complaints(usages: &BTreeMap<String, Usage>) -> Vec<String> {
    let mut lines = Vec::new();
    let unknown = usages.keys().filter(|name| !KERNELS.contains(&name.as_str()));
    lines.extend(unknown.map(|name| format!("{name}: expected in KERNELS, got none")));
    for name in KERNELS {
        let Some(usage) = usages.get(name) else {
            lines.push(format!("{name}: expected a kernel, got none"));
            continue;
        };
        let most = if LARGE_BLOCKS.contains(&name) { MOST_IN_LARGE_BLOCKS } else { MOST_REGISTERS };
        for (what, most, got) in [
            ("registers", most, usage.registers),
            ("bytes spilled", 0, usage.spilled),
            ("bytes of shared memory", MOST_SHARED, usage.shared),
        ] {
            if got > most {
                lines.push(format!("{name}: expected at most {most} {what}, got {got}"));
            }
        }
    }
    lines
}

/// Parses the resource usage of each kernel from the output of `ptxas -v`.
fn usages(report: &str) -> BTreeMap<String, Usage> {
    let mut usages = BTreeMap::new();
    for part in report.split("Compiling entry function '").skip(1) {
        let (name, rest) = part.split_once('\'').unwrap_or((part, ""));
        // Returns the number before these words.
        let number = |before: &str| -> u32 {
            let head = rest.split_once(before).map_or("", |(head, _)| head);
            head.rsplit(|letter: char| !letter.is_ascii_digit()).next().and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let spilled = number(" bytes spill stores") + number(" bytes spill loads");
        let usage = Usage { registers: number(" registers"), spilled, shared: number(" bytes smem") };
        usages.insert(name.to_string(), usage);
    }
    usages
}

/// Finds the assembler, on the path or in the toolkit that Burn's backend finds.
fn ptxas() -> Option<PathBuf> {
    let toolkit = cubecl::cuda::install::cuda_path().map(|folder| folder.join("bin/ptxas"));
    let runs =
        |program: &PathBuf| Command::new(program).arg("--version").output().is_ok_and(|run| run.status.success());
    [Some(PathBuf::from("ptxas")), toolkit].into_iter().flatten().find(runs)
}

/// Returns the resource usage of the kernels for a compute capability, or the compiler's error.
fn assemble(ptxas: &Path, capability: i32, folder: &Path) -> Result<BTreeMap<String, Usage>, String> {
    let ptx = compile(capability)?;
    if !ptx.contains(&format!(".target sm_{capability}\n")) {
        return Err(format!("expected PTX for sm_{capability}, got some for an older one"));
    }
    let path = folder.join(format!("{capability}.ptx"));
    std::fs::write(&path, ptx).map_err(|error| error.to_string())?;
    let mut command = Command::new(ptxas);
    command.args(["-v", &format!("-arch=sm_{capability}"), "-o"]).arg(path.with_extension("cubin")).arg(&path);
    let run = command.output().map_err(|error| error.to_string())?;
    let report = String::from_utf8_lossy(&run.stderr).into_owned();
    if run.status.success() { Ok(usages(&report)) } else { Err(report) }
}

#[test]
fn the_kernels_fit_their_gpus() {
    // Bypasses the test harness's output capture, so that the message is visible.
    let skip = |what: &str| drop(writeln!(std::io::stderr(), "skipped: the kernels: expected {what}, got none"));
    crate::libraries::load();
    // SAFETY: this only tries to load a library.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return skip("libnvrtc");
    }
    let Some(ptxas) = ptxas() else { return skip("ptxas on the path or in a CUDA toolkit") };
    let folder = tempfile::tempdir().unwrap();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let run = |capability| {
            let (ptxas, folder) = (&ptxas, folder.path());
            scope.spawn(move || match assemble(ptxas, capability, folder) {
                Ok(usages) => complaints(&usages),
                Err(error) => vec![error],
            })
        };
        let running = CAPABILITIES.map(|capability| (capability, run(capability)));
        let lines = |(capability, thread): (i32, std::thread::ScopedJoinHandle<'_, Vec<String>>)| {
            let lines = thread.join().expect("it does not panic");
            lines.into_iter().map(move |line| format!("sm_{capability}: {line}"))
        };
        running.into_iter().flat_map(lines).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names of all kernels in a source. A macro that makes kernels names them `stem_##NAME`, after its first argument.
fn kernels_of(source: &str) -> Vec<String> {
    const MARK: &str = "extern \"C\" __global__ void";
    let name = |after: &str| {
        let after = after.trim_start();
        let after = match after.strip_prefix("__launch_bounds__") {
            Some(rest) => rest.split_once(')').map_or(rest, |(_, rest)| rest),
            None => after,
        };
        after.split('(').next().unwrap_or_default().trim().to_string()
    };
    let names = |text: &str| text.split(MARK).skip(1).map(name).collect::<Vec<_>>();
    // A macro is one line, its arguments in parentheses behind its name.
    let source = source.replace("\\\n", " ");
    let (macros, plain): (Vec<&str>, Vec<&str>) = source.lines().partition(|line| line.starts_with("#define "));
    let mut all = names(&plain.join("\n"));
    for made in macros {
        let called = made["#define ".len()..].split_inclusive('(').next().unwrap_or_default();
        let arguments = plain.iter().filter_map(|line| line.strip_prefix(called)?.split([',', ')']).next());
        all.extend(arguments.flat_map(|argument| names(made).into_iter().map(|name| name.replace("##NAME", argument))));
    }
    all
}

/// A kernel that is not in the list is neither loaded nor compiled above.
#[test]
fn all_kernels_are_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap()).collect::<Vec<_>>();
    assert!(texts.iter().all(|text| SOURCE.contains(text)), "SOURCE lacks a file of {}", folder.display());
    let mut kernels: Vec<String> = texts.iter().flat_map(|text| kernels_of(text)).collect();
    let mut listed = KERNELS.map(String::from);
    kernels.sort();
    listed.sort();
    assert_eq!(kernels, listed);
}

#[test]
fn kernels_are_found_by_their_names() {
    let source = "extern \"C\" __global__ void __launch_bounds__(256, 2) one(int a) { }\n\
                  #define PAIR(NAME, T) \\\n  extern \"C\" __global__ void to_##NAME( \\\n T a) { } \\\n  \
                  extern \"C\" __global__ void from_##NAME(T a) { }\nPAIR(f32_4, float)\nPAIR(bf16, bf16)\n\
                  #define SIZE 3\n__device__ int two(int a) { }\n";
    assert_eq!(kernels_of(source), ["one", "to_f32_4", "from_f32_4", "to_bf16", "from_bf16"]);
}

/// As `ptxas` 13 prints it.
const REPORT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'cholesky' for 'sm_90'
ptxas info    : Function properties for cholesky
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 12672 bytes smem
ptxas info    : Compile time = 110.353 ms
ptxas info    : Compiling entry function 'norm_merge' for 'sm_75'
ptxas info    : Function properties for norm_merge
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 65 registers, used 0 barriers, 444 bytes cmem[0], 24 bytes cmem[2]
";

#[test]
fn the_report_is_read() {
    let cholesky = Usage { registers: 32, spilled: 0, shared: 12672 };
    let merge = Usage { registers: 65, spilled: 28, shared: 0 };
    let expected = [("cholesky".to_string(), cholesky), ("norm_merge".to_string(), merge)];
    assert_eq!(usages(REPORT), expected.into_iter().collect());
}

#[test]
fn what_needs_too_much_is_told() {
    let good = Usage { registers: 64, ..Usage::default() };
    let mut usages: BTreeMap<String, Usage> = KERNELS.iter().map(|name| ((*name).to_string(), good)).collect();
    assert_eq!(complaints(&usages), Vec::<String>::new());
    usages.insert("norm_merge".into(), Usage { registers: 65, spilled: 28, shared: 0 });
    usages.insert("cholesky_scale".into(), Usage { registers: 129, spilled: 0, shared: MOST_SHARED + 1 });
    usages.remove("step_sgd");
    usages.insert("step_sdg".into(), good);
    let mut expected = vec![
        "step_sdg: expected in KERNELS, got none",
        "norm_merge: expected at most 64 registers, got 65",
        "norm_merge: expected at most 0 bytes spilled, got 28",
        "step_sgd: expected a kernel, got none",
        "cholesky_scale: expected at most 128 registers, got 129",
        "cholesky_scale: expected at most 49152 bytes of shared memory, got 49153",
    ];
    let mut got = complaints(&usages);
    got.sort();
    expected.sort_unstable();
    assert_eq!(got, expected);
}
