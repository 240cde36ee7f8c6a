//! Whose word about a store path counts.
//!
//! Invariants
//! - only what is signed is believed of a stranger: path, NAR hash, NAR size and references. A content address is compared
//!   with the content by whoever ingests it; where a NAR lies and who built it matters to nobody's safety.
//!
//! Source: Nix 2.36 `ValidPathInfo::checkSignatures` and `isContentAddressed` (src/libstore/path-info.cc).

use igloo_store::DeclaredNar;
use nix_compat::narinfo;
use nix_compat::signature::PublicKey;
use nix_compat::store_path::{StoreDir, StorePath, StoreReferences};

/// Signatures of one path that are looked at, at most: each costs about 50 µs.
const SIGNATURES_MAX: usize = 32;

/// Whom to believe.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Whoever holds one of these keys. Paths that follow from their content need no signature.
    Keys(Vec<PublicKey>),
    /// The cache itself, whatever it says: for caches of one's own (`trusted=1`).
    Anyone,
}

/// Why a path is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// A trusted key of this name signed it.
    Key(String),
    /// Its path follows from its content, which is compared when it comes.
    ContentAddress,
    /// The cache is trusted as it is.
    Anyone,
}

impl Trust {
    /// Why this is to be believed, `None` when it is not. Cost: at most 32 checks of a signature.
    pub fn vouch(&self, dir: &StoreDir, declared: &DeclaredNar) -> Option<Vouched> {
        let Self::Keys(keys) = self else {
            return Some(Vouched::Anyone);
        };
        if let Some(name) = signed_by(keys, dir, declared) {
            return Some(Vouched::Key(name));
        }
        follows_from_content(dir, declared).then_some(Vouched::ContentAddress)
    }
}

fn signed_by(keys: &[PublicKey], dir: &StoreDir, declared: &DeclaredNar) -> Option<String> {
    let of_our_keys = |name: &str| keys.iter().any(|key| key.name() == name);
    let mut candidates = declared
        .signatures
        .iter()
        .filter(|signature| of_our_keys(signature.key_name()))
        .take(SIGNATURES_MAX)
        .peekable();
    candidates.peek()?;
    let text = narinfo::fingerprint(
        dir,
        &declared.path,
        &declared.nar_sha256,
        declared.nar_size,
        &declared.references,
    );
    let by_key = |signature| keys.iter().any(|key| key.verify(text.as_bytes(), signature));
    candidates
        .find(|signature| by_key(signature))
        .map(|signature| signature.key_name().to_owned())
}

fn follows_from_content(dir: &StoreDir, declared: &DeclaredNar) -> bool {
    let Some(address) = &declared.content_address else {
        return false;
    };
    let mut others = declared.references.clone();
    let to_self = others.remove(&declared.path);
    let references = StoreReferences { others, to_self };
    let computed: Result<StorePath, _> =
        dir.content_addressed_path(declared.path.name(), address, &references);
    computed.is_ok_and(|path| path == declared.path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
    use nix_compat::hash::{HashAlgo, NixHash};
    use nix_compat::signature::SecretKey;
    use nix_compat::store_path::StorePathName;
    use proptest::prelude::*;

    use super::*;

    fn declared(seed: u8) -> DeclaredNar {
        let path = |byte| StorePath::new([byte; 20], StorePathName::new("x").unwrap());
        DeclaredNar {
            path: path(seed),
            nar_sha256: [seed; 32],
            nar_size: u64::from(seed) + 1,
            references: BTreeSet::from([path(seed), path(1)]),
            deriver: None,
            signatures: Vec::new(),
            content_address: None,
        }
    }

    fn sign(declared: &mut DeclaredNar, dir: &StoreDir, key: &SecretKey) {
        let text = narinfo::fingerprint(
            dir,
            &declared.path,
            &declared.nar_sha256,
            declared.nar_size,
            &declared.references,
        );
        declared.signatures.push(key.sign(text.as_bytes()));
    }

    proptest! {
        /// A signature vouches for exactly what was signed, by exactly the keys that are trusted.
        #[test]
        fn signatures_vouch_for_what_they_sign(seed: u8, change in 0..6, ours: [u8; 32], theirs: [u8; 32]) {
            prop_assume!(ours != theirs);
            let dir = StoreDir::default();
            let (ours, theirs) =
                (SecretKey::from_seed("k-1", &ours).unwrap(), SecretKey::from_seed("k-1", &theirs).unwrap());
            let trust = Trust::Keys(vec![ours.public_key()]);
            let mut nar = declared(seed);
            sign(&mut nar, &dir, &theirs);
            prop_assert_eq!(trust.vouch(&dir, &nar), None, "another's key of the same name");
            sign(&mut nar, &dir, &ours);
            prop_assert_eq!(trust.vouch(&dir, &nar), Some(Vouched::Key("k-1".into())));
            let other = declared(seed.wrapping_add(1));
            match change {
                0 => nar.path = other.path,
                1 => nar.nar_sha256 = other.nar_sha256,
                2 => nar.nar_size += 1,
                3 => nar.references.clear(),
                4 => nar.signatures.truncate(1),
                _ => prop_assert_eq!(trust.vouch(&StoreDir::new("/other").unwrap(), &nar), None),
            }
            if change < 5 {
                prop_assert_eq!(trust.vouch(&dir, &nar), None);
            }
            prop_assert_eq!(Trust::Anyone.vouch(&dir, &nar), Some(Vouched::Anyone));
        }
    }

    #[test]
    fn a_path_of_its_content_needs_no_key() {
        let dir = StoreDir::default();
        let hash = NixHash::of(HashAlgo::Sha256, b"x");
        let address = ContentAddress::new(ContentAddressMethod::Recursive, hash).unwrap();
        let mut nar = declared(9);
        nar.references.clear();
        nar.content_address = Some(address);
        let trust = Trust::Keys(Vec::new());
        assert_eq!(trust.vouch(&dir, &nar), None, "the address is of another path");
        let references = StoreReferences {
            others: BTreeSet::new(),
            to_self: false,
        };
        nar.path = dir
            .content_addressed_path(nar.path.name(), &address, &references)
            .unwrap();
        assert_eq!(trust.vouch(&dir, &nar), Some(Vouched::ContentAddress));
    }
}
