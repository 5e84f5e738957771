//! A Cortex-M4 without an operating system, whose debugger (or emulator) prints: Arm's semihosting.

use super::start;

/// The top of the stack and the entry point, which the processor reads at address 0 (see `cortex-m.ld`).
#[repr(C)]
struct Vectors {
    stack: *const u8,
    entry: [unsafe extern "C" fn() -> !; 15],
}

// SAFETY: the table is never written.
unsafe impl Sync for Vectors {}

unsafe extern "C" {
    static STACK_TOP: u8;
    fn reset() -> !;
}

extern "C" fn fault() -> ! {
    exit(4)
}

#[unsafe(link_section = ".vectors")]
#[used]
static VECTORS: Vectors = Vectors {
    stack: &raw const STACK_TOP,
    entry: [reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault],
};

// Switches the floating-point unit on (coprocessors 10 and 11 of the register CPACR) before any function may use it. The
// emulator zeroes the memory, and no variable begins with another value.
core::arch::global_asm!(
    ".thumb_func", ".globl reset", "reset:", "ldr r0, =0xe000ed88", "ldr r1, [r0]", "orr r1, r1, #0xf00000",
    "str r1, [r0]", "dsb", "isb", "bl {start}", "udf #0", start = sym start
);

/// A request to the debugger: its number and argument.
fn request(number: usize, argument: usize) {
    // SAFETY: the debugger reads what the argument points to, and changes r0 alone.
    unsafe {
        core::arch::asm!("bkpt #0xab", inlateout("r0") number => _, in("r1") argument, options(nostack, readonly));
    }
}

pub(crate) fn exit(status: i32) -> ! {
    // `SYS_EXIT_EXTENDED`, with the reason "the application ended".
    let block = [0x20026, status as usize];
    request(0x20, block.as_ptr() as usize);
    loop {
        core::hint::spin_loop();
    }
}

/// Writes to the debugger's terminal; what cannot be written is lost.
#[cfg(feature = "cpu")]
pub(crate) fn print(text: &str) {
    // `SYS_WRITEC`: a byte at a time.
    for byte in text.bytes() {
        request(0x03, &raw const byte as usize);
    }
}
