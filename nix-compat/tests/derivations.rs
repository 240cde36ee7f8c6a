//! Every `.drv` file that Nix writes: printed again byte for byte, its own path and its outputs' paths computed again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

mod common;

use common::{Nix, compare_derivations, skip};
use nix_compat::derivation::derivation_name;
use nix_compat::store_path::{downstream_placeholder, placeholder};
use nix_compat::{Derivation, OutputName, StoreDir};

/// Every form of derivation the language can make.
const FORMS: &str = include_str!("forms.nix");

fn instantiate_forms(nix: &Nix) {
    std::fs::write(nix.work().join("forms.nix"), FORMS).unwrap();
    std::fs::write(nix.work().join("source.txt"), "a source\n").unwrap();
    // every byte but NUL, which Nix's strings cannot hold
    std::fs::write(nix.work().join("odd-bytes"), (1..=255).collect::<Vec<u8>>()).unwrap();
    let drvs = nix.lines("nix-instantiate", &["forms.nix"]);
    let compared = compare_derivations(&nix.dir(), &nix.physical());
    assert!(
        compared.derivations >= drvs.len() && drvs.len() >= 20,
        "{compared:?}, {} asked for",
        drvs.len()
    );
    let kinds: Vec<&str> = compared.kinds.keys().copied().collect();
    assert_eq!(
        kinds,
        ["deferred", "fixed", "floating", "impure", "input-addressed"]
    );
    check_placeholders(nix, &drvs);
}

/// What stands for paths not known yet: a derivation's own, and floating ones of its inputs.
fn check_placeholders(nix: &Nix, drvs: &[String]) {
    let named = |wanted: &str| {
        // Nix prints `…drv!lib` where the output is not `out`
        let mut paths = drvs
            .iter()
            .map(|drv| nix.dir().parse(drv.split('!').next().unwrap()).unwrap());
        let path = paths.find(|path| path.name().as_str() == wanted).unwrap();
        let text = std::fs::read(nix.physical().join(path.to_string())).unwrap();
        (
            Derivation::parse(&nix.dir(), &derivation_name(&path).unwrap(), &text).unwrap(),
            path,
        )
    };
    let value = |derivation: &Derivation, variable: &[u8]| {
        String::from_utf8(derivation.env[variable].clone()).unwrap()
    };
    let [out, dev, bin] = ["out", "dev", "bin"].map(|name| OutputName::new(name).unwrap());
    let (floating, floating_path) = named("floating.drv");
    assert_eq!(value(&floating, b"dev"), placeholder(&dev));
    let (user, _) = named("deferred.drv");
    assert_eq!(
        value(&user, b"dep"),
        downstream_placeholder(&floating_path, &dev).unwrap()
    );
    let (user, _) = named("floating-user.drv");
    assert_eq!(
        value(&user, b"dep"),
        downstream_placeholder(&floating_path, &out).unwrap()
    );
    let (own, _) = named("out-in-env.drv");
    assert_eq!(
        (value(&own, b"self"), value(&own, b"selfBin")),
        (placeholder(&out), placeholder(&bin))
    );
}

#[test]
fn forms_in_nix_store() {
    if let Some(nix) = Nix::chroot("forms_in_nix_store") {
        instantiate_forms(&nix);
    }
}

#[test]
fn forms_in_another_store_directory() {
    if let Some(nix) = Nix::other_dir("forms_in_another_store_directory") {
        instantiate_forms(&nix);
    }
}

/// `IGLOO_ORACLE_DRVS` names a directory full of `.drv` files in `/nix/store`, closed under inputs: those Nix wrote while
/// evaluating some large tree.
#[test]
fn derivations_of_a_large_tree() {
    let Some(physical) = std::env::var_os("IGLOO_ORACLE_DRVS") else {
        skip(
            "derivations_of_a_large_tree",
            "IGLOO_ORACLE_DRVS names no directory of .drv files",
        );
        return;
    };
    let compared = compare_derivations(&StoreDir::default(), physical.as_ref());
    eprintln!("compared {compared:?}");
    assert!(
        compared.derivations > 0,
        "no .drv files in {}",
        physical.display()
    );
}
