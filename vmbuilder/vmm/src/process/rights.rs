//! Whether this process could start a child as somebody else.

use std::fs;

/// Bits of `CapEff` (linux/capability.h).
const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;

/// Whether a child may become user and group `id`: this process is root, holds the capabilities, and the number exists in
/// its user namespace. Root of a container that maps only itself is nobody on the host already.
pub fn may_become(id: u32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    super::sys::effective_uid() == 0
        && has_capabilities(&read("status"))
        && maps(&read("uid_map"), id)
        && maps(&read("gid_map"), id)
        && read("setgroups").trim_end() != "deny"
}

fn has_capabilities(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (CAP_SETGID | CAP_SETUID) == CAP_SETGID | CAP_SETUID)
}

/// Lines of `inside outside count` (user_namespaces(7)).
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.nth(1)) {
            (Some(Ok(inside)), Some(Ok(count))) => {
                (inside..inside.saturating_add(count)).contains(&u64::from(id))
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_maps_only_root_has_nobody_else() {
        let whole = "         0          0 4294967295\n";
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        let single = "         0       1000          1\n";
        assert!(maps(whole, 65534));
        assert!(maps(rootless, 65534));
        assert!(!maps(single, 65534));
        assert!(!maps("", 0));
        assert!(!maps("x y z\n1 2\n", 1));
    }

    #[test]
    fn both_capabilities_are_needed() {
        assert!(has_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(has_capabilities("CapEff:\t00000000000000c0\n"));
        assert!(!has_capabilities("CapEff:\t0000000000000080\n"));
        assert!(!has_capabilities("CapEff:\tzz\n"));
    }
}
