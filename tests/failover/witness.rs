//! The world outside the brokers, and its witness: every resource is a file.
//!
//! Whoever holds a resource locks its file with everything that it starts, writes its fence into it,
//! and writes again when it is done. Two who have it at once, or a fence that is not above the one
//! before it, is a violation, whatever any broker's books say. Nothing here asks a broker.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use leasehold::clock::BootTime;

/// The folder of these files.
pub struct Witness {
    dir: tempfile::TempDir,
    /// How far each file was read, and the highest fence in it.
    read: BTreeMap<PathBuf, Followed>,
    /// How many lines of complaint were read.
    complaints: usize,
}

#[derive(Default)]
struct Followed {
    bytes: u64,
    fence: u64,
}

/// What the files say beyond what they said before.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Fences that were used, and when their use began; the clock is read in hundredths of a second.
    pub begun: Vec<(u64, BootTime)>,
    /// Fences whose use ended as it was meant to.
    pub finished: BTreeSet<u64>,
    /// What must not be: two at once, or a fence that went back. In words.
    pub violations: Vec<String>,
}

impl Witness {
    /// An empty world.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir(dir.path().join("uses")).expect("a directory can be made");
        Self { dir, read: BTreeMap::new(), complaints: 0 }
    }

    /// The folder in which holders leave their marks.
    pub fn uses(&self) -> PathBuf {
        self.dir.path().join("uses")
    }

    /// Reads what was written since the last time.
    pub fn read(&mut self) -> Seen {
        let mut seen = Seen::default();
        let wrong = std::fs::read_to_string(self.dir.path().join("wrong")).unwrap_or_default();
        seen.violations.extend(wrong.lines().skip(self.complaints).map(str::to_owned));
        self.complaints += seen.violations.len();
        let folder = std::fs::read_dir(self.uses()).expect("the witness's folder can be read");
        for path in folder.filter_map(|entry| Some(entry.ok()?.path())) {
            let read = self.read.entry(path.clone()).or_default();
            read.follow(&path, &mut seen);
        }
        seen
    }
}

/// The command of a run that uses the resources that these variables name, for so long, and leaves its
/// marks in the folder `uses`. It exits with 99 when it is not alone.
pub fn script(uses: &Path, names: &[&str], hold_ms: u64) -> String {
    let mut script = format!("cd {}; f=$LEASEHOLD_FENCE; ", uses.display());
    let (mut begin, mut end) = (String::new(), String::new());
    // A shell has names of one digit for its descriptors: 9, 8, 7.
    for (name, descriptor) in names.iter().zip((3..=9).rev()) {
        script.push_str(&format!(
            "exec {descriptor}>>${name}; \
             flock -n {descriptor} || {{ echo \"${name} is shared: $f\" >>../wrong; exit 99; }}; "
        ));
        begin.push_str(&format!("echo \"begin $f $now\" >&{descriptor}; "));
        end.push_str(&format!("echo \"end $f $now\" >&{descriptor}; "));
    }
    let (seconds, millis) = (hold_ms / 1_000, hold_ms % 1_000);
    let clock = "read now rest </proc/uptime; ";
    script + clock + &begin + &format!("sleep {seconds}.{millis:03}; ") + clock + &end
}

impl Followed {
    fn follow(&mut self, path: &Path, seen: &mut Seen) {
        let mut file = File::open(path).expect("the witness's files can be read");
        file.seek(SeekFrom::Start(self.bytes)).expect("a file can be sought in");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("the witness's files are text");
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.bytes += whole as u64;
        for line in text[..whole].lines() {
            let mut words = line.split(' ');
            let word = words.next();
            let (Some(fence), Some(at)) = (words.next().and_then(|word| word.parse().ok()), words.next()) else {
                seen.violations.push(format!("{}: {line:?} is no line of a holder", path.display()));
                continue;
            };
            if word == Some("end") {
                seen.finished.insert(fence);
                continue;
            }
            if fence <= self.fence {
                seen.violations.push(format!("{}: fence {fence} after {}", path.display(), self.fence));
            }
            self.fence = self.fence.max(fence);
            seen.begun.push((fence, moment(at)));
        }
    }
}

/// `/proc/uptime` counts suspended time, as [`BootTime`] does.
fn moment(text: &str) -> BootTime {
    let (seconds, hundredths) = text.split_once('.').unwrap_or((text, "0"));
    BootTime(seconds.parse::<u64>().unwrap_or(0) * 1_000 + hundredths.parse::<u64>().unwrap_or(0) * 10)
}

#[test]
fn the_witness_sees_two_at_once_and_a_fence_that_goes_back() {
    let mut witness = Witness::new();
    let run = |witness: &Witness, fence: u64| {
        let script = script(&witness.uses(), &["LEASEHOLD_A_NAME", "LEASEHOLD_B_NAME"], 0);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).env("LEASEHOLD_FENCE", fence.to_string());
        shell.env("LEASEHOLD_A_NAME", "a").env("LEASEHOLD_B_NAME", "b").status().expect("there is a shell").code()
    };
    assert_eq!(run(&witness, 7), Some(0));
    let seen = witness.read();
    assert_eq!((seen.begun.len(), seen.finished.len(), seen.violations.len()), (2, 1, 0), "{seen:?}");
    assert_eq!(run(&witness, 6), Some(0));
    let seen = witness.read();
    assert_eq!(seen.violations.len(), 2, "{seen:?}");
    let held = nix::fcntl::Flock::lock(
        File::options().append(true).open(witness.uses().join("b")).expect("it was made"),
        nix::fcntl::FlockArg::LockExclusiveNonblock,
    );
    assert_eq!(run(&witness, 8), Some(99));
    drop(held);
    assert_eq!(witness.read().violations, ["b is shared: 8"]);
}
