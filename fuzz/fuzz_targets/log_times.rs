//! `testing::fuzz::log_times` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    leasehold::testing::fuzz::log_times(input);
});
