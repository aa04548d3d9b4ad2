//! What the machine tells of processes: open files, memory, processor time. Only for display,
//! but for the limit of open files, without which many connections cannot be opened.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cli::Failure;

/// Raises the soft limit of open files as far as is needed and allowed.
pub(super) fn raise_open_files(needed: u64) -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| Failure::own(format!("the limit of open files cannot be read: {error}")))?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(Failure::refused(format!(
            "so many connections need {needed} open files, and this process may have {hard}: ask for fewer, or raise \
             the hard limit (`ulimit -Hn`)"
        )));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard)
        .map_err(|error| Failure::own(format!("the limit of open files cannot be raised: {error}")))
}

/// Resident memory of a process in KiB; `None` where the system does not tell.
pub(super) fn rss_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time of a process so far, user and system, in microseconds.
pub(super) fn cpu_us(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    // The name, in parentheses, may have spaces; user and system time are the 12th and 13th after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks * 1_000_000 / u64::try_from(per_second).ok().filter(|number| *number > 0)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{cpu_us, rss_kib};

    #[test]
    fn a_process_is_told_by_its_number() {
        let own = std::process::id();
        assert!(rss_kib(own).is_some_and(|kib| kib > 100));
        assert!(cpu_us(own).is_some());
        assert_eq!(rss_kib(u32::MAX), None);
    }
}
