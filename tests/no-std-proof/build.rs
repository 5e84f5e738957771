fn main() {
    // No start-up code; the C library only for memcpy and the like.
    println!("cargo:rustc-link-arg-bins=-nostartfiles");
    println!("cargo:rustc-link-arg-bins=-lc");
}
