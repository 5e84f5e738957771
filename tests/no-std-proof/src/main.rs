//! Cuts bags from an image and averages their embeddings (with the feature `cpu` those of a trained network, which it prints), in a program without a standard or a C library, and exits
//! with status 0 if all numbers are as expected, with 1 if not, with 3 on a panic.
//!
//! A dependency that pulled the standard library in would bring a second panic handler, and this would not build.
#![no_std]
#![no_main]
// A loop that copies bytes must not become a call of `memcpy`, which is that loop.
#![no_builtins]

extern crate alloc;
#[cfg(feature = "use-std")]
extern crate std;

mod runtime;
mod symbols;

mod method;
#[cfg(feature = "checkpoint")]
mod checkpoint;
#[cfg(feature = "cpu")]
mod golden;
#[cfg(feature = "onnx")]
mod onnx;

/// Whether every number is as expected.
fn proof() -> bool {
    let numbers =
        [method::grid_mean(), method::random_mean(), method::any_time()].iter().all(|result| *result == Ok(true));
    #[cfg(feature = "checkpoint")]
    let numbers = numbers && checkpoint::a_model_survives() == Ok(true);
    #[cfg(feature = "cpu")]
    let numbers = numbers && golden::embeds_as_burn_does() == Ok(true);
    #[cfg(feature = "onnx")]
    let numbers = numbers && onnx::a_model_is_exported() == Ok(true);
    numbers
}
