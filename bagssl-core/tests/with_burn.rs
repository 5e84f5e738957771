//! Models on Burn: kernels against each other, networks against PyTorch.

mod kernels;
mod reference;
