//! The load: runners that take what they need again and again, as people have them: `leasehold run`
//! around a command, and sessions of the client library that measure.
//!
//! There is always somebody waiting. What a runner's command does is the witness's business; here
//! stands how each ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use leasehold::client::{BaseUrl, Client, Options};
use leasehold::clock::{BootTime, boot_now};
use leasehold::protocol::call::ClaimRequest;
use nix::sys::signal::Signal;

use super::common::process::{self, Process};
use super::common::random::Random;
use super::common::wait::{PATIENCE, eventually, within};
use super::witness::{Witness, script};

/// The lab of the load.
pub const LAB: &str = r#"
pool = [{ name = "phone" }, { name = "board" }, { name = "rack" }, { name = "spare" },
        { name = "probe" }, { name = "timed" }]

[[resource]]
name = "phone-{1..3}"
pool = "phone"

[[resource]]
name = "board-{1..3}"
pool = "board"

[[resource]]
name = "rack-{1,2}"
pool = "rack"

[[resource]]
name = "spare-{1,2}"
pool = "spare"

[[resource]]
name = "probe-{1,2}"
pool = "probe"

[[resource]]
name = "timed"
pool = "timed"
"#;

/// How long a probe waits between two leases.
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// Probes; one more than there are resources for them.
pub const PROBES: usize = 3;
/// Far more than a run may take through every fault: one that takes longer hangs.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What stands for the exit code of a run that hangs, and of one that a signal ended.
const HANGS: i32 = -1;
const BY_SIGNAL: i32 = -2;

/// One sort of runner.
#[derive(Debug)]
pub struct Kind {
    /// What it is called in the report.
    pub name: &'static str,
    /// Its needs.
    needs: &'static [&'static str],
    /// The variables with the names of what it got.
    names: &'static [&'static str],
    /// Its ttl; else the default, 30 s.
    ttl: Option<&'static str>,
    /// How long its command takes, from and to, milliseconds.
    hold_ms: (u64, u64),
    /// How many of them there are.
    runners: usize,
}

impl Kind {
    /// Whether it has the default ttl, which survives every failover.
    pub fn has_default_ttl(&self) -> bool {
        self.ttl.is_none()
    }
}

/// Who makes up the load.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "quick",
        needs: &["phone"],
        names: &["LEASEHOLD_PHONE_NAME"],
        ttl: None,
        hold_ms: (50, 900),
        runners: 4,
    },
    Kind {
        name: "pair",
        needs: &["2:board"],
        names: &["LEASEHOLD_BOARD_0_NAME", "LEASEHOLD_BOARD_1_NAME"],
        ttl: None,
        hold_ms: (100, 1_500),
        runners: 2,
    },
    Kind {
        name: "mixed",
        needs: &["phone", "board"],
        names: &["LEASEHOLD_PHONE_NAME", "LEASEHOLD_BOARD_NAME"],
        ttl: None,
        hold_ms: (100, 1_500),
        runners: 2,
    },
    Kind {
        name: "long",
        needs: &["rack"],
        names: &["LEASEHOLD_RACK_NAME"],
        ttl: None,
        hold_ms: (8_000, 45_000),
        runners: 3,
    },
    // Those that a failover stops, mostly: they must be gone when another has their resource.
    Kind {
        name: "brief",
        needs: &["spare"],
        names: &["LEASEHOLD_SPARE_NAME"],
        ttl: Some("2s"),
        hold_ms: (500, 5_000),
        runners: 3,
    },
];

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its kind.
    pub kind: &'static str,
    /// Its exit code; below 0 where it has none.
    pub code: i32,
    /// The end of what it said.
    pub said: String,
}

/// What the threads of the load share.
#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    finished: Mutex<Vec<Finished>>,
    /// Grants that the probes saw: whose and when.
    grants: Mutex<Vec<(usize, BootTime)>>,
    /// What a probe was told and never should be.
    complaints: Mutex<Vec<String>>,
    /// The highest fence that the probes saw per resource.
    fences: Mutex<BTreeMap<String, u64>>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("no thread of the load panics while it notes something")
}

/// The runners at work.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Where the runners are at home.
    _home: tempfile::TempDir,
}

