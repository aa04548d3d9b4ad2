//! `testing::fuzz::lines` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    leasehold::testing::fuzz::lines(input);
});
