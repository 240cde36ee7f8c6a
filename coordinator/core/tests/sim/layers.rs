//! Large graphs like nixpkgs: a deep bootstrap, then layers, few derivations that nearly all need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use igloo_coordinator::{DrvInfo, Requirements};
use nix_compat::derivation::DerivationKind;

use super::graphs::{Graph, SimDrv, out, output_path, path_of};
use super::rng::{Rng, hash};

/// Moments looked at for [`window_bound`].
const MOMENTS_MAX: usize = 4096;

/// A layered graph of `count` derivations with about `inputs` inputs each; its roots are those nothing needs.
///
/// Sources (a third) have no inputs but the bootstrap; packages need one source, some of the last layers, and a few hubs
/// (`stdenv`, `bash`, …) of the layers before. Run times spread over three orders of magnitude, most of them short.
pub fn layered(seed: u64, count: usize, inputs: u64) -> Graph {
    let mut rng = Rng::new(seed);
    let mut graph = Graph::default();
    let mut hubs: Vec<usize> = Vec::new();
    for index in 0..count {
        let is_source = index > 40 && rng.chance(33);
        let mut needed = BTreeSet::new();
        if index > 0 && index <= 40 {
            needed.insert(index - 1);
        }
        if index > 40 {
            needed.insert(39);
            if !is_source {
                for _ in 0..inputs {
                    let near = index - 1 - rng.index(index.min(400 + index / 4));
                    needed.insert(if rng.chance(50) {
                        hubs[rng.index(hubs.len())]
                    } else {
                        near
                    });
                }
            }
        }
        if index <= 40 || (!is_source && hubs.len() < 300 && rng.chance(3)) {
            hubs.push(index);
        }
        let drv = drv(&mut rng, &graph, seed, index, &needed, is_source);
        graph.push(drv);
    }
    graph
}

fn drv(
    rng: &mut Rng,
    graph: &Graph,
    seed: u64,
    index: usize,
    needed: &BTreeSet<usize>,
    is_source: bool,
) -> SimDrv {
    let path = path_of(hash(&[seed, index as u64]), "package-1.0.drv");
    let millis = match rng.below(100) {
        _ if is_source => 500 + rng.below(5_000),
        0..60 => 2_000 + rng.below(10_000),
        60..97 => 10_000 + rng.below(110_000),
        _ => 120_000 + rng.below(1_800_000),
    };
    let run = Duration::from_millis(millis);
    let info = DrvInfo {
        outputs: vec![(out(), Some(output_path(hash(&[seed, index as u64]), "out")))],
        path,
        kind: DerivationKind::InputAddressed,
        inputs: needed
            .iter()
            .map(|index| (graph.drvs[*index].info.path.clone(), vec![out()]))
            .collect(),
        sources: vec![path_of(hash(&[seed, index as u64 / 50, 77]), "builder.sh")],
        needs: Requirements {
            system: "a-linux".to_owned(),
            ..Requirements::default()
        },
        estimate: Some(run),
        substitutable: true,
    };
    SimDrv {
        info,
        recipe: 100,
        ignores_inputs: false,
        run,
        fails: false,
        hopeless: false,
    }
}

/// Derivations that nothing needs.
pub fn roots(graph: &Graph) -> Vec<usize> {
    let inputs = graph.drvs.iter().flat_map(|drv| drv.info.inputs.iter());
    let needed: BTreeSet<usize> = inputs.map(|(path, _)| graph.by_path[path]).collect();
    (0..graph.drvs.len())
        .filter(|index| !needed.contains(index))
        .collect()
}

/// The longest chain of run times, and their sum.
pub fn bounds(graph: &Graph) -> (Duration, Duration) {
    let mut ends: BTreeMap<usize, Duration> = BTreeMap::new();
    let (mut longest, mut sum) = (Duration::ZERO, Duration::ZERO);
    for (index, drv) in graph.drvs.iter().enumerate() {
        let inputs = drv.info.inputs.iter();
        let start = inputs.map(|(path, _)| ends[&graph.by_path[path]]).max();
        let end = start.unwrap_or_default() + drv.run;
        ends.insert(index, end);
        longest = longest.max(end);
        sum += drv.run;
    }
    (longest, sum)
}

/// What no schedule can be shorter than: for every moment `head` before which some derivations cannot begin, and every time
/// `tail` that at least remains when they have ended, their work shared by all slots comes between the two. Sharper than the
/// longest chain and the work by slots where the graph is narrow at its ends and wide amid.
///
/// Source: E. B. Fernandez and B. Bussell, "Bounds on the number of processors and time for multiprocessor optimal schedules",
/// IEEE Transactions on Computers C-22 (1973), with windows that end with the schedule.
pub fn window_bound(graph: &Graph, slots: u32) -> Duration {
    let count = graph.drvs.len();
    let (mut heads, mut tails) = (vec![Duration::ZERO; count], vec![Duration::ZERO; count]);
    for (index, drv) in graph.drvs.iter().enumerate() {
        let inputs = drv.info.inputs.iter().map(|(path, _)| graph.by_path[path]);
        let ends = inputs.map(|input| heads[input] + graph.drvs[input].run);
        heads[index] = ends.max().unwrap_or_default();
    }
    for (index, drv) in graph.drvs.iter().enumerate().rev() {
        for (path, _) in &drv.info.inputs {
            let input = graph.by_path[path];
            tails[input] = tails[input].max(drv.run + tails[index]);
        }
    }
    let mut by_tail: Vec<usize> = (0..count).collect();
    by_tail.sort_by_key(|index| std::cmp::Reverse(tails[*index]));
    let mut bound = bounds(graph).0;
    let moments: BTreeSet<_> = heads.iter().collect();
    // some moments give a bound as well, if not always the sharpest
    for head in moments.iter().step_by(moments.len().div_ceil(MOMENTS_MAX)) {
        let mut work = Duration::ZERO;
        for index in by_tail.iter().filter(|index| heads[**index] >= **head) {
            work += graph.drvs[*index].run;
            bound = bound.max(**head + work / slots + tails[*index]);
        }
    }
    bound
}

/// How long it takes to build all with every run time known beforehand: longest way to the end first, no slot left idle.
pub fn list_schedule(graph: &Graph, slots: usize) -> Duration {
    let count = graph.drvs.len();
    let mut needed_by = vec![Vec::new(); count];
    let mut waiting = vec![0; count];
    for (index, drv) in graph.drvs.iter().enumerate() {
        waiting[index] = drv.info.inputs.len();
        for (input, _) in &drv.info.inputs {
            needed_by[graph.by_path[input]].push(index);
        }
    }
    let mut levels = vec![Duration::ZERO; count];
    for index in (0..count).rev() {
        let rest = needed_by[index].iter().map(|other| levels[*other]).max();
        levels[index] = graph.drvs[index].run + rest.unwrap_or_default();
    }
    let is_ready = |index: &usize| graph.drvs[*index].info.inputs.is_empty();
    let mut ready: BTreeSet<_> = (0..count)
        .filter(is_ready)
        .map(|index| (levels[index], index))
        .collect();
    let (mut running, mut now) = (BTreeSet::new(), Duration::ZERO);
    loop {
        while running.len() < slots
            && let Some((_, index)) = ready.pop_last()
        {
            running.insert((now + graph.drvs[index].run, index));
        }
        let Some((end, index)) = running.pop_first() else {
            return now;
        };
        now = end;
        for other in &needed_by[index] {
            waiting[*other] -= 1;
            if waiting[*other] == 0 {
                ready.insert((levels[*other], *other));
            }
        }
    }
}
