//! The CUDA kernels' sources, compiled as C++ and run on the CPU against plain loops. It needs a C++20 compiler, no CUDA.
//!
//! A thread of a block is a thread here, so that ThreadSanitizer sees races in shared memory. It takes minutes, which is too long for
//! a test:
//! ```sh
//! c++ -std=c++20 -O1 -g -fsanitize=thread -fno-strict-aliasing -pthread tests/kernels/kernels.cpp -o kernels && ./kernels
//! ```
//! On 2026-11-28 it found none, and found one where a kernel's `__syncthreads` was taken away.

use std::path::Path;
use std::process::Command;

#[test]
fn the_kernels_compute_what_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let compile = |source: &Path, program: &Path| {
        let flags = ["-std=c++20", "-O1", "-fno-strict-aliasing", "-Wno-unknown-pragmas", "-pthread"];
        Command::new("c++").args(flags).arg(source).arg("-o").arg(program).output()
    };
    let small = folder.path().join("small.cpp");
    std::fs::write(&small, "#include <barrier>\nint main() { std::barrier<> barrier(1); }\n").unwrap();
    if !compile(&small, &folder.path().join("small")).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no C++20 compiler found as c++");
        return;
    }
    let program = folder.path().join("kernels");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/kernels.cpp");
    let compiled = compile(&source, &program).unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let run = Command::new(&program).output().unwrap();
    let lines = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && lines.ends_with("all pass\n"), "{lines}");
}
