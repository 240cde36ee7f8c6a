//! The table: one line for every job and size, and what misses its target.

use super::jobs::{GROWTH, Target};

/// Medians of one evaluator's runs.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Peak resident memory, KiB.
    pub rss_kib: i64,
}

/// A job's figures: igloo first, then the yardsticks in the order of the head.
#[derive(Clone, Debug)]
pub struct Row {
    /// The job.
    pub name: String,
    /// What it may cost.
    pub target: Target,
    /// At the one size.
    pub small: Vec<Sample>,
    /// At the larger one.
    pub large: Option<Vec<Sample>>,
}

/// Growth beyond this much more than the input's is pointed out: sorting grows a little faster than its input does.
const GROWTH_SLACK: f64 = 1.5;

/// Less than this is lost in the noise of starting a process, seconds.
const MEASURABLE_SECONDS: f64 = 0.02;

/// Prints the names of the columns.
pub fn head(evaluators: &[&str]) {
    let columns = evaluators.iter().map(|name| format!("{name:>12}"));
    let columns: String = columns.collect();
    let ratios = "   CPU ratios";
    println!(
        "\n{:<22} CPU s:{columns} {ratios:<16} MiB:{columns}   memory ratios   growth",
        ""
    );
}

/// Prints a job's lines.
pub fn show(row: &Row) {
    let small = if row.large.is_some() { "small" } else { "" };
    line(&row.name, small, &row.small, "");
    if let Some(large) = &row.large {
        let growths = growths(&row.small, large);
        let growths: Vec<String> = growths.iter().map(|growth| format!("{growth:.1}x")).collect();
        line("", &format!("x{GROWTH}"), large, &growths.join(" "));
    }
}

/// Says what misses its target and what grows faster than its input.
pub fn verdict(rows: &[Row]) {
    let misses: Vec<String> = rows.iter().flat_map(misses).collect();
    println!("\n{} rows, {} misses", rows.len(), misses.len());
    for miss in misses {
        println!("MISS: {miss}");
    }
}

fn line(name: &str, size: &str, samples: &[Sample], growth: &str) {
    let seconds: String = samples
        .iter()
        .map(|sample| format!("{:>12.3}", sample.cpu_seconds))
        .collect();
    let memory: String = samples
        .iter()
        .map(|sample| format!("{:>12}", sample.rss_kib / 1024))
        .collect();
    let cpu = ratios(samples, |sample| sample.cpu_seconds);
    let rss = ratios(samples, kib);
    println!("{name:<22} {size:>5} {seconds}   {cpu:<14}     {memory}   {rss:<14}  {growth}");
}

/// igloo's figure as a part of every yardstick's.
fn ratios(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> String {
    let Some((ours, others)) = samples.split_first() else {
        return String::new();
    };
    let ratios = others
        .iter()
        .map(|other| format!("{:.2}x", figure(ours) / figure(other).max(f64::EPSILON)));
    ratios.collect::<Vec<_>>().join(" ")
}

fn growths(small: &[Sample], large: &[Sample]) -> Vec<f64> {
    let pairs = small.iter().zip(large);
    pairs
        .map(|(small, large)| large.cpu_seconds / small.cpu_seconds.max(1e-4))
        .collect()
}

fn misses(row: &Row) -> Vec<String> {
    let mut misses = Vec::new();
    let sizes = [("", Some(&row.small)), (" (larger)", row.large.as_ref())];
    for (size, samples) in sizes {
        let Some([ours, current, ..]) = samples.map(Vec::as_slice) else {
            continue; // no yardstick, no verdict
        };
        let cpu = ours.cpu_seconds / current.cpu_seconds.max(f64::EPSILON);
        if cpu > row.target.cpu {
            misses.push(format!(
                "{}{size}: {cpu:.2}x CPU, at most {} is wanted",
                row.name, row.target.cpu
            ));
        }
        let memory = kib(ours) / kib(current).max(f64::EPSILON);
        if let Some(most) = row.target.memory
            && memory > most
        {
            misses.push(format!(
                "{}{size}: {memory:.2}x memory, at most {most} is wanted",
                row.name
            ));
        }
    }
    if let (Some(ours), Some(large)) = (row.small.first(), &row.large)
        && ours.cpu_seconds > MEASURABLE_SECONDS
        && let Some(growth) = growths(&row.small, large).first()
        && *growth > GROWTH_SLACK * growth_of_input()
    {
        misses.push(format!(
            "{}: {growth:.1}x the time for {GROWTH}x the work",
            row.name
        ));
    }
    misses
}

#[allow(clippy::cast_precision_loss, reason = "a small number")]
fn growth_of_input() -> f64 {
    GROWTH as f64
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn kib(sample: &Sample) -> f64 {
    sample.rss_kib as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(small: [f64; 2], large: [f64; 2], rss_kib: [i64; 2]) -> Row {
        let samples = |cpu: [f64; 2]| {
            let pairs = cpu.into_iter().zip(rss_kib);
            pairs
                .map(|(cpu_seconds, rss_kib)| Sample { cpu_seconds, rss_kib })
                .collect()
        };
        Row {
            name: "job".to_owned(),
            target: Target {
                cpu: 1.0,
                memory: Some(0.85),
            },
            small: samples(small),
            large: Some(samples(large)),
        }
    }

    #[test]
    fn what_misses_a_target_is_named() {
        assert_eq!(
            misses(&row([0.1, 0.2], [0.4, 0.8], [80, 100])),
            Vec::<String>::new()
        );
        let slow = misses(&row([0.1, 0.2], [0.9, 0.8], [90, 100]));
        assert_eq!(slow.len(), 4, "{slow:?}"); // memory twice, time once, growth once
        assert!(slow.iter().any(|miss| miss.contains("9.0x the time")));
    }
}
