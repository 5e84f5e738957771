//! The memory of this process and of the system, as reported by Linux in `/proc`.
//!
//! This is our own: the crate procfs 0.18 adds 3 packages for three numbers (2026-11-28).

use std::prelude::v1::*;

/// Bytes of memory that a program holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// The current value.
    pub current: u64,
    /// The peak so far.
    pub peak: u64,
}

/// Returns the memory of this process, if the system reports it.
pub fn process_memory() -> Option<MemoryUse> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(MemoryUse { current: bytes(&status, "VmRSS:")?, peak: bytes(&status, "VmHWM:")? })
}

/// Returns the bytes of memory available on the system, if it reports them.
pub fn available() -> Option<u64> {
    bytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Returns the value in bytes of a line such as `VmRSS:   1024 kB`.
fn bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_by_hand() {
        let text = "Name:\tbagssl\nVmHWM:\t   2048 kB\nVmRSS:\t    3 kB\n";
        assert_eq!(
            [bytes(text, "VmRSS:"), bytes(text, "VmHWM:"), bytes(text, "VmSwap:")],
            [Some(3072), Some(2 << 20), None]
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_memory_covers_allocated_block() {
        let block = vec![1_u8; 64 << 20];
        let MemoryUse { current, peak } = process_memory().unwrap();
        assert!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>() <= current && current <= peak);
        assert!(available().unwrap() > 0);
    }
}
