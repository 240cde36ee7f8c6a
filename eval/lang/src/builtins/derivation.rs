//! `derivationStrict`: an attribute set becomes a derivation.
//!
//! Source: `derivationStrictInternal` in `src/libexpr/primops.cc`, for the order in which attributes are read and for the
//! messages; paths and hashes are nix-compat's.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use nix_compat::content_address::{ContentAddress, ContentAddressMethod};
use nix_compat::derivation::{Derivation, DerivationOutput, HashModuloMemo, OutputName};
use nix_compat::hash::HashAlgo;
use nix_compat::store_path::{
    ComputePathError, StorePath, StorePathName, StorePathNameError, downstream_placeholder, placeholder,
};

use crate::error::{ErrorKind, EvalError, R, fail};
use crate::heap::attrs::{Attr, SetRef};
use crate::heap::context::{ContextElem, Ctx};
use crate::heap::value::Value;
use crate::interp::fibers::wide::{Items, Job, Outcome};
use crate::interp::{Coerce, Interp};
use crate::pos::{Origin, Pos};
use crate::pure::json;
use crate::symbol::{Symbol, sym};

/// A derivation that was imported from the store: what `derivation` returns, from what the file says.
const IMPORTED: &[u8] = br#"
made@{ drvPath, name, outputs, ... }:
let
  shared = builtins.listToAttrs all // { all = map (output: output.value) all; inherit drvPath name; type = "derivation"; };
  all = map (outputName: {
    name = outputName;
    value = shared // { inherit outputName; outPath = made.${outputName}; };
  }) outputs;
in
(builtins.head all).value
"#;

/// What a store path name may not be, in Nix's words.
pub(super) fn name_error(name: &str, error: StorePathNameError) -> String {
    match error {
        StorePathNameError::Empty => "name must not be empty".to_owned(),
        StorePathNameError::TooLong { .. } => format!("name '{name}' must be no longer than 211 characters"),
        StorePathNameError::Character { byte, .. } => {
            format!("name '{name}' contains illegal character '{}'", char::from(byte))
        }
        StorePathNameError::Dots { component } => {
            format!("name '{name}' is not valid: first dash-separated component must not be '{component}'")
        }
    }
}

fn eval_error<T>(text: impl Into<String>) -> R<T> {
    fail(ErrorKind::Eval, text)
}

pub(super) fn derivation_strict(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let what = "while evaluating the argument passed to builtins.derivationStrict";
    let attrs = interp.expect_set(args[0], Pos::NONE, what)?;
    let inside = "in the attrset passed as argument to builtins.derivationStrict";
    let (name, name_pos) = interp.expect_attr(attrs, sym::name, inside)?;
    let what = "while evaluating the `name` attribute passed to builtins.derivationStrict";
    let name = interp
        .plain_string(name, Pos::NONE, what)
        .map_err(|e| e.frame(name_pos, "while evaluating the derivation attribute 'name'"))?;
    let name = String::from_utf8_lossy(name).into_owned();
    make(interp, &name, attrs).map_err(|e| {
        let place = interp.sources.place(name_pos);
        e.always(format!(
            "while evaluating derivation '{name}'\n  whose name attribute is located at {place}"
        ))
    })
}

/// What is being put together.
struct Maker {
    drv: Derivation,
    ctx: Ctx,
    ignore_nulls: bool,
    json: Option<Vec<u8>>,
    outputs: BTreeSet<String>,
    output_hash: Option<Vec<u8>>,
    hash_algo: Option<HashAlgo>,
    method: Option<ContentAddressMethod>,
    content_addressed: bool,
    impure: bool,
}

fn make(interp: &mut Interp, name: &str, attrs: SetRef) -> R<Value> {
    let checked = StorePathName::new(name).map_err(|e| {
        let why = name_error(name, e);
        EvalError::new(
            ErrorKind::Eval,
            format!("invalid derivation name: {why}. Please pass a different 'name'."),
        )
    })?;
    let structured = flag(interp, attrs, sym::structured_attrs, STRUCTURED)?;
    let ignore_nulls = flag(interp, attrs, sym::ignore_nulls, IGNORE_NULLS)?;
    let mut maker = Maker {
        drv: Derivation {
            name: checked,
            outputs: BTreeMap::new(),
            input_drvs: BTreeMap::new(),
            input_srcs: BTreeSet::new(),
            platform: Vec::new(),
            builder: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
        },
        ctx: Ctx::EMPTY,
        ignore_nulls,
        json: structured.then(|| b"{".to_vec()),
        outputs: std::iter::once("out".to_owned()).collect(),
        output_hash: None,
        hash_algo: None,
        method: None,
        content_addressed: false,
        impure: false,
    };
    let items = Items::sorted(interp.heap.flat(attrs), interp);
    let job = AttrJob {
        ignore_nulls,
        structured,
    };
    interp.each_item(items, Job::Attr(job), |interp, i, early| {
        let (Some(key), value, pos) = items.get(i) else {
            return Ok(());
        };
        if key == sym::ignore_nulls {
            return Ok(());
        }
        let result = early.and_then(|early| maker.attr(interp, key, value, pos, early));
        result.map_err(|e| {
            let key = crate::syntax::show::identifier(interp.symbols.name(key));
            e.frame(
                pos,
                format!("while evaluating attribute '{key}' of derivation '{name}'"),
            )
        })
    })?;
    maker.finish(interp, name)
}

