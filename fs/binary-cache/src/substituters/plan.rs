//! What must be fetched, and in which order.
//!
//! Invariants
//! - in `order` every path comes after all it refers to, itself aside;
//! - every path that was reached is here already, in `order`, or failed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use futures::stream::{FuturesUnordered, StreamExt as _};
use igloo_store::path_info::ReadPathInfoError;
use nix_compat::store_path::StorePath;

use super::{Candidate, SubstituteError, Substituters};

/// Look-ups begun for one plan at a time; the bound over all is `look_ups_max`.
const WINDOW: usize = 1024;

/// What must be fetched.
#[derive(Debug, Default)]
pub struct Plan {
    /// Paths to fetch, references first.
    pub order: Vec<StorePath>,
    /// Who offers each.
    pub candidates: BTreeMap<StorePath, Candidate>,
    /// Paths met that are here already; what they refer to is here as well.
    pub present: BTreeSet<StorePath>,
    /// Paths that cannot be had, each with its reason.
    pub failed: BTreeMap<StorePath, SubstituteError>,
}

impl Plan {
    /// Bytes that come over the wire, as far as that is known.
    pub fn download_size(&self) -> u64 {
        let sizes = self
            .candidates
            .values()
            .filter_map(|candidate| candidate.offer.download_size);
        sizes.fold(0, u64::saturating_add)
    }

    /// Bytes of all NARs.
    pub fn nar_size(&self) -> u64 {
        let sizes = self
            .candidates
            .values()
            .map(|candidate| candidate.offer.nar.nar_size);
        sizes.fold(0, u64::saturating_add)
    }
}

enum Found {
    Present,
    Offered(Candidate),
}

pub(super) async fn make(all: &Substituters, wanted: &[StorePath]) -> Result<Plan, SubstituteError> {
    let mut plan = Plan::default();
    let mut met: BTreeSet<StorePath> = wanted.iter().cloned().collect();
    let mut to_ask: VecDeque<StorePath> = met.iter().cloned().collect();
    let mut asked = FuturesUnordered::new();
    loop {
        while asked.len() < WINDOW
            && let Some(path) = to_ask.pop_front()
        {
            asked.push(async move { (find(all, &path).await, path) });
        }
        let Some((found, path)) = asked.next().await else {
            break;
        };
        match found {
            Ok(Found::Present) => {
                plan.present.insert(path);
            }
            Ok(Found::Offered(candidate)) => {
                for reference in &candidate.offer.nar.references {
                    if met.insert(reference.clone()) {
                        to_ask.push_back(reference.clone());
                    }
                }
                plan.candidates.insert(path, candidate);
            }
            Err(SubstituteError::Read(error)) => return Err(error.into()),
            Err(error) => {
                plan.failed.insert(path, error);
            }
        }
        if met.len() > all.options.paths_max {
            return Err(SubstituteError::TooMany {
                paths_max: all.options.paths_max,
            });
        }
    }
    sort(&mut plan);
    Ok(plan)
}

async fn find(all: &Substituters, path: &StorePath) -> Result<Found, SubstituteError> {
    let here: Result<_, ReadPathInfoError> = all.store.path_infos.get(path).await;
    if here?.is_some() {
        return Ok(Found::Present);
    }
    match all.look_up(path).await? {
        Some(candidate) => Ok(Found::Offered(candidate)),
        None => Err(SubstituteError::NotFound { path: path.clone() }),
    }
}

/// Puts the candidates in order; those whose references cannot be had, or that refer to themselves in a circle, fail.
///
/// Source: Kahn, CACM 1962.
fn sort(plan: &mut Plan) {
    let mut missing: HashMap<&StorePath, usize> = HashMap::new();
    let mut referrers: HashMap<&StorePath, Vec<&StorePath>> = HashMap::new();
    let mut ready = VecDeque::new();
    for (path, candidate) in &plan.candidates {
        let references = &candidate.offer.nar.references;
        let needed = references
            .iter()
            .filter(|to| *to != path && !plan.present.contains(*to));
        let mut count = 0;
        for reference in needed {
            referrers.entry(reference).or_default().push(path);
            count += 1;
        }
        missing.insert(path, count);
        if count == 0 {
            ready.push_back(path);
        }
    }
    let mut order = Vec::with_capacity(plan.candidates.len());
    while let Some(path) = ready.pop_front() {
        order.push(path.clone());
        for referrer in referrers.get(path).into_iter().flatten() {
            if let Some(count) = missing.get_mut(referrer) {
                *count -= 1;
                if *count == 0 {
                    ready.push_back(referrer);
                }
            }
        }
    }
    let mut failed = BTreeMap::new();
    let mut lost: VecDeque<&StorePath> = plan.failed.keys().collect();
    while let Some(reference) = lost.pop_front() {
        for path in referrers.get(reference).into_iter().flatten() {
            if !failed.contains_key(*path) {
                let error = SubstituteError::Reference {
                    path: (*path).clone(),
                    reference: reference.clone(),
                };
                failed.insert((*path).clone(), error);
                lost.push_back(path);
            }
        }
    }
    for (path, count) in missing {
        if count > 0 && !failed.contains_key(path) {
            failed.insert(path.clone(), SubstituteError::Cycle { path: path.clone() });
        }
    }
    for path in failed.keys() {
        plan.candidates.remove(path);
    }
    plan.failed.append(&mut failed);
    plan.order = order;
}

#[cfg(test)]
mod tests;
