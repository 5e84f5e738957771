//! The memory budget of decoded images. Memory is reserved before it is allocated.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::error::{Error, Result};
use crate::image::{Image, MAX_BYTES};

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// The number of bytes that images may occupy at the same time, across threads and data sets.
///
/// No thread may hold a part of the budget while it waits for more, except for images that are kept.
/// These take at most split of it. Whoever waits for more than the other split releases its own kept
/// images first. This rules out deadlocks.
#[derive(Debug)]
pub struct Budget {
    all: u64,
    left: Mutex<u64>,
    /// The bytes of images that are kept.
    kept: AtomicU64,
    freed: Condvar,
}

/// A reserved part of a budget, released on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
    is_kept: bool,
}

impl Budget {
    /// Creates a budget of `bytes`.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Budget { all: bytes, left: Mutex::new(bytes), kept: AtomicU64::new(0), freed: Condvar::new() })
    }

    /// Returns the process-wide budget of [`MAX_BYTES`], for data sets without a budget of their
    /// own.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Budget>> = OnceLock::new();
        SHARED.get_or_init(|| Budget::new(MAX_BYTES)).clone()
    }

    /// Returns the size of the whole budget.
    pub fn bytes(&self) -> u64 {
        self.all
    }

    /// Reserves `bytes`. Waits until they are free.
    ///
    /// # Errors
    /// [`Error::Image`] with the given name if `bytes` exceeds the entire budget.
    pub fn take(self: &Arc<Self>, bytes: u64, name: &str) -> Result<Reservation> {
        self.check(bytes, name)?;
        let mut left = self.lock();
        while *left < bytes {
            left = self.freed.wait(left).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *left -= bytes;
        Ok(Reservation { budget: self.clone(), bytes, is_kept: false })
    }

    /// Reserves `bytes` if they are free now, otherwise returns `None`.
    ///
    /// # Errors
    /// [`Error::Image`] with the given name if `bytes` exceeds the entire budget.
    pub fn try_take(self: &Arc<Self>, bytes: u64, name: &str) -> Result<Option<Reservation>> {
        self.check(bytes, name)?;
        let mut room = Reservation { budget: self.clone(), bytes: 0, is_kept: false };
        Ok(room.try_grow(bytes).then_some(room))
    }

    /// The most bytes that images that are kept may take.
    fn most_kept(&self) -> u64 {
        self.all / 2
    }

    /// Returns whether `bytes` may only become free if images that are kept are released.
    pub(crate) fn needs_kept(&self, bytes: u64) -> bool {
        bytes > self.all - self.most_kept()
    }

    fn check(&self, bytes: u64, name: &str) -> Result<()> {
        if bytes > self.all {
            let expected = format!("an image that needs at most {} MiB of memory to decode", self.all / MIB);
            return Err(Error::Image { name: name.into(), expected, got: format!("{} MiB", bytes.div_ceil(MIB)) });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Reservation {
    /// Grows the reservation to `bytes` if they are free now, and returns whether it did.
    pub(crate) fn try_grow(&mut self, bytes: u64) -> bool {
        let mut left = self.budget.lock();
        let Some(after) = left.checked_sub(bytes.saturating_sub(self.bytes)) else { return false };
        *left = after;
        self.bytes = self.bytes.max(bytes);
        true
    }

    /// Shrinks the reservation to `bytes`.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        *self.budget.lock() += more;
        self.budget.freed.notify_all();
    }
}

impl Reservation {
    /// Counts the reservation among those of images that are kept, if there is room for it there,
    /// and returns whether there was.
    fn keep(&mut self) -> bool {
        let (kept, most) = (&self.budget.kept, self.budget.most_kept());
        let more = |kept: u64| kept.checked_add(self.bytes).filter(|sum| *sum <= most);
        self.is_kept = self.is_kept || kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.is_kept
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_kept {
            self.budget.kept.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.shrink(0);
    }
}

/// A decoded image and its reservation in the budget, which is released on drop.
#[derive(Debug)]
pub struct Decoded {
    image: Image,
    room: Option<Reservation>,
}

impl Decoded {
    pub(crate) fn new(image: Image, room: Option<Reservation>) -> Self {
        Decoded { image, room }
    }

    /// Returns the image and releases its reservation. Use it for the few images that live long,
    /// and for images that are counted elsewhere.
    pub fn into_image(self) -> Image {
        self.image
    }

    /// Counts the image among those that are kept, which may take split of the budget. Returns
    /// whether there is room for it.
    pub(crate) fn keep(&mut self) -> bool {
        self.room.as_mut().is_some_and(Reservation::keep)
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
    fn budget_is_not_exceeded() {
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
        assert_eq!(error, "a.png: expected an image that needs at most 3 MiB of memory to decode, got 6 MiB");
    }

    #[test]
    fn half_of_it_is_for_images_that_are_kept() {
        let budget = Budget::new(101);
        let room = |bytes| budget.try_take(bytes, "x").unwrap().unwrap();
        let [mut first, mut second, mut third] = [30, 21, 20].map(room);
        assert!(first.keep() && first.keep() && !second.keep() && third.keep());
        drop(first);
        assert!(second.keep() && *budget.lock() == 101 - 41);
        assert!(budget.needs_kept(52) && !budget.needs_kept(51));
        drop((second, third));
        assert_eq!((*budget.lock(), budget.kept.load(Ordering::Relaxed)), (101, 0));
    }

    #[test]
    fn waiting_threads_get_released_memory() {
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
