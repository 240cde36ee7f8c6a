//! The order of any graph of references, compared with what an order must be.

use std::sync::Arc;

use igloo_store::DeclaredNar;
use nix_compat::store_path::StorePathName;
use proptest::prelude::*;

use super::*;
use crate::substituter::{Offer, OfferPlace};
use crate::trust::Vouched;

fn path(number: u8) -> StorePath {
    StorePath::new([number; 20], StorePathName::new("x").unwrap())
}

fn candidate(number: u8, references: &[u8]) -> Candidate {
    let node = igloo_castore::Directory::new().node();
    let offer = Offer {
        nar: DeclaredNar {
            path: path(number),
            nar_sha256: [0; 32],
            nar_size: 1,
            references: references.iter().map(|number| path(*number)).collect(),
            deriver: None,
            signatures: Vec::new(),
            content_address: None,
        },
        vouched: Vouched::Anyone,
        download_size: None,
        from: "x".into(),
        place: OfferPlace::Tree { node },
    };
    Candidate {
        source: 0,
        offer: Arc::new(offer),
    }
}

proptest! {
    /// Every path is ordered after its references, or fails for a reason that is true; none is lost.
    #[test]
    fn any_graph_is_ordered(
        graph in prop::collection::btree_map(0u8..20, prop::collection::vec(0u8..30, 0..4), 0..20),
        present in prop::collection::btree_set(20u8..30, 0..10),
    ) {
        let mut plan = Plan::default();
        for (number, references) in &graph {
            plan.candidates.insert(path(*number), candidate(*number, references));
        }
        let named: BTreeSet<u8> = graph.values().flatten().copied().collect();
        for number in named.iter().filter(|number| !graph.contains_key(number)) {
            if present.contains(number) {
                plan.present.insert(path(*number));
            } else {
                plan.failed.insert(path(*number), SubstituteError::NotFound { path: path(*number) });
            }
        }
        sort(&mut plan);
        let mut done = plan.present.clone();
        for path in &plan.order {
            let references = &plan.candidates[path].offer.nar.references;
            prop_assert!(references.iter().all(|to| to == path || done.contains(to)));
            prop_assert!(done.insert(path.clone()), "once");
        }
        for number in graph.keys() {
            prop_assert!(done.contains(&path(*number)) != plan.failed.contains_key(&path(*number)));
        }
        prop_assert_eq!(plan.order.len(), plan.candidates.len());
        for (from, error) in &plan.failed {
            match error {
                SubstituteError::Reference { path, reference } => {
                    prop_assert_eq!(path, from);
                    prop_assert!(plan.failed.contains_key(reference));
                }
                // whoever is in a circle, or refers to one, has a reference that is not there either
                SubstituteError::Cycle { path } => {
                    let references = &graph[&path.digest()[0]];
                    prop_assert!(references.iter().any(|to| plan.failed.contains_key(&self::path(*to))));
                }
                SubstituteError::NotFound { .. } => {}
                other => prop_assert!(false, "{other}"),
            }
        }
    }
}
