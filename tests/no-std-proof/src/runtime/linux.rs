//! A process of Linux.

use super::start;

// The linker's default entry point. The stack is aligned to 16 bytes here, as after a call it would not be: hence the
// call from assembly.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {start}", "ud2", start = sym start);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, xzr", "bl {start}", "brk 1", start = sym start);

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
