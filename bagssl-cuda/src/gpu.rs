//! A description of a GPU.

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The name, as reported by the driver.
    pub name: String,
    /// The total memory in bytes.
    pub memory: u64,
    /// The compute capability, major and minor.
    pub capability: (i32, i32),
}
