//! How busy this host is, and which host it is, for whoever chooses among builders.
//!
//! Source: Documentation/accounting/psi.rst (Linux); machine-id(5), which asks that the id be shown only as a keyed hash.

use igloo_castore::digest::BlobDigest;

/// What lets work wait: each has a file in /proc/pressure.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];
/// Bytes read of a file.
const FILE_BYTES_MAX: u64 = 4096;

/// The share of the last ten seconds in which some work waited for processors, memory or disks, whichever is worst, in
/// thousandths; 0 where the kernel does not tell.
pub fn pressure_permille() -> u32 {
    let files = RESOURCES.iter().map(|name| format!("/proc/pressure/{name}"));
    let texts = files.filter_map(|path| read(&path));
    texts
        .filter_map(|text| some_avg10_permille(&text))
        .max()
        .unwrap_or(0)
}

/// Names this host, the same for as long as its operating system stays installed; empty where it has no id.
pub fn machine_name() -> String {
    read("/etc/machine-id").map_or_else(String::new, |id| name_of(id.trim()))
}

fn name_of(id: &str) -> String {
    if id.is_empty() || id == "uninitialized" {
        return String::new();
    }
    let digest = BlobDigest::of(format!("igloo builder on machine {id}").as_bytes());
    digest.as_bytes()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Files of /proc are as long as they turn out to be.
fn read(path: &str) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// From `some avg10=12.34 avg60=…`, in percent.
fn some_avg10_permille(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let tenth = fraction
        .get(..1)
        .and_then(|digit| digit.parse::<u32>().ok())
        .unwrap_or(0);
    Some(
        (whole
            .parse::<u32>()
            .ok()?
            .saturating_mul(10)
            .saturating_add(tenth))
        .min(1000),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=12.34 avg60=0.50 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10_permille(text), Some(123));
        assert_eq!(some_avg10_permille("some avg10=0.00 avg60=0.00"), Some(0));
        assert_eq!(some_avg10_permille("some avg10=100.00"), Some(1000));
        assert_eq!(some_avg10_permille("some avg10=99999999999.0"), None);
        for other in ["", "full avg10=1.00", "some", "some avg10=x"] {
            assert_eq!(some_avg10_permille(other), None, "{other}");
        }
    }

    #[test]
    fn the_id_itself_is_not_shown() {
        let (id, other) = ("0123456789abcdef0123456789abcdef", "x");
        assert_eq!(name_of(id).len(), 32);
        assert_ne!(name_of(id), id);
        assert_ne!(name_of(id), name_of(other));
        assert_eq!(name_of(""), "");
    }
}
