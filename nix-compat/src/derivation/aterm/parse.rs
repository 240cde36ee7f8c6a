//! Reading the text of a derivation.
//!
//! One pass over the bytes, no recursion. Memory is a small multiple of the text, which [`TEXT_SIZE_MAX`] bounds.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{ParseDerivationError, ParseDerivationReason as Reason};
use crate::content_address::{ContentAddress, ContentAddressMethod};
use crate::derivation::{Derivation, DerivationOutput, OutputName};
use crate::hash::{HashFormat, NixHash};
use crate::store_path::{StoreDir, StorePath, StorePathName, printable};

/// Bytes in the largest text looked at. The largest derivations of nixpkgs have a few megabytes.
pub const TEXT_SIZE_MAX: usize = 64 << 20;

impl Derivation {
    /// Reads the text of a `.drv` file; `name` is the derivation's, without `.drv`.
    ///
    /// # Errors
    /// See [`ParseDerivationError`], which names the offset and what was expected there.
    pub fn parse(dir: &StoreDir, name: &StorePathName, text: &[u8]) -> Result<Self, ParseDerivationError> {
        let mut cursor = Cursor { text, at: 0 };
        parse(&mut cursor, dir, name).map_err(|fault| ParseDerivationError {
            name: name.to_string(),
            offset: fault.at,
            reason: fault.reason,
        })
    }
}

fn parse(cursor: &mut Cursor<'_>, dir: &StoreDir, name: &StorePathName) -> Result<Derivation, Fault> {
    if cursor.text.len() > TEXT_SIZE_MAX {
        let reason = Reason::TooLarge {
            size: cursor.text.len(),
            max: TEXT_SIZE_MAX,
        };
        return Err(Fault { at: 0, reason });
    }
    head(cursor)?;
    let outputs = cursor.sorted_list("outputs", |cursor| output(cursor, dir, name))?;
    cursor.literal(",[")?;
    let input_drvs = cursor.sorted_list("input derivations", |cursor| input_drv(cursor, dir))?;
    cursor.literal(",[")?;
    let input_srcs = cursor.sorted_list("input sources", |cursor| Ok((cursor.store_path(dir)?, ())))?;
    cursor.literal(",")?;
    let platform = cursor.plain()?.to_vec();
    cursor.literal(",")?;
    let builder = cursor.string()?.into_owned();
    cursor.literal(",[")?;
    let mut args = Vec::new();
    cursor.list(|cursor| {
        args.push(cursor.string()?.into_owned());
        Ok(())
    })?;
    cursor.literal(",[")?;
    let env = cursor.sorted_list("environment variables", variable)?;
    cursor.literal(")")?;
    if cursor.at != cursor.text.len() {
        return Err(cursor.fault(Reason::TrailingData));
    }
    let input_srcs = input_srcs.into_keys().collect();
    Ok(Derivation {
        name: name.clone(),
        outputs,
        input_drvs,
        input_srcs,
        platform,
        builder,
        args,
        env,
    })
}

/// `Derive([`, or the version that is not supported.
fn head(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    if cursor.text.starts_with(b"DrvWithVersion(") {
        cursor.literal("DrvWithVersion(")?;
        let version = printable(cursor.plain()?);
        return Err(cursor.fault(Reason::Version { version }));
    }
    cursor.literal("Derive([")
}

fn output(
    cursor: &mut Cursor<'_>,
    dir: &StoreDir,
    derivation: &StorePathName,
) -> Result<(OutputName, DerivationOutput), Fault> {
    cursor.literal("(")?;
    let name = cursor.output_name()?;
    cursor.literal(",")?;
    let path_at = cursor.at;
    let path = cursor.plain()?;
    cursor.literal(",")?;
    let algo_at = cursor.at;
    let algo = cursor.plain()?;
    cursor.literal(",")?;
    let hash_at = cursor.at;
    let hash = cursor.plain()?;
    cursor.literal(")")?;
    let at = |at, reason| Fault { at, reason };
    if algo.is_empty() {
        if !hash.is_empty() {
            let reason = Reason::Superfluous {
                kind: "input-addressed",
                what: "a hash",
            };
            return Err(at(hash_at, reason));
        }
        return Ok((
            name,
            input_addressed(dir, path).map_err(|reason| at(path_at, reason))?,
        ));
    }
    let method = ContentAddressMethod::parse_with_algo(&String::from_utf8_lossy(algo));
    let (method, algo) = method.map_err(|source| at(algo_at, Reason::Method { source }))?;
    let (kind, output) = match hash {
        b"" => (
            "content-addressing",
            DerivationOutput::CaFloating { method, algo },
        ),
        b"impure" => ("impure", DerivationOutput::Impure { method, algo }),
        hash => {
            let hash = base16(hash, algo).map_err(|reason| at(hash_at, reason))?;
            let address = ContentAddress::new(method, hash);
            let address = address.map_err(|source| at(algo_at, Reason::Method { source }))?;
            let output = DerivationOutput::CaFixed { address };
            check_fixed_path(dir, derivation, &name, &output, path).map_err(|reason| at(path_at, reason))?;
            return Ok((name, output));
        }
    };
    if !path.is_empty() {
        return Err(at(
            path_at,
            Reason::Superfluous {
                kind,
                what: "output path",
            },
        ));
    }
    Ok((name, output))
}

fn input_addressed(dir: &StoreDir, path: &[u8]) -> Result<DerivationOutput, Reason> {
    if path.is_empty() {
        return Ok(DerivationOutput::Deferred);
    }
    let path = dir
        .parse_bytes(path)
        .map_err(|source| Reason::StorePath { source })?;
    Ok(DerivationOutput::InputAddressed { path })
}

