//! The memory that images take while they are decoded and used, counted before it is taken.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::error::{Error, Result};
use crate::image::{Image, MOST_BYTES};

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// Bytes that images may take together, whichever threads and data sets they are of.
///
/// Nobody waits for room and keeps some meanwhile, so that all get theirs in the end.
#[derive(Debug)]
pub struct Budget {
    all: u64,
    left: Mutex<u64>,
    freed: Condvar,
}

/// A part of a budget, until it is dropped.
#[derive(Debug)]
pub struct Room {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Budget { all: bytes, left: Mutex::new(bytes), freed: Condvar::new() })
    }

    /// The budget of all data sets that have none of their own: [`MOST_BYTES`] for the whole program.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Budget>> = OnceLock::new();
        SHARED.get_or_init(|| Budget::new(MOST_BYTES)).clone()
    }

    /// Takes so many bytes, and waits for them if others have them.
    ///
    /// # Errors
    /// [`Error::Image`] under that name if there are not as many in all.
    pub fn take(self: &Arc<Self>, bytes: u64, name: &str) -> Result<Room> {
        self.check(bytes, name)?;
        let mut left = self.lock();
        while *left < bytes {
            left = self.freed.wait(left).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *left -= bytes;
        Ok(Room { budget: self.clone(), bytes })
    }

    /// Takes so many bytes, if nobody else has them now.
    ///
    /// # Errors
    /// [`Error::Image`] under that name if there are not as many in all.
    pub fn try_take(self: &Arc<Self>, bytes: u64, name: &str) -> Result<Option<Room>> {
        self.check(bytes, name)?;
        let mut room = Room { budget: self.clone(), bytes: 0 };
        Ok(room.try_grow(bytes).then_some(room))
    }

    fn check(&self, bytes: u64, name: &str) -> Result<()> {
        if bytes > self.all {
            let expected = format!("an image that takes at most {} MiB of memory to decode", self.all / MIB);
            return Err(Error::Image { name: name.into(), expected, got: format!("{} MiB", bytes.div_ceil(MIB)) });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Room {
    /// Takes more, so that it has so many bytes, if nobody else has them now.
    pub(crate) fn try_grow(&mut self, bytes: u64) -> bool {
        let mut left = self.budget.lock();
        let Some(after) = left.checked_sub(bytes.saturating_sub(self.bytes)) else { return false };
        *left = after;
        self.bytes = self.bytes.max(bytes);
        true
    }

    /// Gives back all but so many bytes.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        *self.budget.lock() += more;
        self.budget.freed.notify_all();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// A decoded image, with the room that it takes in a budget until it is dropped.
#[derive(Debug)]
pub struct Decoded {
    image: Image,
    room: Option<Room>,
}

impl Decoded {
    pub(crate) fn new(image: Image, room: Option<Room>) -> Self {
        Decoded { image, room }
    }

    /// The image alone: from now on it does not count. For the few that are kept, and what is counted elsewhere.
    pub fn into_image(self) -> Image {
        self.image
    }

    /// Gives its room back, as what is counted elsewhere.
    pub(crate) fn uncount(&mut self) {
        self.room = None;
    }
}

impl Deref for Decoded {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

impl DerefMut for Decoded {
    fn deref_mut(&mut self) -> &mut Image {
        &mut self.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = Budget::new(100);
        let first = budget.try_take(60, "x").unwrap().unwrap();
        assert!(budget.try_take(41, "x").unwrap().is_none());
        let mut second = budget.try_take(40, "x").unwrap().unwrap();
        drop(first);
        assert!(budget.try_take(61, "x").unwrap().is_none() && budget.try_take(60, "x").unwrap().is_some());
        assert!(!second.try_grow(101) && second.try_grow(100) && budget.try_take(1, "x").unwrap().is_none());
        second.shrink(30);
        assert!(budget.try_take(71, "x").unwrap().is_none() && budget.try_take(70, "x").unwrap().is_some());
        drop(second);
        assert!(budget.try_take(100, "x").unwrap().is_some());
        let error = Budget::new(3 * MIB).take(5 * MIB + 1, "a.png").unwrap_err().to_string();
        assert_eq!(error, "a.png: expected an image that takes at most 3 MiB of memory to decode, got 6 MiB");
    }

    #[test]
    fn who_waits_gets_what_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.take(7, "x").unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = [10, 4, 9]
                .map(|bytes| {
                    scope.spawn({
                        let budget = &budget;
                        move || budget.take(bytes, "x").map(drop)
                    })
                })
                .into_iter()
                .collect();
            drop(first);
            waiting.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        assert_eq!(*budget.lock(), 10);
    }
}
