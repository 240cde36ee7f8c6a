//! Records are what they were when they are read back, and nothing else is taken for one.

#![expect(clippy::unwrap_used, reason = "it is a test")]

use std::collections::BTreeSet;

use igloo_coordinator::{
    BuilderId, ClientId, ClientOptions, LeaseId, OnFailure, Priority, Purpose, Record, Target, Want, WantId,
};
use nix_compat::derivation::OutputName;
use nix_compat::store_path::{StorePath, StorePathName};
use proptest::prelude::*;

fn path() -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), "[a-z0-9+._?=-]{1,20}").prop_filter_map("a name", |(digest, name)| {
        Some(StorePath::new(digest, StorePathName::new(&name).ok()?))
    })
}

fn name() -> impl Strategy<Value = OutputName> {
    "[a-zA-Z0-9+._?=-]{1,9}".prop_map(|name| OutputName::new(&name).unwrap())
}

fn want() -> impl Strategy<Value = Want> {
    let outputs = (path(), prop::collection::btree_set(name(), 0..4))
        .prop_map(|(drv, outputs): (_, BTreeSet<_>)| Target::Outputs { drv, outputs });
    let target = prop_oneof![path().prop_map(Target::Path), outputs];
    let purpose = prop::sample::select(vec![
        Purpose::ImportFromDerivation,
        Purpose::Goal,
        Purpose::Prefetch,
    ]);
    let priority = prop::sample::select(vec![Priority::High, Priority::Normal, Priority::Low]);
    (any::<u64>(), target, purpose, priority).prop_map(|(id, target, purpose, priority)| Want {
        id: WantId(id),
        target,
        purpose,
        priority,
    })
}

fn record() -> impl Strategy<Value = Record> {
    let client = || any::<u64>().prop_map(ClientId);
    let lease = || any::<u64>().prop_map(LeaseId);
    let mode = prop::sample::select(vec![OnFailure::Stop, OnFailure::KeepGoing]);
    prop_oneof![
        (client(), mode, any::<u32>()).prop_map(|(client, on_failure, weight)| Record::ClientCame {
            client,
            options: ClientOptions { on_failure, weight },
        }),
        client().prop_map(|client| Record::ClientGone { client }),
        (client(), want()).prop_map(|(client, want)| Record::Wanted { client, want }),
        (client(), any::<u64>()).prop_map(|(client, want)| Record::Answered {
            client,
            want: WantId(want),
        }),
        (lease(), any::<u32>(), any::<u64>(), path()).prop_map(|(lease, attempt, builder, drv)| {
            Record::Leased {
                lease,
                attempt,
                builder: BuilderId(builder),
                drv,
            }
        }),
        lease().prop_map(|lease| Record::Released { lease }),
        (path(), lease(), prop::collection::vec((name(), path()), 0..4))
            .prop_map(|(drv, lease, outputs)| Record::Committed { drv, lease, outputs }),
        (path(), "[ -~äß]{0,40}").prop_map(|(drv, reason)| Record::Failed { drv, reason }),
        lease().prop_map(|last| Record::LeasesGiven { last }),
    ]
}

proptest! {
    /// Printing and parsing are inverse.
    #[test]
    fn records_survive(record in record()) {
        let line = record.to_string();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(line.parse::<Record>().unwrap(), record);
    }

    /// A line that was cut off is another record only where a number or a name was cut; it never panics.
    #[test]
    fn torn_lines_are_no_danger(record in record(), cut in any::<prop::sample::Index>(), junk in ".{0,40}") {
        let line = record.to_string();
        let at = cut.index(line.len() + 1);
        if line.is_char_boundary(at) {
            let _ = line[..at].parse::<Record>();
        }
        let _ = junk.parse::<Record>();
        let longer = [line.as_str(), " x"].concat();
        prop_assert!(longer.parse::<Record>().is_err() || line.starts_with("failed"));
    }
}
