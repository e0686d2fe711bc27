//! What a server process uses: CPU seconds and bytes on disk.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use host::Stopwatch;

/// Ticks of the kernel's clock per second (`USER_HZ`, fixed on Linux).
const TICKS_PER_S: f64 = 100.0;
/// A server that uses less than this share of a core for a second has nothing left to do.
const IDLE_SHARE: f64 = 0.05;
/// How long a server may go on working after the last answer.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// User and system ticks of a process, with those of its children that ended if wanted.
fn ticks(stat: &str, with_ended_children: bool) -> f64 {
    // The name in brackets may hold anything; the fields after it are numbers: utime is the 12th, then stime, cutime, cstime.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let n = if with_ended_children { 4 } else { 2 };
    after_name.split(' ').skip(11).take(n).filter_map(|t| t.parse::<f64>().ok()).sum()
}

fn parent(stat: &str) -> Option<u32> {
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// CPU seconds that a server has used so far, its children (PostgreSQL has one per session) included.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("CPU time is read from /proc, which lacks the server")?;
    let mut sum = ticks(&own, true);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        // A process that has just ended is counted by its parent.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if parent(&stat) == Some(pid) {
            sum += ticks(&stat, true);
        }
    }
    Ok(sum / TICKS_PER_S)
}

/// Waits until a server has finished what it does after its answers (flush, merge), then gives its CPU seconds.
pub(super) async fn settled_cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stopwatch = Stopwatch::start();
    let mut before = cpu_seconds(pid)?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = cpu_seconds(pid)?;
        if now - before < IDLE_SHARE || stopwatch.elapsed() > SETTLE_MAX {
            return Ok(now);
        }
        before = now;
    }
}

/// Bytes that all files below a folder take on the disk: a file that is made long beforehand takes what is written of it.
pub(super) fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))? {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() { disk_bytes(&entry.path())? } else { std::os::unix::fs::MetadataExt::blocks(&meta) * 512 };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_whatever_the_process_is_called() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 11 12 13 14 20 0 1 0 5";
        assert_eq!((ticks(stat, false), ticks(stat, true), parent(stat)), (23.0, 50.0, Some(7)));
    }

    #[test]
    fn a_busy_process_uses_cpu() {
        let before = cpu_seconds(std::process::id()).expect("this process");
        let stopwatch = Stopwatch::start();
        let mut x = 1u64;
        while stopwatch.elapsed() < Duration::from_millis(200) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(cpu_seconds(std::process::id()).expect("this process") > before + 0.05);
    }
}
