//! The pause program: the first process of every pod sandbox. `build.rs` compiles this file on
//! its own, without the standard library, into a static ELF file of about a kilobyte.
//!
//! It holds the sandbox's namespaces open, reaps the zombies of a shared PID namespace and exits
//! with code 0 on SIGTERM or SIGINT.

#![no_std]
#![no_main]

use core::arch::naked_asm;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const RT_SIGPROCMASK: usize = 14;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const WAIT4: usize = 61;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
    pub const EXIT_GROUP: usize = 94;
}

const SIG_BLOCK: usize = 0;
const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;
/// The kernel's set of signals on both architectures: bit n - 1 stands for signal n.
static WAITED: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
const ANY_CHILD: usize = usize::MAX;
const WNOHANG: usize = 1;

/// The kernel starts a program with the stack pointer at `argc`, which is not how a function is
/// entered: align the stack, then call one.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("xor ebp, ebp", "and rsp, -16", "call {pause}", "ud2", pause = sym pause);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x29, #0", "mov x30, #0", "b {pause}", pause = sym pause);
}

extern "C" fn pause() -> ! {
    let set = &raw const WAITED as usize;
    // A blocked signal is queued even where its default action would ignore it, as it would for
    // the first process of a PID namespace. So no handler is needed, and no signal is lost
    // between two waits.
    call(
        number::RT_SIGPROCMASK,
        [SIG_BLOCK, set, 0, size_of::<u64>()],
    );
    loop {
        let signal = call(number::RT_SIGTIMEDWAIT, [set, 0, 0, size_of::<u64>()]);
        if signal == SIGCHLD as isize {
            while call(number::WAIT4, [ANY_CHILD, 0, WNOHANG, 0]) > 0 {}
        } else if signal > 0 {
            call(number::EXIT_GROUP, [0; 4]);
        }
    }
}

/// One system call with up to four arguments; the result is negative on failure.
#[cfg(target_arch = "x86_64")]
fn call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the calls made here write no memory of this program; the clobbers are the kernel's.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// One system call with up to four arguments; the result is negative on failure.
#[cfg(target_arch = "aarch64")]
fn call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the calls made here write no memory of this program.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] as isize => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            options(nostack),
        );
    }
    result
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