fn base16(text: &[u8], algo: crate::hash::HashAlgo) -> Result<NixHash, Reason> {
    let text = String::from_utf8_lossy(text);
    let hash = NixHash::parse_digest(&text, algo).map_err(|source| Reason::Hash { source })?;
    if hash.encode(HashFormat::Base16) != text {
        return Err(Reason::HashFormat);
    }
    Ok(hash)
}

/// The path is written beside the hash it follows from; both must agree.
fn check_fixed_path(
    dir: &StoreDir,
    derivation: &StorePathName,
    name: &OutputName,
    output: &DerivationOutput,
    stated: &[u8],
) -> Result<(), Reason> {
    let computed = output
        .path(dir, derivation, name)
        .map_err(|source| Reason::Compute { source })?;
    let computed = computed.map(|path| dir.print(&path)).unwrap_or_default();
    if computed.as_bytes() == stated {
        Ok(())
    } else {
        Err(Reason::FixedPath {
            stated: printable(stated),
            computed,
        })
    }
}

fn input_drv(cursor: &mut Cursor<'_>, dir: &StoreDir) -> Result<(StorePath, BTreeSet<OutputName>), Fault> {
    cursor.literal("(")?;
    let path = cursor.store_path(dir)?;
    cursor.literal(",[")?;
    let at = cursor.at;
    let outputs = cursor.sorted_list("outputs of an input derivation", |cursor| {
        Ok((cursor.output_name()?, ()))
    })?;
    if outputs.is_empty() {
        return Err(Fault {
            at,
            reason: Reason::NoOutputs,
        });
    }
    cursor.literal(")")?;
    Ok((path, outputs.into_keys().collect()))
}

fn variable(cursor: &mut Cursor<'_>) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    cursor.literal("(")?;
    let name = cursor.string()?.into_owned();
    cursor.literal(",")?;
    let value = cursor.string()?.into_owned();
    cursor.literal(")")?;
    Ok((name, value))
}

struct Fault {
    at: usize,
    reason: Reason,
}

/// `at` never passes the end of `text`.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn fault(&self, reason: Reason) -> Fault {
        Fault { at: self.at, reason }
    }

    fn literal(&mut self, expected: &'static str) -> Result<(), Fault> {
        if !self.rest().starts_with(expected.as_bytes()) {
            return Err(self.fault(Reason::Expected { expected }));
        }
        self.at += expected.len();
        Ok(())
    }

    /// Items up to `]`, whose `[` is taken already.
    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        if self.rest().first() == Some(&b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.rest().first() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault(Reason::Expected { expected: ",' or ']" })),
            }
        }
    }

    /// A list whose keys ascend strictly.
    fn sorted_list<K: Ord, V>(
        &mut self,
        list: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<(K, V), Fault>,
    ) -> Result<BTreeMap<K, V>, Fault> {
        let mut out: BTreeMap<K, V> = BTreeMap::new();
        self.list(|cursor| {
            let at = cursor.at;
            let (key, value) = item(cursor)?;
            if out.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(Fault {
                    at,
                    reason: Reason::NotSorted { list },
                });
            }
            out.insert(key, value);
            Ok(())
        })?;
        Ok(out)
    }

    fn store_path(&mut self, dir: &StoreDir) -> Result<StorePath, Fault> {
        let at = self.at;
        let path = dir.parse_bytes(self.plain()?);
        path.map_err(|source| Fault {
            at,
            reason: Reason::StorePath { source },
        })
    }

    fn output_name(&mut self) -> Result<OutputName, Fault> {
        let at = self.at;
        let name = OutputName::new(&String::from_utf8_lossy(self.plain()?));
        name.map_err(|source| Fault {
            at,
            reason: Reason::OutputName { source },
        })
    }

    /// A string that Nix writes without escapes.
    fn plain(&mut self) -> Result<&'a [u8], Fault> {
        self.literal("\"")?;
        let rest = self.rest();
        match memchr::memchr2(b'"', b'\\', rest) {
            Some(end) if rest[end] == b'"' => {
                self.at += end + 1;
                Ok(&rest[..end])
            }
            Some(end) => Err(Fault {
                at: self.at + end,
                reason: Reason::Escape,
            }),
            None => Err(self.fault(Reason::Unterminated)),
        }
    }

    /// A string with escapes.
    fn string(&mut self) -> Result<Cow<'a, [u8]>, Fault> {
        self.literal("\"")?;
        let mut out = Cow::Borrowed(&[][..]);
        loop {
            let rest = self.rest();
            let Some(end) = memchr::memchr2(b'"', b'\\', rest) else {
                return Err(self.fault(Reason::Unterminated));
            };
            let piece = &rest[..end];
            if let Some(raw) = memchr::memchr3(b'\n', b'\r', b'\t', piece) {
                return Err(Fault {
                    at: self.at + raw,
                    reason: Reason::Raw { byte: piece[raw] },
                });
            }
            if out.is_empty() {
                out = Cow::Borrowed(piece);
            } else {
                out.to_mut().extend_from_slice(piece);
            }
            self.at += end;
            if rest[end] == b'"' {
                self.at += 1;
                return Ok(out);
            }
            let byte = match rest.get(end + 1) {
                Some(byte @ (b'"' | b'\\')) => *byte,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(_) => return Err(self.fault(Reason::Escape)),
                None => return Err(self.fault(Reason::Unterminated)),
            };
            out.to_mut().push(byte);
            self.at += 2;
        }
    }
}
