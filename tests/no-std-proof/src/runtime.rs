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

// The linker's default entry point. The stack is aligned to 16 bytes here, as after a call it would not be: hence the
// call from assembly.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {start}", "ud2", start = sym start);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, xzr", "bl {start}", "brk 1", start = sym start);

extern "C" fn start() -> ! {
    exit(i32::from(!crate::proof()))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: `exit_group` (231) ends the process and touches no memory.
    unsafe { core::arch::asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack)) }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: `exit_group` (94) ends the process and touches no memory.
    unsafe { core::arch::asm!("svc 0", in("x8") 94, in("x0") status, options(noreturn, nostack)) }
}

/// Writes to standard output; what cannot be written is lost.
#[cfg(feature = "cpu")]
pub(crate) fn print(text: &str) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `write` (1) reads the text and touches no other memory; the call clobbers rcx and r11.
    unsafe {
        core::arch::asm!(
            "syscall", inlateout("rax") 1_usize => _, in("rdi") 1, in("rsi") text.as_ptr(), in("rdx") text.len(),
            out("rcx") _, out("r11") _, options(nostack, readonly)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: `write` (64) reads the text and touches no other memory.
    unsafe {
        core::arch::asm!(
            "svc 0", in("x8") 64, inlateout("x0") 1_usize => _, in("x1") text.as_ptr(), in("x2") text.len(),
            options(nostack, readonly)
        );
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("the proof runs on Linux, on x86_64 or aarch64");
