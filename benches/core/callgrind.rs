//! Talking to callgrind from inside: what is counted, and when a count is written down.
//!
//! Valgrind recognises a sequence of instructions that does nothing by itself. Without Valgrind,
//! and on processors for which the sequence is not written here, nothing happens.

/// `CALLGRIND_START_INSTRUMENTATION` and its like: the letters CT, then a number.
const REQUEST: u64 = (b'C' as u64) << 24 | (b'T' as u64) << 16;
const ZERO: u64 = REQUEST + 1;
const DUMP_AT: u64 = REQUEST + 3;
const START: u64 = REQUEST + 4;
const STOP: u64 = REQUEST + 5;

/// Counts from here on.
pub fn begin() {
    request(START, 0);
    request(ZERO, 0);
}

/// Counts until here, and writes it down under `name`.
pub fn end(name: &str) {
    let text = format!("{name}\0");
    request(DUMP_AT, text.as_ptr().addr() as u64);
    request(STOP, 0);
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the only way to talk to Valgrind; the sequence leaves all but one register as it was")]
fn request(what: u64, argument: u64) {
    let arguments: [u64; 6] = [what, argument, 0, 0, 0, 0];
    // Four rotations of a register that add up to nothing, and an exchange of one with itself.
    // SAFETY: only `rdx` changes, which is said; Valgrind reads the arguments and the text.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0_u64 => _,
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: u64, _: u64) {}
