//! Structured attributes as a build finds them: `.attrs.json` and `.attrs.sh`.
//!
//! Invariants
//! - both are byte for byte what Nix 2.34 writes (recorded; the tests compare).
//!
//! Source: Nix 2.34 `parsed-derivations.cc` (prepareStructuredAttrs, writeShell).

use std::collections::BTreeMap;

use igloo_store::Store;
use nix_compat::derivation::Derivation;
use nix_compat::store_path::placeholder;

use super::InputClosure;
use super::error::RequestError;
use super::graph;
use super::options::DerivationOptions;
use crate::json::Json;

/// The two files' contents, with placeholders for the derivation's own outputs.
pub(super) struct StructuredFiles {
    pub(super) json: Vec<u8>,
    pub(super) shell: Vec<u8>,
}

impl StructuredFiles {
    /// Makes them from the attributes: outputs become an object, and exported closures members of their own.
    pub(super) async fn new(
        store: &Store,
        derivation: &Derivation,
        mut members: BTreeMap<String, Json>,
        options: &DerivationOptions,
        inputs: &InputClosure,
    ) -> Result<Self, RequestError> {
        let outputs = derivation.outputs.keys();
        let outputs = outputs.map(|name| (name.as_str().to_owned(), Json::String(placeholder(name))));
        members.insert("outputs".to_owned(), Json::Object(outputs.collect()));
        for (name, roots) in &options.export_graphs {
            let graph = graph::export(store, inputs, roots).await?;
            members.insert(name.clone(), graph::json(&store.dir, &graph));
        }
        let shell = shell(&members);
        let json = Json::Object(members).print()?;
        Ok(Self { json, shell })
    }
}

/// Declarations for bash of what it can hold: scalars, lists of scalars, objects of scalars.
fn shell(members: &BTreeMap<String, Json>) -> Vec<u8> {
    let mut out = String::new();
    for (name, value) in members.iter().filter(|(name, _)| is_variable(name)) {
        if let Some(value) = scalar(value) {
            out.push_str(&format!("declare {name}={value}\n"));
            continue;
        }
        match value {
            Json::Array(items) => {
                let items: Option<Vec<_>> = items.iter().map(scalar).collect();
                if let Some(items) = items {
                    let items: String = items.into_iter().map(|item| item + " ").collect();
                    out.push_str(&format!("declare -a {name}=({items})\n"));
                }
            }
            Json::Object(members) => {
                let pair = |(name, value): (&String, &Json)| {
                    scalar(value).map(|value| format!("[{}]={value} ", quoted(name)))
                };
                let members: Option<String> = members.iter().map(pair).collect();
                if let Some(members) = members {
                    out.push_str(&format!("declare -A {name}=({members})\n"));
                }
            }
            _ => {}
        }
    }
    out.into_bytes()
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `None` for what is no scalar, and for numbers with a fraction.
fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(quoted(text)),
        Json::Int(value) => Some(wrapped(*value).to_string()),
        Json::Float(value) => whole(*value).map(|value| value.to_string()),
        Json::Null => Some("''".to_owned()),
        Json::Bool(true) => Some("1".to_owned()),
        Json::Bool(false) => Some(String::new()),
        Json::Array(_) | Json::Object(_) => None,
    }
}

/// Nix keeps the low 32 bits.
#[allow(clippy::cast_possible_truncation, reason = "as recorded from Nix")]
fn wrapped(value: i64) -> i32 {
    value as i32
}

/// What has no fraction in single precision is a whole number to Nix; beyond 32 bits, x86-64 converts to the least one.
#[allow(clippy::cast_possible_truncation, reason = "as recorded from Nix")]
fn whole(value: f64) -> Option<i32> {
    let single = value as f32;
    if single.ceil() != single {
        return None;
    }
    let truncated = value.trunc();
    let fits = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&truncated);
    Some(if fits { truncated as i32 } else { i32::MIN })
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
