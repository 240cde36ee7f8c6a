//! What a `flake.nix` asks for.

use std::collections::BTreeMap;

use super::reference::Reference;
use super::{Attr, flake_error};
use crate::error::R;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::io::FetchAttr;
use crate::pos::Pos;

/// Overrides inside each other.
const DEPTH_MAX: usize = 64;

/// Inputs by name.
pub(super) type Inputs = BTreeMap<String, Input>;

/// An input as it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// What to fetch; from the registries, by its name, when nothing is said.
    pub(super) reference: Option<Reference>,
    /// Whether it is a flake itself.
    pub(super) is_flake: bool,
    /// The input it stands for, by names from the flake that says so; empty for that flake.
    pub(super) follows: Option<Vec<String>>,
    /// What its own inputs are to be instead.
    pub(super) overrides: Inputs,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            reference: None,
            is_flake: true,
            follows: None,
            overrides: Inputs::new(),
        }
    }
}

/// What a `flake.nix` asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The inputs it names, and those its `outputs` take without naming them.
    pub(super) inputs: Inputs,
    /// How the flake itself is to be fetched.
    pub(super) itself: Vec<Attr>,
}

/// What the `flake.nix` of a folder asks for.
pub(super) fn of_flake(interp: &mut Interp, folder: &[u8], shown: &str) -> R<Asked> {
    let file = &[folder, b"/flake.nix"].concat()[..];
    let value = interp.eval_file(file)?;
    let Some(set) = value.as_set() else {
        let what = interp.show_type(value);
        let file = String::from_utf8_lossy(file);
        return Err(flake_error(format!(
            "file '{file}' must be an attribute set, not {what}"
        )));
    };
    let attrs: Vec<_> = interp.heap.flat(set).iter().collect();
    let (mut asked, mut outputs) = (Asked::default(), None);
    for (name, value, _) in attrs {
        match interp.symbols.name(name) {
            b"description" | b"nixConfig" => {}
            b"inputs" => {
                let itself = Some(&mut asked.itself);
                asked.inputs = read(interp, value, folder, itself, 0)?;
            }
            b"outputs" => outputs = Some(value),
            _ => {
                let name = interp.symbols.text(name);
                return Err(flake_error(format!(
                    "flake '{shown}' has an unsupported attribute '{name}'"
                )));
            }
        }
    }
    let Some(outputs) = outputs else {
        return Err(flake_error(format!("flake '{shown}' lacks attribute 'outputs'")));
    };
    for name in arguments(interp, outputs)? {
        asked.inputs.entry(name).or_default();
    }
    Ok(asked)
}

/// Names of the arguments `outputs` takes, but for `self`.
fn arguments(interp: &mut Interp, outputs: Value) -> R<Vec<String>> {
    let what = "while evaluating the 'outputs' of a flake";
    let function = interp.expect_function(outputs, Pos::NONE, what)?;
    let Some(crate::heap::object::Func::Closure(code, _)) = function.as_func() else {
        return Ok(Vec::new());
    };
    let formals = code.params.first().and_then(|param| param.formals);
    let names = formals.map_or(&[][..], |formals| formals.list);
    let names = names.iter().map(|formal| interp.symbols.text(formal.name));
    Ok(names.filter(|name| name != "self").collect())
}

/// Reads inputs; `itself` takes what is said of the flake, where that may be said.
fn read(
    interp: &mut Interp,
    value: Value,
    folder: &[u8],
    mut itself: Option<&mut Vec<Attr>>,
    depth: usize,
) -> R<Inputs> {
    if depth > DEPTH_MAX {
        return Err(flake_error("the inputs of a flake are nested too deeply"));
    }
    let set = interp.expect_set(value, Pos::NONE, "while evaluating the inputs of a flake")?;
    let attrs: Vec<_> = interp.heap.flat(set).iter().collect();
    let mut inputs = Inputs::new();
    for (name, value, pos) in attrs {
        let name = interp.symbols.text(name);
        if name == "self" {
            let Some(itself) = itself.as_deref_mut() else {
                return Err(flake_error("'self' input attribute not allowed"));
            };
            *itself = read_self(interp, value)?;
            continue;
        }
        let input = read_one(interp, value, folder, depth);
        let input = input.map_err(|e| e.frame(pos, format!("while evaluating flake input '{name}'")))?;
        inputs.insert(name, input);
    }
    Ok(inputs)
}

