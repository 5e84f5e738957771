//! What this machine has of CUDA, and what it lacks: `cargo run --example probe`. It needs neither a GPU nor CUDA.

use bagssl_cuda::probe::probe;

fn main() {
    let report = probe();
    print!("{report}");
    match report.missing().len() {
        0 => println!("the GPU can be used"),
        _ => println!("the GPU cannot be used"),
    }
}
