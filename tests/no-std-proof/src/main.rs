//! A program without the standard library and without a C runtime that cuts a bag, averages it, and exits with 0 if the
//! result is right. If anything that it depends on pulled the standard library in, it would not link: the panic handler
//! would be there twice.
#![no_std]
#![no_main]

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::vec::Vec;

use bagssl_core::Error;
use bagssl_core::aggregate::{RunningMean, pool};
use bagssl_core::bag::{Bag, Grid};
use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
use bagssl_core::random::Address;

/// Five rows and eight columns, each pixel its own number.
const SIZE: ImageSize = ImageSize { height: 5, width: 8 };

fn work() -> Result<bool, Error> {
    let image: Vec<f32> = (0..40).map(|pixel| pixel as f32).collect();
    let spec = PatchSpec::new(PatchSide::Pixels(2), 2)?;
    let grid = Grid::new(spec, SIZE, 2)?;
    let mut mean = RunningMean::new(2);
    let mut all = Vec::new();
    for crop in grid.crops() {
        let at = |row, column| image[((crop.top + row) * SIZE.width + crop.left + column) as usize];
        let embedding = [at(0, 0), at(1, 0) - at(0, 1)];
        mean.push(&embedding)?;
        all.extend(embedding);
    }
    // First pixels 0, 2, 4, 6, 16, 18, 20, 22: mean 11. Down less right: 7.
    let averaged = mean.mean().is_some_and(|mean| mean == [11.0, 7.0]);
    // Left and right halves of the upper and the lower row.
    let pooled = pool(&all, 2, grid, 2)? == [1.0, 7.0, 5.0, 7.0, 17.0, 7.0, 21.0, 7.0];
    let random = Bag::Random { spec, patches: 9 }.crops(SIZE, Address { seed: 3, ..Address::default() })?;
    Ok(averaged && pooled && random.len() == 9 && random.iter().all(|crop| crop.fits(SIZE)) && checkpoint())
}

#[cfg(feature = "checkpoint")]
fn checkpoint() -> bool {
    use bagssl_core::architecture::Architecture;
    let plan = Architecture::ResNetSmall.plan();
    let foreign = bagssl_core::checkpoint::Checkpoint::from_bytes(b"no checkpoint").is_err();
    plan.output_dim() == 64 && plan.multiply_accumulates([16, 16]) == Some(3_125_248) && foreign
}

#[cfg(not(feature = "checkpoint"))]
fn checkpoint() -> bool {
    true
}

// The program's entry: the stack is aligned as a call needs it.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call proof_main");
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "bl proof_main");

#[unsafe(no_mangle)]
extern "C" fn proof_main() -> ! {
    exit(i32::from(!matches!(work(), Ok(true))))
}

/// The compiled `alloc` crate names these two, for unwinding that an aborting program never does.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(102)
}

fn exit(code: i32) -> ! {
    // SAFETY: the system call ends the process and returns to nobody.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("syscall", in("rax") 231, in("edi") code, options(noreturn));
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("svc 0", in("x8") 94, in("w0") code, options(noreturn));
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

/// Hands out memory from one block and takes none back.
struct Bump {
    block: UnsafeCell<[u8; BLOCK]>,
    used: AtomicUsize,
}

const BLOCK: usize = 1 << 20;

// SAFETY: each byte of the block is given to one caller, by the atomic counter.
unsafe impl Sync for Bump {}

// SAFETY: what is handed out is aligned, inside the block, and handed out once.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let space = layout.size() + layout.align();
        let start = self.used.fetch_add(space, Ordering::Relaxed);
        if start + space > BLOCK {
            return core::ptr::null_mut();
        }
        // SAFETY: start is inside the block, and rounding up stays within the space.
        unsafe {
            let place = self.block.get().cast::<u8>().add(start);
            place.add(place.align_offset(layout.align()))
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static MEMORY: Bump = Bump { block: UnsafeCell::new([0; BLOCK]), used: AtomicUsize::new(0) };
