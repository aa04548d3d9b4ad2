//! Runs the simulation for as long as one likes: many short worlds, one seed each, counted up.
//!
//! ```text
//! cargo run --release --all-features --example simulate -- --steps 10000000
//! ```
//!
//! First one seed is run twice, and both runs must be the same to the byte. A seed that breaks a
//! promise is printed with the commit, the promise and the shortest script that still breaks it,
//! which `--script FILE` plays again, written down line by line with `--trace`.

use std::process::ExitCode;

use leasehold::clock;
use leasehold::testing::{Found, Script, Stats, Wait, run, shrink};

const USAGE: &str =
    "simulate [--steps N] [--seed S] [--seconds T] [--script FILE] [--trace] [--no-shrink] [--keep-going] [--eta]";
/// Between two lines of progress, milliseconds.
const PROGRESS_MS: u64 = 10_000;

#[derive(Default)]
struct Options {
    steps: Option<u64>,
    seed: Option<u64>,
    seconds: Option<u64>,
    script: Option<String>,
    trace: bool,
    no_shrink: bool,
    keep_going: bool,
    eta: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
        let number = |text: String| text.replace('_', "").parse::<u64>().map_err(|error| format!("{text}: {error}"));
        match word.as_str() {
            "--steps" => options.steps = Some(number(value()?)?),
            "--seed" => options.seed = Some(number(value()?)?),
            "--seconds" => options.seconds = Some(number(value()?)?),
            "--script" => options.script = Some(value()?),
            "--trace" => options.trace = true,
            "--no-shrink" => options.no_shrink = true,
            "--keep-going" => options.keep_going = true,
            "--eta" => options.eta = true,
            _ => return Err(format!("{word} is not known\n{USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    // A panic inside a run is told as a broken promise.
    std::panic::set_hook(Box::new(|_| {}));
    let done = options().and_then(|options| match &options.script {
        Some(file) => replay(file, options.trace),
        None => many(&options),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn replay(file: &str, traced: bool) -> Result<bool, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let script: Script = text.parse()?;
    if traced {
        let outcome = run(&script, true);
        print!("{}", outcome.trace);
        return Ok(told(outcome.broken.map(|broken| Found { broken, script })));
    }
    Ok(told(script.play().broken.map(|broken| Found { broken, script })))
}

/// Prints what was found; answers whether nothing was.
fn told(found: Option<Found>) -> bool {
    let Some(Found { broken, script }) = found else { return true };
    println!("BROKEN: {}", broken.promise);
    println!("  how: {}", broken.how);
    println!("  seed {} at commit {}", script.seed, commit());
    println!("  script ({} actions), for --script:\n{script}", script.actions.len());
    false
}

fn commit() -> String {
    let told = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output().ok();
    let told = told.filter(|told| told.status.success()).and_then(|told| String::from_utf8(told.stdout).ok());
    told.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn many(options: &Options) -> Result<bool, String> {
    let first = options.seed.unwrap_or_else(|| clock::boot_now_us() % 1_000_000_000);
    let script = Script::of_seed(first);
    if options.trace {
        print!("{}", run(&script, true).trace);
        return Ok(true);
    }
    // A run that panics is told as a broken promise below.
    let twice = std::panic::catch_unwind(|| [run(&script, true).trace, run(&script, true).trace]);
    if twice.is_ok_and(|[one, two]| one != two) {
        return Err(format!("seed {first}: two runs differ; nothing that follows could be believed"));
    }
    let (begun, mut said) = (clock::boot_now(), clock::boot_now());
    let unless_timed = if options.seconds.is_some() { u64::MAX } else { 1_000_000 };
    let steps_max = options.steps.unwrap_or(unless_timed);
    let (mut stats, mut waits, mut seed, mut broken) = (Stats::default(), Vec::new(), first, 0_u64);
    let enough = |ms: u64| options.seconds.is_some_and(|seconds| ms >= seconds * 1_000);
    while stats.steps < steps_max && !enough(clock::boot_now().since(begun)) {
        let outcome = Script::of_seed(seed).play();
        stats.add(&outcome.stats);
        if options.eta {
            waits.extend(outcome.waits);
        }
        if let Some(how) = outcome.broken {
            broken += 1;
            let script = Script::of_seed(seed);
            let found = if options.no_shrink { None } else { shrink(&script) };
            told(Some(found.unwrap_or(Found { broken: how, script })));
            if !options.keep_going {
                break;
            }
        }
        seed += 1;
        if clock::boot_now().since(said) >= PROGRESS_MS {
            said = clock::boot_now();
            println!("{} steps, seeds {first} to {}, {broken} broken", stats.steps, seed - 1);
        }
    }
    summary(&stats, first, seed, clock::boot_now().since(begun));
    if options.eta {
        tell_waits(&waits);
    }
    Ok(broken == 0)
}

fn summary(stats: &Stats, first: u64, next: u64, ms: u64) {
    let rate = stats.steps * 1_000 / ms.max(1);
    println!("{} steps, seeds {first} to {}, {} ms, {rate} steps/s", stats.steps, next.saturating_sub(1), ms);
    let list = |title: &str, counts: &std::collections::BTreeMap<&'static str, u64>| {
        let words: Vec<String> = counts.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        println!("{title}: {}", words.join(", "));
    };
    list("happened", &stats.happened);
    list("events", &stats.events);
}

fn tell_waits(waits: &[Wait]) {
    let mut sorted: Vec<u64> = waits.iter().map(|wait| wait.actual_ms).collect();
    sorted.sort_unstable();
    let at = |share: usize| sorted.get(sorted.len() * share / 100).copied().unwrap_or(0);
    println!("waits of {} claims: median {} ms, p90 {} ms, p99 {} ms", sorted.len(), at(50), at(90), at(99));
}
