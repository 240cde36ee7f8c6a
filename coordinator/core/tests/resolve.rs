//! Descriptions and resolution of real derivations.

#![expect(clippy::unwrap_used, reason = "it is a test")]

use std::collections::{BTreeMap, BTreeSet};

use igloo_coordinator::{DescribeDerivationError, DrvInfo, ResolveError, ResolvedInput, resolve};
use nix_compat::content_address::ContentAddressMethod;
use nix_compat::derivation::{Derivation, DerivationKind, DerivationOutput, OutputName};
use nix_compat::hash::HashAlgo;
use nix_compat::store_path::{StoreDir, StorePath, StorePathName, downstream_placeholder};

fn out() -> OutputName {
    OutputName::new("out").unwrap()
}

fn dir() -> StoreDir {
    StoreDir::default()
}

fn path(digit: u8, name: &str) -> StorePath {
    StorePath::new([digit; 20], StorePathName::new(name).unwrap())
}

fn floating() -> DerivationOutput {
    DerivationOutput::CaFloating {
        method: ContentAddressMethod::Recursive,
        algo: HashAlgo::Sha256,
    }
}

/// A derivation of that output, which needs `out` of `input` and names it in its environment.
fn needing(input: &StorePath, output: DerivationOutput) -> Derivation {
    let placeholder = downstream_placeholder(input, &out()).unwrap();
    let env = [
        ("dep", placeholder.as_str()),
        ("requiredSystemFeatures", "kvm  big-parallel"),
    ];
    let env = env.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let mut env = BTreeMap::from(env);
    env.insert(b"out".to_vec(), Vec::new());
    Derivation {
        name: StorePathName::new("user").unwrap(),
        outputs: BTreeMap::from([(out(), output)]),
        input_drvs: BTreeMap::from([(input.clone(), BTreeSet::from([out()]))]),
        input_srcs: BTreeSet::new(),
        platform: b"x86_64-linux".to_vec(),
        builder: b"/bin/sh".to_vec(),
        args: Vec::new(),
        env,
    }
}

fn at(drv: &StorePath, path: &StorePath) -> Vec<ResolvedInput> {
    vec![ResolvedInput {
        drv: drv.clone(),
        output: out(),
        path: path.clone(),
    }]
}

/// Derivations that differ only in how their input was made resolve to one.
#[test]
fn equal_inputs_resolve_to_one_derivation() {
    let (one, other) = (path(1, "dep.drv"), path(2, "dep.drv"));
    let made = path(3, "dep");
    let resolved =
        |input: &StorePath| resolve(&dir(), &needing(input, floating()), &at(input, &made)).unwrap();
    let (first, derivation) = resolved(&one);
    assert_eq!(first, resolved(&other).0);
    assert!(derivation.input_drvs.is_empty());
    assert_eq!(derivation.input_srcs, BTreeSet::from([made.clone()]));
    assert_eq!(derivation.env[&b"dep"[..]], dir().print(&made).into_bytes());
}

/// A deferred output gets its path by resolution, and the description says so.
#[test]
fn deferred_outputs_get_paths() {
    let input = path(1, "dep.drv");
    let derivation = needing(&input, DerivationOutput::Deferred);
    let own = derivation.store_path(&dir()).unwrap();
    let before = DrvInfo::of(&dir(), &own, &derivation).unwrap();
    assert_eq!(
        (before.kind, &before.outputs[0].1),
        (DerivationKind::Deferred, &None)
    );
    assert_eq!(
        before.needs.features,
        BTreeSet::from(["kvm".into(), "big-parallel".into()])
    );
    let (path, resolved) = resolve(&dir(), &derivation, &at(&input, &path(3, "dep"))).unwrap();
    let after = DrvInfo::of(&dir(), &path, &resolved).unwrap();
    assert_eq!(after.kind, DerivationKind::InputAddressed);
    assert!(after.outputs[0].1.is_some());
    assert!(after.check().is_ok());
}

/// What is not the derivation of its path, or lacks an input's path, is told.
#[test]
fn what_does_not_fit_is_refused() {
    let input = path(1, "dep.drv");
    let derivation = needing(&input, floating());
    let wrong = DrvInfo::of(&dir(), &path(9, "user.drv"), &derivation);
    assert!(matches!(wrong, Err(DescribeDerivationError::Mismatch { .. })));
    let missing = resolve(&dir(), &derivation, &[]);
    assert!(matches!(missing, Err(ResolveError::Missing { .. })));
}
