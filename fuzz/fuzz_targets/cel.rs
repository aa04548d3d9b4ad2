//! `testing::fuzz::cel` under libFuzzer.
#![no_main]

// libFuzzer's hook ends the process at every panic, also at one that the code under test is there
// to catch. One that gets out still ends it.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |input: &[u8]| {
    leasehold::testing::fuzz::cel(input);
});