const STRUCTURED: &str =
    "while evaluating the `__structuredAttrs` attribute passed to builtins.derivationStrict";
const IGNORE_NULLS: &str =
    "while evaluating the `__ignoreNulls` attribute passed to builtins.derivationStrict";

fn flag(interp: &mut Interp, attrs: SetRef, name: Symbol, what: &'static str) -> R<bool> {
    match attrs.value_of(name) {
        Some(value) => interp.expect_bool(value, Pos::NONE, what),
        None => Ok(false),
    }
}

/// Evaluates an attribute before its turn, as [`Maker::attr`] will.
#[derive(Clone, Copy)]
pub(crate) struct AttrJob {
    ignore_nulls: bool,
    structured: bool,
}

impl AttrJob {
    /// Whether an attribute's value is text or JSON; others are looked at in ways of their own.
    pub(crate) fn may_start(self, name: Option<Symbol>) -> bool {
        !matches!(
            name,
            None | Some(
                sym::ignore_nulls | sym::structured_attrs | sym::content_addressed | sym::impure | sym::args
            )
        )
    }

    pub(crate) fn run(self, interp: &mut Interp, value: Value) -> R<Outcome> {
        if self.ignore_nulls && interp.force(value)? == Value::NULL {
            return Ok(Outcome::Skipped);
        }
        let mut ctx = Ctx::EMPTY;
        let text = if self.structured {
            interp.write_json(value, true, true, &mut ctx, Pos::NONE)?.into()
        } else {
            interp.coerce(value, &mut ctx, Coerce::ENV, Pos::NONE, "")?
        };
        Ok(Outcome::Text(text, ctx))
    }
}

impl Maker {
    fn attr(
        &mut self,
        interp: &mut Interp,
        key: Symbol,
        value: Value,
        pos: Pos,
        early: Option<Outcome>,
    ) -> R<()> {
        if matches!(early, Some(Outcome::Skipped))
            || (self.ignore_nulls && interp.force(value)? == Value::NULL)
        {
            return Ok(());
        }
        match key {
            sym::content_addressed => {
                self.content_addressed = interp.expect_bool(value, Pos::NONE, "")?;
                require(
                    self.content_addressed,
                    interp.settings.features.ca_derivations,
                    "ca-derivations",
                )
            }
            sym::impure => {
                self.impure = interp.expect_bool(value, Pos::NONE, "")?;
                require(
                    self.impure,
                    interp.settings.features.impure_derivations,
                    "impure-derivations",
                )
            }
            sym::args => {
                let list = interp.expect_list(value, Pos::NONE, "")?;
                let what = (Pos::NONE, "while evaluating an element of the argument list");
                let job = Job::Coerce(Coerce::ENV, what.0, what.1);
                interp.each_item(Items::list(list), job, |interp, i, early| {
                    let text = interp.coerce_item(list[i], &mut self.ctx, Coerce::ENV, what, early)?;
                    self.drv.args.push(text.into_owned());
                    Ok(())
                })
            }
            _ if self.json.is_some() => self.structured(interp, key, value, pos, early),
            _ => self.plain(interp, key, value, early),
        }
    }

