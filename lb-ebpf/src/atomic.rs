//! The two atomic instructions of the data path.
//!
//! `core` has no atomics on the BPF target (`atomic_cas: false`), and the compiler's intrinsics change from release to
//! release; the instructions do not (Documentation/bpf/standardization/instruction-set.rst, "Atomic operations"). Both
//! are sequentially consistent.

use core::arch::asm;

/// Add to a word of a map and return what it was, in one step.
#[inline(always)]
pub fn fetch_add(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: `word` points into a map's element.
    unsafe {
        asm!("{value} = atomic_fetch_add((u64 *)({word} + 0), {value})", value = inout(reg) value, word = in(reg) word);
    }
    value
}

/// Replace a word of a map if it is `before`, in one step; what it was.
#[inline(always)]
pub fn compare_exchange(word: *mut u64, before: u64, after: u64) -> u64 {
    let was: u64;
    // SAFETY: `word` points into a map's element.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {after})", word = in(reg) word, after = in(reg) after, inout("r0") before => was);
    }
    was
}
