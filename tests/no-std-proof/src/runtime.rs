//! What an operating system's library would give: memory, an entry point, a way out.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

const ARENA: usize = 8 << 20;

/// Hands out one buffer from front to back and takes nothing back.
struct Bump {
    arena: UnsafeCell<[u8; ARENA]>,
    used: AtomicUsize,
}

// SAFETY: the arena is reached through `alloc` alone, which gives no byte to two callers.
unsafe impl Sync for Bump {}

// SAFETY: a block lies inside the arena, is aligned as asked (by address), and overlaps no other, since `used` only grows.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.arena.get() as usize;
        let block = |used: usize| {
            let start = (base + used).next_multiple_of(layout.align()) - base;
            (start, start.saturating_add(layout.size()))
        };
        let fits = |used| Some(block(used).1).filter(|&end| end <= ARENA);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            // SAFETY: the block's end was checked, so its start lies inside the arena.
            Ok(used) => unsafe { self.arena.get().cast::<u8>().add(block(used).0) },
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static MEMORY: Bump = Bump { arena: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) };

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(3)
}

extern "C" fn start() -> ! {
    exit(i32::from(!crate::proof()))
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "runtime/linux.rs"]
mod machine;
#[cfg(all(target_os = "none", target_arch = "arm"))]
#[path = "runtime/cortex_m.rs"]
mod machine;

pub(crate) use machine::exit;
#[cfg(feature = "cpu")]
pub(crate) use machine::print;

#[cfg(not(any(
    all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")),
    all(target_os = "none", target_arch = "arm")
)))]
compile_error!("the proof runs on Linux, on x86_64 or aarch64, and on a Cortex-M");