    fn structured(
        &mut self,
        interp: &mut Interp,
        key: Symbol,
        value: Value,
        pos: Pos,
        early: Option<Outcome>,
    ) -> R<()> {
        if key == sym::structured_attrs {
            return Ok(());
        }
        let text = match early {
            Some(Outcome::Text(text, ctx)) => {
                self.ctx = interp.union(self.ctx, ctx);
                text.into_owned()
            }
            _ => interp.write_json(value, true, true, &mut self.ctx, Pos::NONE)?,
        };
        if let Some(json) = &mut self.json {
            if json.len() > 1 {
                json.push(b',');
            }
            let name = json::write_string(json, interp.symbols.name(key));
            name.map_err(|e| EvalError::new(ErrorKind::Eval, format!("JSON serialization error: {e}")))?;
            json.push(b':');
            json.extend_from_slice(&text);
        }
        match key {
            sym::builder => {
                self.drv.builder = interp
                    .expect_string(value, &mut self.ctx, Pos::NONE, "")?
                    .to_vec();
            }
            sym::system => self.drv.platform = interp.plain_string(value, Pos::NONE, "")?.to_vec(),
            sym::output_hash => self.output_hash = Some(interp.plain_string(value, Pos::NONE, "")?.to_vec()),
            sym::output_hash_algo => self.set_algo(interp.plain_string(value, Pos::NONE, "")?),
            sym::output_hash_mode => {
                let mode = interp.plain_string(value, Pos::NONE, "")?;
                self.set_mode(interp, mode)?;
            }
            sym::outputs => {
                let mut names = Vec::new();
                for item in interp.expect_list(value, Pos::NONE, "")? {
                    names.push(
                        String::from_utf8_lossy(interp.plain_string(*item, Pos::NONE, "")?).into_owned(),
                    );
                }
                self.set_outputs(names)?;
            }
            sym::allowed_references
            | sym::allowed_requisites
            | sym::disallowed_references
            | sym::disallowed_requisites
            | sym::max_size
            | sym::max_closure_size => {
                let key = interp.symbols.text(key);
                let text = format!(
                    "'structuredAttrs' disables the effect of the derivation attribute '{key}'; use 'outputChecks.<output>.{key}' instead"
                );
                let frame = format!("while evaluating derivation '{}'", self.drv.name);
                interp.warn_while(&text, Some(&frame), pos);
            }
            _ => {}
        }
        Ok(())
    }

