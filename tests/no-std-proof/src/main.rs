//! Cuts bags from an image and averages their embeddings, in a program without a standard library, and exits with
//! status 0 if all numbers are as expected, else 1.
//!
//! A dependency that pulled the standard library in would bring a second panic handler, and this would not build.
#![no_std]
#![no_main]

extern crate alloc;
#[cfg(feature = "use-std")]
extern crate std;

mod runtime;
mod method;
#[cfg(feature = "checkpoint")]
mod checkpoint;

/// What the program is judged by.
fn proof() -> bool {
    let method = method::grid_mean() == Ok(true) && method::random_mean() == Ok(true);
    #[cfg(feature = "checkpoint")]
    let method = method && checkpoint::a_plan_survives() == Ok(true);
    method
}
