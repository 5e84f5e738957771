//! A limit on the memory that embedding takes.
//!
//! What the program holds once its network has looked at a batch is measured, not guessed. The rest of the limit is shared
//! by images that are being decoded and cut (each taken into account before it is read, by the size in its header) and by
//! patches that wait for the network.

use std::sync::{Condvar, Mutex};

use anyhow::{Result, bail};

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Bytes that images may take together.
pub(crate) struct Budget {
    all: u64,
    left: Mutex<u64>,
    freed: Condvar,
}

/// Bytes that are taken, until this is dropped.
pub(crate) struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Budget { all: bytes, left: Mutex::new(bytes), freed: Condvar::new() }
    }

    /// Takes so many bytes as soon as they are left.
    ///
    /// # Errors
    /// If there are not as many in all; `what` needs them.
    pub(crate) fn take(&self, bytes: u64, what: &str) -> Result<Taken<'_>> {
        if bytes > self.all {
            let (expected, got) = (self.all / MIB, bytes.div_ceil(MIB));
            bail!("{what}: expected at most {expected} MiB to decode it under --memory-limit, got {got}");
        }
        let left = self.left.lock().expect("no thread panics with it");
        let mut left = self.freed.wait_while(left, |left| *left < bytes).expect("no thread panics with it");
        *left -= bytes;
        Ok(Taken { budget: self, bytes })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.budget.left.lock().expect("no thread panics with it") += self.bytes;
        self.budget.freed.notify_all();
    }
}

/// Bytes of memory that this program holds, and the most that it has held.
///
/// # Errors
/// If the system does not say so in `/proc`, as Linux does.
pub(crate) fn held() -> Result<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    match (kib("VmRSS"), kib("VmHWM")) {
        (Some(now), Some(most)) => Ok((now << 10, most << 10)),
        _ => bail!("--memory-limit: expected a system that tells a program's memory (/proc/self/status), got another"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = Budget::new(100);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (budget, held, most) = (&budget, &held, &most);
                scope.spawn(move || {
                    for round in 0..200 {
                        let bytes = 10 + (thread * 37 + round * 13) % 60;
                        let _taken = budget.take(bytes, "x").unwrap();
                        most.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((60..=100).contains(&most), "{most}");
        assert_eq!(*budget.left.lock().unwrap(), 100);
        let error = Budget::new(3 * MIB).take(5 * MIB + 1, "a.png").err().unwrap().to_string();
        assert_eq!(error, "a.png: expected at most 3 MiB to decode it under --memory-limit, got 6");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_knows_what_it_holds() {
        let block = vec![1_u8; 64 << 20];
        let (now, most) = held().unwrap();
        assert!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>() <= now && now <= most);
    }
}