    fn plain(&mut self, interp: &mut Interp, key: Symbol, value: Value, early: Option<Outcome>) -> R<()> {
        let text = interp
            .coerce_item(value, &mut self.ctx, Coerce::ENV, (Pos::NONE, ""), Ok(early))?
            .into_owned();
        match key {
            sym::json => {
                let text = "setting structured attributes via '__json' is deprecated, and may be disallowed in future versions of Nix. Set '__structuredAttrs = true' instead.";
                interp.warn_at(text, Pos::NONE);
            }
            sym::builder => self.drv.builder.clone_from(&text),
            sym::system => self.drv.platform.clone_from(&text),
            sym::output_hash => self.output_hash = Some(text.clone()),
            sym::output_hash_algo => self.set_algo(&text),
            sym::output_hash_mode => self.set_mode(interp, &text)?,
            sym::outputs => {
                let words = text
                    .split(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
                    .filter(|w| !w.is_empty());
                self.set_outputs(words.map(|w| String::from_utf8_lossy(w).into_owned()))?;
            }
            _ => {}
        }
        self.drv.env.insert(interp.symbols.name(key).to_vec(), text);
        Ok(())
    }

    fn set_algo(&mut self, name: &[u8]) {
        self.hash_algo = HashAlgo::from_name(&String::from_utf8_lossy(name));
    }

    fn set_mode(&mut self, interp: &Interp, mode: &[u8]) -> R<()> {
        self.method = Some(match mode {
            b"recursive" | b"nar" => ContentAddressMethod::Recursive,
            b"flat" => ContentAddressMethod::Flat,
            b"text" => {
                require(
                    true,
                    interp.settings.features.dynamic_derivations,
                    "dynamic-derivations",
                )?;
                ContentAddressMethod::Text
            }
            b"git" => return require(true, false, "git-hashing"),
            other => {
                let shown = String::from_utf8_lossy(other);
                return eval_error(format!("invalid value '{shown}' for 'outputHashMode' attribute"));
            }
        });
        Ok(())
    }

    fn set_outputs(&mut self, names: impl IntoIterator<Item = String>) -> R<()> {
        self.outputs.clear();
        for name in names {
            if self.outputs.contains(&name) {
                return eval_error(format!("duplicate derivation output '{name}'"));
            }
            if name == "drvPath" {
                return eval_error("invalid derivation output name 'drvPath'");
            }
            self.outputs.insert(name);
        }
        if self.outputs.is_empty() {
            return eval_error("derivation cannot have an empty set of outputs");
        }
        Ok(())
    }

    fn finish(mut self, interp: &mut Interp, name: &str) -> R<Value> {
        if let Some(mut json) = self.json.take() {
            json.push(b'}');
            self.drv.env.insert(b"__json".to_vec(), json);
        }
        self.inputs(interp)?;
        if self.drv.builder.is_empty() {
            return eval_error("required attribute 'builder' missing");
        }
        if self.drv.platform.is_empty() {
            return eval_error("required attribute 'system' missing");
        }
        let only_out = self.outputs.len() == 1 && self.outputs.contains("out");
        if name.ends_with(".drv") && !(self.method == Some(ContentAddressMethod::Text) && only_out) {
            let text =
                "derivation names are allowed to end in '.drv' only if they produce a single derivation file";
            return eval_error(text);
        }
        if let Some(hash) = self.output_hash.take() {
            if !only_out {
                return eval_error("multiple outputs are not supported in fixed-output derivations");
            }
            self.fixed(interp, &hash)?;
        } else if self.content_addressed || self.impure {
            self.floating()?;
        } else {
            for output in &self.outputs {
                self.drv.env.insert(output.clone().into_bytes(), Vec::new());
                self.drv
                    .outputs
                    .insert(output_name(output)?, DerivationOutput::Deferred);
            }
        }
        instantiate(interp, self.drv)
    }

    fn fixed(&mut self, interp: &Interp, hash: &[u8]) -> R<()> {
        let hash = super::hash::parse_or_empty(interp, hash, self.hash_algo)?;
        let method = self.method.unwrap_or(ContentAddressMethod::Flat);
        let address = ContentAddress::new(method, hash);
        let address = address.map_err(|e| EvalError::new(ErrorKind::Eval, e.to_string()))?;
        let out = output_name("out")?;
        let output = DerivationOutput::CaFixed { address };
        let dir = interp.io.store_dir();
        let path = output
            .path(dir, &self.drv.name, &out)
            .map_err(|e| Interp::eval_error(e.to_string()))?;
        let path = path.map(|p| dir.print(&p)).unwrap_or_default();
        self.drv.env.insert(b"out".to_vec(), path.into_bytes());
        self.drv.outputs.insert(out, output);
        Ok(())
    }

    fn floating(&mut self) -> R<()> {
        if self.content_addressed && self.impure {
            return eval_error("derivation cannot be both content-addressed and impure");
        }
        let algo = self.hash_algo.unwrap_or(HashAlgo::Sha256);
        let method = self.method.unwrap_or(ContentAddressMethod::Recursive);
        for output in &self.outputs {
            let name = output_name(output)?;
            self.drv
                .env
                .insert(output.clone().into_bytes(), placeholder(&name).into_bytes());
            let kind = if self.impure {
                DerivationOutput::Impure { method, algo }
            } else {
                DerivationOutput::CaFloating { method, algo }
            };
            self.drv.outputs.insert(name, kind);
        }
        Ok(())
    }

    /// Everything the strings refer to becomes an input.
    fn inputs(&mut self, interp: &mut Interp) -> R<()> {
        let io = Rc::clone(&interp.io);
        let parse = |path: &[u8]| {
            let parsed = io.store_dir().parse_bytes(path);
            parsed.map_err(|e| EvalError::new(ErrorKind::InvalidPath, e.to_string()))
        };
        for elem in interp.contexts.elems(self.ctx) {
            match &elem {
                ContextElem::Opaque(path) => {
                    self.drv.input_srcs.insert(parse(path)?);
                }
                ContextElem::Built { drv, output } => {
                    let output = output_name(&String::from_utf8_lossy(output))?;
                    self.drv.input_drvs.entry(parse(drv)?).or_default().insert(output);
                }
                ContextElem::DrvDeep(drv) => self.deep_input(interp, parse(drv)?)?,
            }
        }
        Ok(())
    }

    /// A derivation with everything it needs: all of them, and all their outputs.
    fn deep_input(&mut self, interp: &Interp, root: StorePath) -> R<()> {
        let mut work = vec![root];
        let mut seen = BTreeSet::new();
        while let Some(path) = work.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            if path.is_derivation() {
                let links = interp
                    .io
                    .derivation_links(&path)
                    .map_err(|e| Interp::io_error(&e))?;
                let outputs = self.drv.input_drvs.entry(path.clone()).or_default();
                outputs.extend(links.outputs);
                work.extend(links.references);
            } else {
                work.extend(interp.io.references(&path).unwrap_or_default());
            }
            self.drv.input_srcs.insert(path);
        }
        Ok(())
    }
}

fn output_name(name: &str) -> R<OutputName> {
    OutputName::new(name).map_err(|_| {
        let why = StorePathName::new(name)
            .err()
            .map_or_else(|| name.to_owned(), |e| name_error(name, e));
        EvalError::new(
            ErrorKind::Eval,
            format!("invalid derivation output name '{name}': {why}"),
        )
    })
}

