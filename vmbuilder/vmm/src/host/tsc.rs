//! The rate of the processor's time stamp counter.
//!
//! Under software emulation a guest's counter is the host's own. A guest that is told its rate need not measure it
//! against an emulated timer, which fails when the host is busy and leaves the guest without a clock.
#![cfg_attr(target_arch = "x86_64", allow(unsafe_code, reason = "RDTSC has no safe face"))]

/// Measures the rate, kHz; takes some 20 ms. `None` where the counter does not run at one rate for ever.
#[cfg(target_arch = "x86_64")]
pub(super) fn khz() -> Option<u32> {
    use std::time::Duration;
    if !is_invariant(&std::fs::read_to_string("/proc/cpuinfo").ok()?) {
        return None;
    }
    let (first_ticks, first_time) = sample();
    std::thread::sleep(Duration::from_millis(20));
    let (ticks, time) = sample();
    let nanos = time.duration_since(first_time).as_nanos();
    let khz = u128::from(ticks.checked_sub(first_ticks)?)
        .checked_mul(1_000_000)?
        .checked_div(nanos)?;
    u32::try_from(khz)
        .ok()
        .filter(|khz| (100_000..20_000_000).contains(khz))
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn khz() -> Option<u32> {
    None
}

/// The counter and the clock at one moment: of several tries the one with the least time between two looks at the clock,
/// so a preemption in the middle does not count.
#[cfg(target_arch = "x86_64")]
fn sample() -> (u64, std::time::Instant) {
    use std::time::Instant;
    let one = || {
        let before = Instant::now();
        // SAFETY: every x86_64 processor has RDTSC, and it touches no memory.
        let ticks = unsafe { std::arch::x86_64::_rdtsc() };
        (before.elapsed(), (ticks, before))
    };
    let tries = (0..16).map(|_| one());
    tries
        .min_by_key(|(spread, _)| *spread)
        .map_or_else(|| one().1, |(_, sample)| sample)
}

/// Flags of linux/arch/x86/include/asm/cpufeatures.h, as /proc/cpuinfo shows them.
#[cfg(target_arch = "x86_64")]
fn is_invariant(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| {
        ["constant_tsc", "nonstop_tsc"]
            .iter()
            .all(|flag| flags.split_ascii_whitespace().any(|word| word == *flag))
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Two measurements agree to a thousandth, or there is no rate to tell a guest.
    #[test]
    fn the_rate_is_stable() {
        let (Some(first), Some(second)) = (khz(), khz()) else {
            return;
        };
        assert!(first.abs_diff(second) < first / 1000, "{first} and {second} kHz");
    }

    #[test]
    fn a_counter_that_stops_has_no_rate() {
        assert!(is_invariant(
            "flags\t\t: fpu tsc constant_tsc rep_good nonstop_tsc\n"
        ));
        assert!(!is_invariant("flags\t\t: fpu tsc constant_tsc_x nonstop_tsc\n"));
        assert!(!is_invariant(""));
    }
}
