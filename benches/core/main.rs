//! What the core costs, in time and, under callgrind, in instructions.
//!
//! `scripts/bench growth` and `scripts/bench instructions` run this. Each piece is a name and a
//! count of how often it was done; without callgrind the time each took is printed, under it a
//! dump is written for each, with its name.
//!
//!     core growth RESOURCES PER_POOL     grants and releases with as many waiters as resources
//!     core pieces                        the pieces that a lease cycle is made of, and worst cases

mod callgrind;
mod growth;
mod lab;
mod pieces;

use leasehold::clock::boot_now_us;

/// Does `work`, which is `times` of the piece called `name`, and tells what it took.
pub fn measure<T>(name: &str, times: usize, work: impl FnOnce() -> T) -> T {
    let began = boot_now_us();
    callgrind::begin();
    let done = work();
    callgrind::end(&format!("{name} {times}"));
    tell(name, times, began);
    done
}

/// Prints a line of JSON on what began then, on [`boot_now_us`].
pub fn tell(name: &str, times: usize, began: u64) {
    let ns = boot_now_us().saturating_sub(began) * 1_000 / times.max(1) as u64;
    println!("{}", serde_json::json!({ "piece": name, "times": times, "ns": ns }));
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["growth", resources, per_pool] => {
            let number = |word: &str| word.parse().expect("a number");
            growth::run(number(resources), number(per_pool));
        }
        ["pieces"] => pieces::run(),
        _ => {
            eprintln!("usage: core growth RESOURCES PER_POOL | core pieces");
            std::process::exit(2);
        }
    }
}
