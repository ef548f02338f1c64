//! Processor time and memory of processes, as the kernel accounts them in `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

/// User and system time that some processes have spent, all their threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTime(Duration);

impl CpuTime {
    /// Summed over these processes.
    pub fn of(pids: &[u32]) -> Result<Self> {
        pids.iter().map(|pid| read(&pid.to_string())).sum::<Result<Duration>>().map(Self)
    }

    /// Of this process.
    pub fn own() -> Result<Self> {
        read("self").map(Self)
    }

    pub fn since(&self, before: &Self) -> Duration {
        self.0.saturating_sub(before.0)
    }
}

fn read(pid: &str) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} has another form"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// `utime` and `stime`, the 14th and 15th field. The second is the program's name in
/// parentheses and may hold spaces, so fields are counted from its end.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The memory that a process keeps in RAM now (`VmRSS`), in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let kib = field(pid, "status", |text| named(text, "VmRSS:")?.strip_suffix("kB"))?;
    Ok(kib * 1024)
}

/// The bytes that a process has had written to disk since it began.
pub fn written_bytes(pid: u32) -> Result<u64> {
    field(pid, "io", |text| named(text, "write_bytes:"))
}

/// One number in one of a process's files.
fn field(pid: u32, file: &str, find: fn(&str) -> Option<&str>) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let found = find(&text).and_then(|number| number.trim().parse().ok());
    found.with_context(|| format!("{path} has another form"))
}

/// What follows this name in a line of its own.
fn named<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 9 1 2";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("42 (x) S 1"), None);
    }

    #[test]
    fn values_are_found_by_the_whole_name() {
        let io = "write_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!(named(io, "write_bytes:"), Some("4096"));
        assert_eq!(named("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_is_accounted() {
        let before = CpuTime::own().expect("/proc");
        let mut sum = 0u64;
        while CpuTime::own().expect("/proc").since(&before).is_zero() {
            sum = (0..100_000u64).fold(sum, |sum, number| sum ^ std::hint::black_box(number));
        }
        assert!(resident_bytes(std::process::id()).expect("/proc") > 100_000, "{sum}");
        written_bytes(std::process::id()).expect("/proc");
    }
}
