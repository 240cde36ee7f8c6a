use bytes::Bytes;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

pub(crate) fn lease() -> impl Strategy<Value = Lease> {
    ("[a-zA-Z0-9._-]{1,64}", vec(any::<u8>(), 1..513), any::<u64>()).prop_map(|(owner, subject, id)| {
        Lease::new(
            LeaseOwner::try_from(owner.as_str()).unwrap(),
            Bytes::from(subject),
            id,
        )
        .unwrap()
    })
}

proptest! {
    #[test]
    fn leases_round_trip(lease in lease(), number in any::<u64>()) {
        prop_assert_eq!(read_lease(Some(lease_message(&lease))), Ok(lease.clone()));
        for error in [
            LeaseError::Unknown { lease: lease.clone() },
            LeaseError::Outdated { lease: lease.clone(), latest: number },
            LeaseError::TakenOver { lease: lease.clone() },
        ] {
            prop_assert_eq!(read_lease_failure(lease_failure(&error)), Ok(error));
        }
        let status = LeaseStatus { log_bytes: number, is_ended: number % 2 == 0, lease };
        let message = leases_message(std::slice::from_ref(&status));
        let owner = status.lease.owner().clone();
        prop_assert_eq!(read_leases(message, &owner), Ok(vec![status]));
    }

    #[test]
    fn offers_round_trip(
        names in vec(btree_set("[a-z0-9-]{1,9}", 0..4), 4),
        sizes in any::<[u32; 2]>(),
        network in any::<bool>(),
        unattended in proptest::option::of(any::<u32>()),
    ) {
        let offer = BuilderOffer {
            systems: names[0].clone(),
            features: names[1].clone(),
            mandatory_features: names[2].clone(),
            slots: sizes[0],
            memory_mib: sizes[1],
            network,
            stores: names[3].clone(),
            machine: "m".into(),
            unattended: unattended.map(|millis| Duration::from_millis(millis.into())),
        };
        prop_assert_eq!(read_offer(&offer_message(offer.clone())), Ok(offer));
    }

    #[test]
    fn strangers_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = crate::decode::attach(&bytes);
        let _ = crate::decode::offer(&bytes);
    }
}

#[test]
fn wrong_leases_are_refused() {
    let lease = |owner: &str, size: usize| v1::Lease {
        owner: owner.into(),
        subject: vec![b'x'; size].into(),
        id: 1,
    };
    assert!(read_lease(Some(lease("me", 512))).is_ok());
    for (wrong, field) in [
        (None, "lease"),
        (Some(lease("", 1)), "owner"),
        (Some(lease("a b", 1)), "owner"),
        (Some(lease(&"x".repeat(65), 1)), "owner"),
        (Some(lease("me", 0)), "subject"),
        (Some(lease("me", 513)), "subject"),
    ] {
        assert_eq!(read_lease(wrong).unwrap_err().field, field);
    }
}

#[test]
fn wrong_lists_are_refused() {
    let owner = LeaseOwner::try_from("me").unwrap();
    let status = |owner: &str| v1::LeaseStatus {
        lease: Some(v1::Lease {
            owner: owner.into(),
            subject: "x".into(),
            id: 1,
        }),
        ..Default::default()
    };
    let of = |leases| read_leases(v1::ListLeasesResponse { leases }, &owner);
    assert_eq!(of(vec![status("me")]).unwrap().len(), 1);
    assert_eq!(of(vec![status("you")]).unwrap_err().field, "owner");
    assert_eq!(of(vec![v1::LeaseStatus::default()]).unwrap_err().field, "lease");
    assert_eq!(
        of(vec![status("me"); LEASES_MAX + 1]).unwrap_err().field,
        "leases"
    );
}

/// A hostile builder cannot fill memory or a terminal, nor offer more than it says.
#[test]
fn offers_are_cut_and_cleaned() {
    let offer = read_offer(&v1::Capabilities {
        systems: (0..1000).map(|index| format!("\x1b{index}")).collect(),
        stores: (0..1000).map(|index| index.to_string()).collect(),
        ..Default::default()
    })
    .unwrap();
    assert_eq!((offer.systems.len(), offer.stores.len()), (NAMES_MAX, NAMES_MAX));
    assert!(offer.systems.iter().all(|name| !name.contains('\x1b')));
    let many = v1::Capabilities {
        mandatory_features: vec!["x".into(); NAMES_MAX + 1],
        ..Default::default()
    };
    assert_eq!(read_offer(&many).unwrap_err().field, "mandatory_features");
    assert_eq!(
        read_load(v1::Load {
            permille: u32::MAX,
            running: 1
        })
        .permille,
        1000
    );
}