pub(super) fn require(used: bool, enabled: bool, feature: &str) -> R<()> {
    if !used || enabled {
        return Ok(());
    }
    let text = format!(
        "experimental Nix feature '{feature}' is disabled; add '--extra-experimental-features {feature}' to enable it"
    );
    fail(ErrorKind::Unsupported, text)
}

/// Computes the paths, hands the derivation to the world, and gives its path and outputs.
fn instantiate(interp: &mut Interp, mut drv: Derivation) -> R<Value> {
    let io = Rc::clone(&interp.io);
    let mut memo = interp
        .caches
        .derivations
        .take()
        .unwrap_or_else(|| HashModuloMemo::new(io.store_dir().clone()));
    let failed = |error: ComputePathError| Interp::eval_error(error.to_string());
    let result: R<_> = (|| {
        let missing = drv
            .input_drvs
            .keys()
            .filter(|p| memo.get(p).is_none())
            .cloned()
            .collect::<Vec<_>>();
        if !missing.is_empty() {
            let loaded = memo.load(missing, |path| io.read_derivation(path));
            loaded.map_err(|e| {
                let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
                EvalError::new(ErrorKind::File, cause)
            })?;
        }
        drv.fill_output_paths(&memo)
            .map_err(|e| Interp::eval_error(e.to_string()))?;
        let text = drv.to_aterm(io.store_dir()).map_err(failed)?;
        let path = drv.store_path_of_text(io.store_dir(), &text).map_err(failed)?;
        let drv = Arc::new(drv);
        if memo.get(&path).is_none() {
            memo.add(path.clone(), &drv)
                .map_err(|e| Interp::eval_error(e.to_string()))?;
            io.write_derivation(&path, Arc::clone(&drv), text)
                .map_err(|e| Interp::io_error(&e))?;
        }
        Ok((path, drv))
    })();
    interp.caches.derivations = Some(memo);
    let (path, drv) = result?;
    let attrs = outputs_of(interp, &path, &drv)?;
    Ok(interp.heap.set_of(attrs))
}

/// `drvPath` and one attribute for each output.
fn outputs_of(interp: &mut Interp, path: &StorePath, drv: &Derivation) -> R<Vec<Attr>> {
    let io = Rc::clone(&interp.io);
    let drv_path: Rc<[u8]> = io.store_dir().print(path).into_bytes().into();
    let deep = interp.contexts.single(ContextElem::DrvDeep(Rc::clone(&drv_path)));
    let mut attrs: Vec<Attr> = vec![(sym::drv_path, interp.heap.string_ctx(&drv_path, deep), Pos::NONE)];
    for (name, output) in &drv.outputs {
        let known = output.path(io.store_dir(), &drv.name, name);
        let text = match known.map_err(|e| Interp::eval_error(e.to_string()))? {
            Some(path) => io.store_dir().print(&path),
            None => downstream_placeholder(path, name).map_err(|e| Interp::eval_error(e.to_string()))?,
        };
        let elem = ContextElem::Built {
            drv: Rc::clone(&drv_path),
            output: name.as_str().as_bytes().into(),
        };
        let ctx = interp.contexts.single(elem);
        let symbol = interp.symbols.intern(name.as_str().as_bytes());
        attrs.push((symbol, interp.heap.string_ctx(text.as_bytes(), ctx), Pos::NONE));
    }
    Ok(attrs)
}

/// The value of a derivation file, when `path` is one in the store.
pub(super) fn import_derivation(interp: &mut Interp, path: &[u8]) -> R<Option<Value>> {
    let io = Rc::clone(&interp.io);
    let Ok(stored) = io.store_dir().parse_bytes(path) else {
        return Ok(None);
    };
    if !stored.is_derivation() || !io.is_valid_path(&stored).map_err(|e| Interp::io_error(&e))? {
        return Ok(None);
    }
    let drv = io.read_derivation(&stored).map_err(|e| Interp::io_error(&e))?;
    let mut attrs = outputs_of(interp, &stored, &drv)?;
    let name = drv.env.get(b"name".as_slice()).cloned().unwrap_or_default();
    attrs.push((sym::name, interp.heap.string(&name), Pos::NONE));
    let outputs: Vec<Value> = drv
        .outputs
        .keys()
        .map(|o| interp.heap.string(o.as_str().as_bytes()))
        .collect();
    attrs.push((sym::outputs, interp.heap.list(&outputs), Pos::NONE));
    let made = interp.heap.set_of(attrs);
    let origin = Origin::Internal("«nix-internal»/imported-drv-to-derivation.nix");
    let code = interp.compile(&IMPORTED.into(), origin, b"/", &[])?;
    let function = interp.run_code(code)?;
    interp.call(function, &[made], Pos::NONE).map(Some)
}
