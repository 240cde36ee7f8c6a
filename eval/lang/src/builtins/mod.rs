//! Builtins: one table of names, arguments, strictness and functions.
//!
//! Invariants
//! - `strict` lists, in order, the arguments a builtin forces first and always; callers may evaluate those before the call;
//! - no builtin blocks except in [`crate::io::EvalIo`].

mod context;
mod control;
mod convert;
mod derivation;
mod fetch;
mod files;
mod flake;
mod hash;
mod lists;
mod math;
mod sets;
mod strings;
mod table;
mod types;
mod versions;

pub(crate) use derivation::AttrJob;
pub(crate) use math::{divide, multiply, subtract};

use crate::error::R;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::pos::{Origin, Pos};
use crate::pure::path_ops;
use crate::settings::{Features, Purity};
use crate::symbol::Symbol;

/// The most arguments a builtin takes.
pub(crate) const ARITY_MAX: usize = 3;

/// A builtin.
#[derive(Clone, Copy)]
pub(crate) struct Builtin {
    /// The global name; in `builtins` a leading `__` is left out.
    pub(crate) name: &'static str,
    /// Names of its arguments.
    pub(crate) args: &'static [&'static str],
    /// Arguments it forces first and always, in that order.
    pub(crate) strict: &'static [usize],
    /// What it does. Arguments may be thunks.
    pub(crate) run: fn(&mut Interp, &[Value], Pos) -> R<Value>,
    /// Whether errors say that it was being called.
    pub(crate) traced: bool,
    /// Whether it exists.
    pub(crate) enabled: fn(&Features) -> bool,
    /// What it is for, in a sentence.
    pub(crate) doc: &'static str,
}

impl Builtin {
    /// Number of arguments.
    #[inline]
    pub(crate) const fn arity(&self) -> usize {
        self.args.len()
    }

    /// The name in `builtins` and in messages.
    pub(crate) fn public_name(&self) -> &'static str {
        self.name.strip_prefix("__").unwrap_or(self.name)
    }
}

/// Names, arguments and a sentence about every builtin, for documentation and tests.
pub fn documentation() -> impl Iterator<Item = (&'static str, &'static [&'static str], &'static str)> {
    table::TABLE.iter().map(|b| (b.public_name(), b.args, b.doc))
}

/// `derivation`, in the language itself: it must be lazy in everything but the names of its outputs.
const DERIVATION: &[u8] = br#"
args@{ outputs ? [ "out" ], ... }:
let
  made = derivationStrict args;
  shared = args // builtins.listToAttrs all // { all = map (output: output.value) all; drvAttrs = args; };
  select = outputName: {
    name = outputName;
    value = shared // {
      inherit outputName;
      inherit (made) drvPath;
      outPath = made.${outputName};
      type = "derivation";
    };
  };
  all = map select outputs;
in
(builtins.head all).value
"#;

/// Puts the builtins and constants into the global scope.
pub(crate) fn install(interp: &mut Interp) {
    let settings = std::rc::Rc::clone(&interp.settings);
    let mut public: Vec<(Symbol, Value)> = Vec::new();
    for builtin in table::TABLE.iter().filter(|b| (b.enabled)(&settings.features)) {
        let value = interp.heap.builtin(builtin);
        define(interp, &mut public, builtin.name, value);
    }
    for (name, value) in constants(interp) {
        define(interp, &mut public, name, value);
    }
    let attrs = |public: &[(Symbol, Value)]| public.iter().map(|(n, v)| (*n, *v, Pos::NONE)).collect();
    let first = interp.heap.set_of(attrs(&public));
    interp.globals.builtins = Some(first);
    let name = interp.symbols.intern(b"builtins");
    interp.globals.names.insert(name, first);
    let derivation = derivation_function(interp).unwrap_or(Value::NULL);
    define(interp, &mut public, "derivation", derivation);
    // `builtins.builtins` is the set itself: a thunk breaks the circle.
    let itself = interp
        .heap
        .apply(interp.heap.builtin(&table::BUILTINS_ITSELF), &[Value::NULL]);
    public.push((name, itself));
    let all = interp.heap.set_of(attrs(&public));
    interp.globals.builtins = Some(all);
    interp.globals.names.insert(name, all);
}

fn define(interp: &mut Interp, public: &mut Vec<(Symbol, Value)>, name: &'static str, value: Value) {
    let global = interp.symbols.intern(name.as_bytes());
    interp.globals.names.insert(global, value);
    let short = interp
        .symbols
        .intern(name.strip_prefix("__").unwrap_or(name).as_bytes());
    public.push((short, value));
}

fn constants(interp: &mut Interp) -> Vec<(&'static str, Value)> {
    use crate::symbol::sym;
    let settings = std::rc::Rc::clone(&interp.settings);
    let store_dir = interp.io.store_dir().as_str().to_owned();
    let mut entries = Vec::new();
    for (prefix, path) in &settings.nix_path {
        let (prefix, path) = (
            interp.heap.string(prefix.as_bytes()),
            interp.heap.string(path.as_bytes()),
        );
        entries.push(interp.small_set(&[(sym::prefix, prefix), (sym::path, path)]));
    }
    let heap = &interp.heap;
    let mut all = vec![
        ("true", Value::TRUE),
        ("false", Value::FALSE),
        ("null", Value::NULL),
        ("__nixVersion", heap.string(settings.nix_version.as_bytes())),
        ("__storeDir", heap.string(store_dir.as_bytes())),
        ("__langVersion", heap.int(6)),
        ("__nixPath", heap.list(&entries)),
    ];
    if settings.purity != Purity::Pure {
        if let Some(system) = &settings.current_system {
            all.push(("__currentSystem", heap.string(system.as_bytes())));
        }
        if let Some(time) = settings.current_time {
            all.push(("__currentTime", heap.int(time)));
        }
    }
    all
}

fn derivation_function(interp: &mut Interp) -> R<Value> {
    let origin = Origin::Internal("«nix-internal»/derivation-internal.nix");
    let code = interp.compile(&DERIVATION.into(), origin, path_ops::dir_of_path(b"/"), &[])?;
    interp.run_code(code)
}

/// The function that turns a position number into its line.
pub(crate) fn position_line(interp: &Interp) -> Value {
    interp.heap.builtin(&table::POSITION_LINE)
}

/// The function that turns a position number into its column.
pub(crate) fn position_column(interp: &Interp) -> Value {
    interp.heap.builtin(&table::POSITION_COLUMN)
}

/// The function that evaluates a file, behind the cache of files.
pub(crate) fn load_file(interp: &Interp) -> Value {
    interp.heap.builtin(&table::LOAD_FILE)
}

/// The function that fetches a tree by the attributes of a lock file.
pub(crate) fn fetch_locked_tree(interp: &Interp) -> Value {
    interp.heap.builtin(&table::LOCKED_TREE)
}
