//! The order in which outputs are settled: those that others name come first.
//!
//! Source: Nix 2.36 `topoSort` (libutil/topo-sort.hh), in whose words a cycle is told.

use std::collections::BTreeMap;

use nix_compat::store_path::StorePath;

use super::Written;
use super::error::OutputError;

/// How far an output's walk is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

/// Positions of the outputs, each after those it refers to. Iterative; linear in their references to each other.
///
/// # Errors
/// Outputs refer to each other in a circle.
pub(super) fn inputs_first(written: &[Written], drv_path: &str) -> Result<Vec<usize>, OutputError> {
    let positions: BTreeMap<&StorePath, usize> = written
        .iter()
        .enumerate()
        .map(|(index, written)| (&written.path, index))
        .collect();
    let needs = |index: usize| {
        let references = written[index].references.iter();
        let siblings = references.filter_map(|path| positions.get(path).copied());
        siblings
            .filter(|needed| *needed != index)
            .rev()
            .collect::<Vec<_>>()
    };
    let mut states = vec![State::New; written.len()];
    let mut order = Vec::with_capacity(written.len());
    for root in 0..written.len() {
        let mut open = vec![(root, None)];
        while let Some((index, to_visit)) = open.last_mut() {
            let index = *index;
            if states[index] == State::New {
                states[index] = State::Open;
            }
            let to_visit = to_visit.get_or_insert_with(|| match states[index] {
                State::Done => Vec::new(),
                _ => needs(index),
            });
            match to_visit.pop() {
                Some(next) if states[next] == State::Open => {
                    return Err(OutputError::Cycle {
                        drv_path: drv_path.to_owned(),
                        output: written[next].name.clone(),
                        from: written[index].name.clone(),
                    });
                }
                Some(next) => open.push((next, None)),
                None => {
                    if std::mem::replace(&mut states[index], State::Done) == State::Open {
                        order.push(index);
                    }
                    open.pop();
                }
            }
        }
    }
    Ok(order)
}
