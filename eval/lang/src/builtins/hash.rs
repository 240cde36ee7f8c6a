//! Hashes and placeholders.

use nix_compat::derivation::OutputName;
use nix_compat::hash::{HashAlgo, HashFormat, NixHash};
use nix_compat::store_path::placeholder as output_placeholder;

use crate::error::{ErrorKind, EvalError, R};
use crate::heap::context::Ctx;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::pos::Pos;
use crate::symbol::sym;

fn algorithm(name: &[u8]) -> R<HashAlgo> {
    let name = String::from_utf8_lossy(name);
    HashAlgo::from_name(&name).ok_or_else(|| {
        let text =
            format!("unknown hash algorithm '{name}', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'");
        EvalError::new(ErrorKind::Eval, text)
    })
}

pub(super) fn hash_string(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.hashString";
    let algo = algorithm(interp.plain_string(args[0], Pos::NONE, what)?)?;
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the second argument passed to builtins.hashString";
    let text = interp.expect_string(args[1], &mut ctx, Pos::NONE, what)?;
    let hash = NixHash::of(algo, text).encode(HashFormat::Base16);
    Ok(interp.heap.string(hash.as_bytes()))
}

pub(super) fn hash_file(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.hashFile";
    let algo = algorithm(interp.plain_string(args[0], Pos::NONE, what)?)?;
    let path = interp.realise_path(args[1])?;
    let bytes = interp.read_file(&path)?;
    let hash = NixHash::of(algo, &bytes).encode(HashFormat::Base16);
    Ok(interp.heap.string(hash.as_bytes()))
}

pub(super) fn convert_hash(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.convertHash";
    let set = interp.expect_set(args[0], Pos::NONE, what)?;
    let (hash, _) = interp.expect_attr(set, sym::hash, "while locating the attribute 'hash'")?;
    let hash = interp.plain_string(hash, Pos::NONE, "while evaluating the attribute 'hash'")?;
    let algo = match set.value_of(sym::hash_algo) {
        None => None,
        Some(algo) => Some(algorithm(interp.plain_string(
            algo,
            Pos::NONE,
            "while evaluating the attribute 'hashAlgo'",
        )?)?),
    };
    let what = "while locating the attribute 'toHashFormat'";
    let (format, _) = interp.expect_attr(set, sym::to_hash_format, what)?;
    let format = interp.plain_string(format, Pos::NONE, "while evaluating the attribute 'toHashFormat'")?;
    let format = match format {
        b"base16" => HashFormat::Base16,
        b"nix32" => HashFormat::NixBase32,
        b"base32" => {
            let text = "\"base32\" is a deprecated alias for hash format \"nix32\".";
            interp.warn_at(text, Pos::NONE);
            HashFormat::NixBase32
        }
        b"base64" => HashFormat::Base64,
        b"sri" => HashFormat::Sri,
        other => {
            let shown = String::from_utf8_lossy(other);
            let text =
                format!("unknown hash format '{shown}', expect 'base16', 'base32', 'base64', or 'sri'");
            return Err(EvalError::new(ErrorKind::Eval, text));
        }
    };
    let hash = parse(hash, algo)?;
    Ok(interp.heap.string(hash.encode(format).as_bytes()))
}

/// A hash in any notation.
pub(super) fn parse(text: &[u8], algo: Option<HashAlgo>) -> R<NixHash> {
    let text = String::from_utf8_lossy(text);
    NixHash::parse_any(&text, algo).map_err(|e| EvalError::new(ErrorKind::Eval, e.to_string()))
}

/// A hash that may be left empty: then it is all zeros and Nix warns.
pub(super) fn parse_or_empty(interp: &Interp, text: &[u8], algo: Option<HashAlgo>) -> R<NixHash> {
    if !text.is_empty() {
        return parse(text, algo);
    }
    let Some(algo) = algo else {
        return Err(EvalError::new(
            ErrorKind::Eval,
            "empty hash requires explicit hash algorithm",
        ));
    };
    let zeros = zeros(algo);
    let hash = NixHash::from_digest(algo, &zeros);
    let hash =
        hash.ok_or_else(|| EvalError::new(ErrorKind::Eval, "empty hash requires explicit hash algorithm"))?;
    let text = format!("found empty hash, assuming '{}'", hash.encode(HashFormat::Sri));
    interp.warn_at(&text, Pos::NONE);
    Ok(hash)
}

fn zeros(algo: HashAlgo) -> Vec<u8> {
    vec![0; algo.digest_len()]
}

pub(super) fn placeholder(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the first argument passed to builtins.placeholder";
    let name = interp.plain_string(args[0], Pos::NONE, what)?;
    let text = match OutputName::new(&String::from_utf8_lossy(name)) {
        Ok(name) => output_placeholder(&name),
        Err(_) => raw_placeholder(name),
    };
    Ok(interp.heap.string(text.as_bytes()))
}

/// The placeholder of a name that no output can have: Nix computes one all the same.
fn raw_placeholder(name: &[u8]) -> String {
    let digest = nix_compat::hash::sha256(&[b"nix-output:".as_slice(), name].concat());
    format!("/{}", nix_compat::nixbase32::encode(&digest))
}
