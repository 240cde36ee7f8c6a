//! The environment of a build, and the small files that go with it.
//!
//! Three layers: defaults, which the derivation may override; its own variables, or with structured attributes none but the
//! names of two files; and what nothing can override.
//!
//! Source: Nix 2.36 `unix/build/derivation-builder.cc` (initEnv), `build/derivation-env-desugar.cc`; recorded from 2.8 and 2.34.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use igloo_build::path::RelativePath;
use igloo_store::Store;
use nix_compat::derivation::{Derivation, DerivationKind};
use nix_compat::store_path::StoreDir;

use super::attributes::{Attributes, words};
use super::error::RequestError;
use super::options::DerivationOptions;
use super::structured::StructuredFiles;
use super::{BUILD_DIR, InputClosure, RequestOptions, STRUCTURED_FILE, graph, relative};

/// What stands where before a build starts.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) environment: BTreeMap<Bytes, Bytes>,
    pub(super) files: BTreeMap<RelativePath, Bytes>,
}

impl Surroundings {
    /// Makes them; placeholders for outputs are still in them.
    pub(super) async fn new(
        store: &Store,
        derivation: &Derivation,
        attributes: Attributes<'_>,
        options: &DerivationOptions,
        inputs: &InputClosure,
        request: &RequestOptions,
    ) -> Result<Self, RequestError> {
        let mut all = Self::default();
        all.add_defaults(&store.dir, request);
        match attributes {
            Attributes::Plain(env) => {
                all.add_variables(env)?;
                for (name, roots) in &options.export_graphs {
                    let graph = graph::export(store, inputs, roots).await?;
                    all.add_file(name, graph::registration(&store.dir, &graph))?;
                }
            }
            Attributes::Structured(members) => {
                let files = StructuredFiles::new(store, derivation, members, options, inputs).await?;
                for (name, variable, content) in [
                    (".attrs.sh", "NIX_ATTRS_SH_FILE", files.shell),
                    (STRUCTURED_FILE, "NIX_ATTRS_JSON_FILE", files.json),
                ] {
                    let path = all.add_file(name, content)?;
                    all.set(variable, path);
                }
            }
        }
        all.add_overrides(derivation.kind()?, options, request);
        Ok(all)
    }

    fn set(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.environment
            .insert(Bytes::from_static(name.as_bytes()), value.into());
    }

    /// A file in the build's directory; its path there.
    fn add_file(&mut self, name: &str, content: impl Into<Bytes>) -> Result<String, RequestError> {
        let path = format!("{BUILD_DIR}/{name}");
        self.files.insert(relative(path.as_bytes())?, content.into());
        Ok(format!("/{path}"))
    }

    /// What a derivation may override.
    fn add_defaults(&mut self, dir: &StoreDir, request: &RequestOptions) {
        self.set("PATH", "/path-not-set");
        self.set("HOME", "/homeless-shelter");
        self.set("NIX_STORE", dir.as_str().to_owned());
        self.set("NIX_BUILD_CORES", request.cores.to_string());
    }

    /// The derivation's own variables; those named by `passAsFile` become files, with the variable `NAMEPath` in their place.
    fn add_variables(&mut self, env: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), RequestError> {
        let as_file = env.get(&b"passAsFile"[..]).map(Vec::as_slice).unwrap_or_default();
        let as_file: BTreeSet<&[u8]> = words(as_file).collect();
        for (name, value) in env {
            let value = Bytes::copy_from_slice(value);
            if !as_file.contains(name.as_slice()) {
                self.environment.insert(Bytes::copy_from_slice(name), value);
                continue;
            }
            let digest = nix_compat::nixbase32::encode(&nix_compat::hash::sha256(name));
            let path = self.add_file(&format!(".attr-{digest}"), value)?;
            self.environment
                .insert([name, &b"Path"[..]].concat().into(), path.into());
        }
        Ok(())
    }

    /// What no derivation can override.
    fn add_overrides(&mut self, kind: DerivationKind, options: &DerivationOptions, request: &RequestOptions) {
        for name in ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
            self.set(name, format!("/{BUILD_DIR}"));
        }
        self.set("NIX_LOG_FD", "2");
        self.set("TERM", "xterm-256color");
        if kind == DerivationKind::CaFixed {
            self.set("NIX_OUTPUT_CHECKED", "1");
        }
        if !matches!(kind, DerivationKind::CaFixed | DerivationKind::Impure) {
            return;
        }
        for name in &options.impure_variables {
            let value = request.impure_environment.get(name).cloned().unwrap_or_default();
            self.environment
                .insert(Bytes::copy_from_slice(name), value.into());
        }
    }
}