fn read_self(interp: &mut Interp, value: Value) -> R<Vec<Attr>> {
    let set = interp.expect_set(value, Pos::NONE, "while evaluating the inputs of a flake")?;
    let attrs: Vec<_> = interp.heap.flat(set).iter().collect();
    let mut itself = Vec::new();
    for (name, value, _) in attrs {
        let value = interp.force(value)?;
        let name = interp.symbols.text(name);
        if !matches!(name.as_str(), "submodules" | "lfs") {
            return Err(flake_error(format!(
                "flake 'self' attribute '{name}' is not supported"
            )));
        }
        let attr = attr(interp, &name, value)?;
        itself.push((name, attr));
    }
    Ok(itself)
}

fn read_one(interp: &mut Interp, value: Value, folder: &[u8], depth: usize) -> R<Input> {
    let set = interp.expect_set(value, Pos::NONE, "while evaluating a flake input")?;
    let attrs: Vec<_> = interp.heap.flat(set).iter().collect();
    let (mut input, mut url) = (Input::default(), None);
    let mut others: Vec<Attr> = Vec::new();
    for (name, value, pos) in attrs {
        match interp.symbols.name(name) {
            b"url" => {
                url = Some(url_of(interp, value, pos, folder)?);
            }
            b"flake" => {
                input.is_flake =
                    interp.expect_bool(value, pos, "while evaluating the 'flake' of a flake input")?;
            }
            b"inputs" => input.overrides = read(interp, value, folder, None, depth + 1)?,
            b"follows" => {
                let text =
                    interp.plain_string(value, pos, "while evaluating the 'follows' of a flake input")?;
                let text = String::from_utf8_lossy(text);
                let names = text.split('/').filter(|name| !name.is_empty());
                input.follows = Some(names.map(ToOwned::to_owned).collect());
            }
            _ => {
                let value = interp.force(value)?;
                let name = interp.symbols.text(name);
                others.push((name.clone(), attr(interp, &name, value)?));
            }
        }
    }
    input.reference = reference(url, others)?;
    if input.reference.is_some() && input.follows.is_some() {
        return Err(flake_error(
            "flake input has both a flake reference and a follows attribute",
        ));
    }
    Ok(input)
}

/// A `url`: a string, or a path inside the flake's tree, which is one relative to the flake.
fn url_of(interp: &mut Interp, value: Value, pos: Pos, folder: &[u8]) -> R<String> {
    let value = interp.force(value)?;
    let Some(path) = value.as_path() else {
        let text = interp.plain_string(value, pos, "while evaluating the 'url' of a flake input")?;
        return Ok(String::from_utf8_lossy(text).into_owned());
    };
    let inside = path.strip_prefix(folder).and_then(|rest| match rest {
        [] => Some(&b"."[..]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    });
    let Some(inside) = inside else {
        let (path, folder) = (String::from_utf8_lossy(path), String::from_utf8_lossy(folder));
        return Err(flake_error(format!(
            "input attribute path '{path}' must be in the folder '{folder}' of the flake; write a path outside it as a string"
        )));
    };
    Ok(format!("path:{}", String::from_utf8_lossy(inside)))
}

fn reference(url: Option<String>, mut others: Vec<Attr>) -> R<Option<Reference>> {
    if others.iter().any(|(name, _)| name == "type") {
        others.extend(url.map(|url| ("url".to_owned(), FetchAttr::String(url))));
        return Ok(Some(Reference::of(others)));
    }
    if let Some((name, _)) = others.first() {
        return Err(flake_error(format!("unexpected flake input attribute '{name}'")));
    }
    url.map(|url| Reference::parse_input(&url)).transpose()
}

fn attr(interp: &Interp, name: &str, value: Value) -> R<FetchAttr> {
    match value.kind_of() {
        Type::String => {
            let text = value.as_str().unwrap_or_default();
            Ok(FetchAttr::String(String::from_utf8_lossy(text).into_owned()))
        }
        Type::Bool => Ok(FetchAttr::Bool(value == Value::TRUE)),
        Type::Int => {
            let n = value.as_int().unwrap_or_default();
            u64::try_from(n).map(FetchAttr::Int).map_err(|_| {
                flake_error(format!(
                    "negative value given for flake input attribute {name}: {n}"
                ))
            })
        }
        _ => {
            let what = interp.show_type(value);
            Err(flake_error(format!(
                "flake input attribute '{name}' is {what} while a string, Boolean, or integer is expected"
            )))
        }
    }
}
