//! The fuzz targets over their kept seeds, and over what a seeded mutator makes of those.
//!
//! A second or so each; `scripts/fuzz` is for longer. What a fuzzer found is kept as a seed, so it
//! is tried here for ever. Inputs follow from fixed numbers: a failure fails again.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use leasehold::testing::fuzz::{Mutator, TARGETS, Target};

/// What the made inputs follow from.
const SEED: u64 = 7;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

/// Runs one input; says which it was where it breaks something.
fn run(target: &Target, input: &[u8], called: &str) -> bool {
    catch_unwind(|| (target.body)(input)).unwrap_or_else(|_| {
        panic!("{}: {called} breaks it; keep it under tests/data/fuzz: \"{}\"", target.name, input.escape_ascii())
    })
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let mut seeds = Vec::new();
    let mut were_read = 0;
    for path in files(&root().join("tests/data/fuzz").join(name)) {
        let seed = fs::read(&path).expect("a seed");
        were_read += usize::from(run(target, &seed, &path.display().to_string()));
        seeds.push(seed);
    }
    assert!(were_read > 0, "no seed of {name} gets past reading: they prove nothing");
    let mut mutator = Mutator::new(&seeds, SEED);
    let mut made_and_read = 0;
    for number in 0..target.tries {
        made_and_read += u64::from(run(target, &mutator.input(), &format!("made input {number}")));
    }
    // Mutation that nothing survives would be noise.
    assert!(made_and_read * 100 > target.tries, "{made_and_read} of {} made inputs of {name} are read", target.tries);
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

tests! { broker_says cel commands config deliveries frames inventory journal lines log_times need pipelines sse }

#[test]
fn every_target_is_run_everywhere() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(TESTED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), targets, "tests here");
    let programs = files(&root().join("fuzz/fuzz_targets"));
    assert_eq!(programs.iter().map(|path| name_of(path)).collect::<BTreeSet<_>>(), targets, "fuzz/fuzz_targets");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("a manifest");
    let bins = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""));
    assert_eq!(bins.map(str::to_owned).collect::<BTreeSet<_>>(), targets, "fuzz/Cargo.toml");
}
