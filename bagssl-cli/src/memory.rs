//! A limit on the memory that embedding takes.
//!
//! Under a limit, what the program holds once its network has looked at a batch is measured, not guessed. The rest of the limit is shared
//! by images that are being decoded and cut (each taken into account before it is read, by the size in its header) and by
//! patches that wait for the network.

use std::sync::{Arc, Mutex};

use anyhow::{Result, bail};

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Bytes that images may take together.
pub(crate) struct Budget {
    all: u64,
    left: Mutex<u64>,
    /// Whether what needs more than there is gets all of it, instead of an error.
    lenient: bool,
}

/// Bytes that are taken, until this is dropped.
pub(crate) struct Taken {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// So many bytes and no more.
    pub(crate) fn strict(bytes: u64) -> Arc<Self> {
        Arc::new(Budget { all: bytes, left: Mutex::new(bytes), lenient: false })
    }

    /// So many bytes; what needs more comes alone.
    pub(crate) fn lenient(bytes: u64) -> Arc<Self> {
        Arc::new(Budget { all: bytes, left: Mutex::new(bytes), lenient: true })
    }

    /// Takes so many bytes, if they are left now.
    ///
    /// # Errors
    /// If there are not as many in all; `what` needs them.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64, what: &str) -> Result<Option<Taken>> {
        if bytes > self.all && !self.lenient {
            let (expected, got) = (self.all / MIB, bytes.div_ceil(MIB));
            bail!("{what}: expected at most {expected} MiB to decode it under --memory-limit, got {got}");
        }
        let bytes = bytes.min(self.all);
        let mut left = self.left.lock().expect("no thread panics with it");
        let Some(after) = left.checked_sub(bytes) else { return Ok(None) };
        *left = after;
        Ok(Some(Taken { budget: self.clone(), bytes }))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.budget.left.lock().expect("no thread panics with it") += self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = Budget::strict(100);
        let first = budget.take(60, "x").unwrap().unwrap();
        assert!(budget.take(41, "x").unwrap().is_none());
        let second = budget.take(40, "x").unwrap().unwrap();
        drop(first);
        assert!(budget.take(61, "x").unwrap().is_none() && budget.take(60, "x").unwrap().is_some());
        drop(second);
        assert!(budget.take(100, "x").unwrap().is_some());
        let error = Budget::strict(3 * MIB).take(5 * MIB + 1, "a.png").err().unwrap().to_string();
        assert_eq!(error, "a.png: expected at most 3 MiB to decode it under --memory-limit, got 6");
        let lenient = Budget::lenient(100);
        let alone = lenient.take(1000, "x").unwrap();
        assert!(alone.is_some() && lenient.take(1, "x").unwrap().is_none());
    }
}
