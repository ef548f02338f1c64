//! The warm-up and the window after it: when counting begins and ends, and what processes
//! spent between.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::load::{Extent, Load};
use crate::probe::process::{CpuTime, resident_bytes};
use crate::tally::Tally;

/// How often the progress bar moves.
const PROGRESS_STEP: Duration = Duration::from_millis(200);

/// What a window took.
pub struct Measured {
    pub took: Duration,
    /// By this process.
    pub own_cpu: Duration,
    /// `None` without known servers.
    pub servers: Option<Servers>,
}

/// Summed over the servers.
pub struct Servers {
    pub cpu: Duration,
    pub resident_before: u64,
    pub resident_after: u64,
}

/// Waits out the warm-up and the window, and measures the latter; `servers` are the ids of
/// the processes whose time and memory count.
pub async fn measure(load: &Load, servers: &[u32], title: &str, tally: &Tally) -> Result<Measured> {
    let bar = bar(load, title);
    rest(load.warmup, &bar).await;
    let (own_before, before) = (CpuTime::own()?, CpuTime::of(servers)?);
    let resident_before = resident(servers)?;
    let began = Instant::now();
    tally.open_window();
    match load.extent {
        Extent::Time(window) => rest(window, &bar).await,
        Extent::Requests(count) => all_ended(count, tally, &bar).await,
    }
    tally.close_window();
    let took = began.elapsed();
    let own_cpu = CpuTime::own()?.since(&own_before);
    let cpu = CpuTime::of(servers)?.since(&before);
    bar.finish_and_clear();
    let spent = Servers { cpu, resident_before, resident_after: resident(servers)? };
    Ok(Measured { took, own_cpu, servers: (!servers.is_empty()).then_some(spent) })
}

fn resident(servers: &[u32]) -> Result<u64> {
    servers.iter().map(|pid| resident_bytes(*pid)).sum()
}

/// Shown on a terminal only; in milliseconds or in requests.
fn bar(load: &Load, title: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:40} {bar:30} {percent:>3}%")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let length = match load.extent {
        Extent::Time(window) => millis(load.warmup + window),
        Extent::Requests(count) => millis(load.warmup) + count,
    };
    ProgressBar::new(length).with_style(style).with_message(title.to_owned())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn rest(whole: Duration, bar: &ProgressBar) {
    let until = Instant::now() + whole;
    while Instant::now() < until {
        let step = PROGRESS_STEP.min(until - Instant::now());
        sleep(step).await;
        bar.inc(millis(step));
    }
}

async fn all_ended(count: u64, tally: &Tally, bar: &ProgressBar) {
    let warmed_up = bar.position();
    let progress = async {
        loop {
            sleep(PROGRESS_STEP).await;
            bar.set_position(warmed_up + count - tally.outstanding().unwrap_or(0));
        }
    };
    tokio::select! {
        () = tally.all_ended() => (),
        () = progress => (),
    }
}
