//! Running a program and measuring it: wall time, CPU time, peak memory.
#![allow(
    unsafe_code,
    reason = "wait4 is the only way to learn one child's peak memory, and std does not offer it"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What one run of a program used.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// From start to end.
    pub wall: Duration,
    /// User and system time, of children it waited for too.
    pub cpu: Duration,
    /// Peak resident memory, KiB.
    pub rss_kib: i64,
}

/// Runs a program to its end with its stdout thrown away.
pub fn measure(command: &mut Command) -> Result<Used> {
    measure_into(command, Stdio::null())
}

/// Runs a program to its end, its stdout going where it is told to.
pub fn measure_into(command: &mut Command, stdout: Stdio) -> Result<Used> {
    let start = Instant::now();
    let child = command
        .stdout(stdout)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let id = libc::pid_t::try_from(child.id()).context("a process id out of range")?;
    let mut status = 0;
    // SAFETY: `rusage` is plain data for which all zeros is a value; `id` is our own child, which nobody else waits for
    // because `child` is not used again; both pointers are to live locals.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(id, &raw mut status, 0, &raw mut usage), usage)
    };
    let wall = start.elapsed();
    if waited != id || status != 0 {
        bail!("{command:?} failed (status {status})");
    }
    Ok(Used {
        wall,
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        rss_kib: usage.ru_maxrss,
    })
}

/// The median of the runs by `key`.
pub fn median<K: PartialOrd + Copy>(runs: &[Used], key: impl Fn(&Used) -> K) -> K {
    let mut keys: Vec<K> = runs.iter().map(key).collect();
    keys.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    keys[keys.len() / 2]
}

/// Runs two programs alternately `times` times: ours, the yardstick.
pub fn interleave(
    times: usize,
    mut ours: impl FnMut() -> Result<Used>,
    mut yardstick: impl FnMut() -> Result<Used>,
) -> Result<(Vec<Used>, Vec<Used>)> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..times {
        a.push(ours()?);
        b.push(yardstick()?);
    }
    Ok((a, b))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
