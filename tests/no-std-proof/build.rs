//! Links without the C start files: the program brings its own entry point, and on a bare machine its memory's map.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cortex-m.ld");
    let bare = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "none");
    if bare {
        println!("cargo:rustc-link-arg-bins=-T{}/cortex-m.ld", env!("CARGO_MANIFEST_DIR"));
    } else {
        println!("cargo:rustc-link-arg-bins=-nostartfiles");
    }
}