impl Load {
    /// Starts them, each with one of these lists of URLs.
    pub fn start(urls: &[String], witness: &Witness, seed: u64) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        let runners = KINDS.iter().flat_map(|kind| (0..kind.runners).map(move |_| kind));
        for (number, kind) in runners.enumerate() {
            let url = urls[number % urls.len()].clone();
            let runner = Runner {
                kind,
                url,
                home: home.path().to_owned(),
                uses: witness.uses(),
                random: Random::new(seed, number as u64),
                shared: Arc::clone(&shared),
            };
            threads.push(std::thread::spawn(move || runner.work()));
        }
        for number in 0..PROBES {
            let (url, shared) = (urls[number % urls.len()].clone(), Arc::clone(&shared));
            threads.push(std::thread::spawn(move || probe(&url, number, &shared)));
        }
        Self { shared, threads, _home: home }
    }

    /// Grants that the probes saw so far.
    pub fn grants(&self) -> usize {
        locked(&self.shared.grants).len()
    }

    /// Waits until every probe has seen a grant from now on.
    #[track_caller]
    pub fn everyone(&self) {
        let before = self.grants();
        eventually("every probe is granted again", || {
            let grants = locked(&self.shared.grants);
            let since = grants.get(before..).unwrap_or_default();
            (0..PROBES).all(|probe| since.iter().any(|(whose, _)| *whose == probe)).then_some(())
        });
    }

    /// What ended since the last call.
    pub fn take_finished(&self) -> Vec<Finished> {
        std::mem::take(&mut locked(&self.shared.finished))
    }

    /// When which probe saw a grant, since the last call.
    pub fn take_grants(&self) -> Vec<(usize, BootTime)> {
        std::mem::take(&mut locked(&self.shared.grants))
    }

    /// What a probe was told and never should be, since the last call.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.shared.complaints))
    }

    /// Lets everybody finish, and answers the last that ended.
    pub fn finish(self) -> Vec<Finished> {
        self.shared.closing.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no thread of the load panics");
        }
        std::mem::take(&mut locked(&self.shared.finished))
    }
}

/// One runner.
struct Runner {
    kind: &'static Kind,
    url: String,
    home: PathBuf,
    uses: PathBuf,
    random: Random,
    shared: Arc<Shared>,
}

impl Runner {
    fn work(mut self) {
        while !self.shared.closing.load(Ordering::Relaxed) {
            let finished = self.run();
            locked(&self.shared.finished).push(finished);
        }
    }

    fn run(&mut self) -> Finished {
        let (from, to) = self.kind.hold_ms;
        let script = script(&self.uses, self.kind.names, from + self.random.below(to - from));
        let mut command = process::leasehold(&self.home);
        command.env("LEASEHOLD_URL", &self.url).arg("run");
        for need in self.kind.needs {
            command.args(["-n", need]);
        }
        if let Some(ttl) = self.kind.ttl {
            command.args(["--ttl", ttl]);
        }
        command.args(["--connect-timeout", "5m", "--", "sh", "-c", &script]);
        let mut process = Process::start(&mut command);
        let closing = || self.shared.closing.load(Ordering::Relaxed);
        within(RUN_MAX, || (process.poll().is_some() || closing()).then_some(()));
        let told = process.poll().is_none() && closing();
        if told {
            process.signal(Signal::SIGTERM);
        }
        let Some(output) = process.wait_within(PATIENCE) else {
            let said = process.stderr.text();
            return Finished { kind: self.kind.name, code: HANGS, said };
        };
        let lines: Vec<&str> = output.stderr.lines().collect();
        let said = lines[lines.len().saturating_sub(12)..].join("\n");
        // One that was told to stop has ended well.
        let code = output.code.filter(|code| !(told && *code == 128 + Signal::SIGTERM as i32));
        Finished { kind: self.kind.name, code: if told { code.unwrap_or(0) } else { code.unwrap_or(BY_SIGNAL) }, said }
    }
}

/// A probe's life: a lease, its release, a pause, over whatever happens to the brokers.
fn probe(urls: &str, number: usize, shared: &Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        let urls = urls.split(',').map(|url| BaseUrl::parse(url).expect("a loopback URL is a base")).collect();
        let options = Options {
            owner: Some(format!("probe-{number}")),
            connect_timeout_ms: u64::try_from(RUN_MAX.as_millis()).unwrap_or(u64::MAX),
            ..Options::new(urls)
        };
        let client = Client::connect(options).await.expect("a session can be opened");
        let mut paces = tokio::time::interval(PROBE_PAUSE);
        paces.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !shared.closing.load(Ordering::Relaxed) {
            paces.tick().await;
            if let Err(error) = lease(&client, number, shared).await {
                locked(&shared.complaints).push(format!("probe-{number}: {error}"));
                break;
            }
        }
        // Fails where the session is over already, which was complained of.
        let _ = client.close().await;
    });
}

/// One lease of a probe. The highest fence per resource is noted while the lease is held.
async fn lease(client: &Client, number: usize, shared: &Shared) -> Result<(), String> {
    let request = ClaimRequest { needs: vec!["probe".to_owned()], ..ClaimRequest::default() };
    let lease = client.acquire(request).await.map_err(|error| format!("no lease: {error}"))?;
    let (fence, name) = (lease.lease(), lease.info().resources["probe"][0].name.clone());
    locked(&shared.grants).push((number, boot_now()));
    let before = locked(&shared.fences).insert(name.clone(), fence);
    if before.is_some_and(|before| before >= fence) {
        locked(&shared.complaints).push(format!("{name}: fence {fence} after {before:?}"));
    }
    // A lease that was lost is over without a release, which is told so.
    lease.release(Some("passed")).await.map_err(|error| format!("no release of {fence}: {error}"))?;
    Ok(())
}
