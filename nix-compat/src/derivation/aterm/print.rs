//! Writing the text of a derivation, as it is or with parts replaced for hashing.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;

use crate::derivation::{Derivation, DerivationOutput, OutputName};
use crate::hash::HashFormat;
use crate::store_path::{ComputePathError, StoreDir};

impl Derivation {
    /// The text of the `.drv` file, byte for byte as Nix writes it.
    ///
    /// # Errors
    /// A fixed output's path cannot be computed: `<derivation>-<output>` is no valid name.
    pub fn to_aterm(&self, dir: &StoreDir) -> Result<Vec<u8>, ComputePathError> {
        print(self, dir, Outputs::AsTheyAre, |out| {
            out.list(self.input_drvs.iter(), |out, (path, outputs)| {
                out.put(b"(\"");
                out.put(dir.print(path).as_bytes());
                out.put(b"\",");
                out.names(outputs.iter());
                out.put(b")");
            });
        })
    }
}

/// Hashes of input derivations, standing for their paths, and the outputs needed of each.
pub(in crate::derivation) type InputHashes<'a> = BTreeMap<[u8; 32], BTreeSet<&'a OutputName>>;

/// What to write of outputs, in their list and in the environment variables of the same names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::derivation) enum Outputs {
    AsTheyAre,
    /// Empty paths and empty variables.
    Masked,
}

/// The text with hashes for the paths of input derivations.
pub(in crate::derivation) fn print_modulo(
    derivation: &Derivation,
    dir: &StoreDir,
    outputs: Outputs,
    inputs: &InputHashes<'_>,
) -> Result<Vec<u8>, ComputePathError> {
    print(derivation, dir, outputs, |out| {
        out.list(inputs.iter(), |out, (hash, outputs)| {
            out.put(b"(\"");
            out.put(HEXLOWER.encode(hash).as_bytes());
            out.put(b"\",");
            out.names(outputs.iter().copied());
            out.put(b")");
        });
    })
}

fn print(
    derivation: &Derivation,
    dir: &StoreDir,
    outputs: Outputs,
    inputs: impl FnOnce(&mut Printer),
) -> Result<Vec<u8>, ComputePathError> {
    let mut out = Printer(Vec::with_capacity(size_hint(derivation)));
    out.put(b"Derive(");
    out.try_list(derivation.outputs.iter(), |out, (name, output)| {
        print_output(out, derivation, dir, outputs, name, output)
    })?;
    out.put(b",");
    inputs(&mut out);
    out.put(b",");
    out.list(derivation.input_srcs.iter(), |out, path| {
        out.plain(dir.print(path).as_bytes());
    });
    out.put(b",");
    out.plain(&derivation.platform);
    out.put(b",");
    out.string(&derivation.builder);
    out.put(b",");
    out.list(derivation.args.iter(), |out, arg| out.string(arg));
    out.put(b",");
    out.list(derivation.env.iter(), |out, (name, value)| {
        let masked = outputs == Outputs::Masked && is_output(derivation, name);
        out.put(b"(");
        out.string(name);
        out.put(b",");
        out.string(if masked { b"" } else { value });
        out.put(b")");
    });
    out.put(b")");
    Ok(out.0)
}

fn is_output(derivation: &Derivation, variable: &[u8]) -> bool {
    derivation
        .outputs
        .keys()
        .any(|name| name.as_str().as_bytes() == variable)
}

fn print_output(
    out: &mut Printer,
    derivation: &Derivation,
    dir: &StoreDir,
    outputs: Outputs,
    name: &OutputName,
    output: &DerivationOutput,
) -> Result<(), ComputePathError> {
    let path = match outputs {
        Outputs::AsTheyAre => output.path(dir, &derivation.name, name)?,
        Outputs::Masked => None,
    };
    let (algo, hash) = match output {
        DerivationOutput::InputAddressed { .. } | DerivationOutput::Deferred => Default::default(),
        DerivationOutput::CaFixed { address } => {
            let hash = address.hash();
            (
                format!("{}{}", address.method().prefix(), hash.algo()),
                hash.encode(HashFormat::Base16),
            )
        }
        DerivationOutput::CaFloating { method, algo } => {
            (format!("{}{algo}", method.prefix()), String::new())
        }
        DerivationOutput::Impure { method, algo } => (format!("{}{algo}", method.prefix()), "impure".into()),
    };
    let path = path.map(|path| dir.print(&path)).unwrap_or_default();
    out.put(b"(");
    out.plain(name.as_str().as_bytes());
    for field in [path, algo, hash] {
        out.put(b",");
        out.plain(field.as_bytes());
    }
    out.put(b")");
    Ok(())
}

fn size_hint(derivation: &Derivation) -> usize {
    let env: usize = derivation
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum();
    let paths = derivation.outputs.len() + derivation.input_drvs.len() + derivation.input_srcs.len();
    env + env / 16 + paths * 128 + 256
}

struct Printer(Vec<u8>);

impl Printer {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn plain(&mut self, text: &[u8]) {
        self.put(b"\"");
        self.put(text);
        self.put(b"\"");
    }

    fn string(&mut self, text: &[u8]) {
        self.put(b"\"");
        let mut rest = text;
        while let Some(at) = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t'))
        {
            self.put(&rest[..at]);
            self.put(match rest[at] {
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                b'"' => b"\\\"",
                _ => b"\\\\",
            });
            rest = &rest[at + 1..];
        }
        self.put(rest);
        self.put(b"\"");
    }

    fn names<'a>(&mut self, names: impl Iterator<Item = &'a OutputName>) {
        self.list(names, |out, name| out.plain(name.as_str().as_bytes()));
    }

    fn list<T>(&mut self, items: impl Iterator<Item = T>, mut print: impl FnMut(&mut Self, T)) {
        let _: Result<(), std::convert::Infallible> = self.try_list(items, |out, item| {
            print(out, item);
            Ok(())
        });
    }

    fn try_list<T, E>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut print: impl FnMut(&mut Self, T) -> Result<(), E>,
    ) -> Result<(), E> {
        self.put(b"[");
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.put(b",");
            }
            print(self, item)?;
        }
        self.put(b"]");
        Ok(())
    }
}
