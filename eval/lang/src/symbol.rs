//! Interned names: every attribute and variable name is a `u32`.
//!
//! Invariants
//! - equal bytes have equal symbols, and a symbol never changes or disappears;
//! - symbols are numbered in order of first use: their order is not the order of names.

use rustc_hash::FxHashMap;

use crate::num::{to_u32, to_usize};

/// An interned name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Symbol(pub(crate) u32);

/// The table of names of one evaluator.
#[derive(Debug)]
pub(crate) struct SymbolTable {
    names: Vec<&'static [u8]>,
    index: FxHashMap<&'static [u8], Symbol>,
    bytes: Bytes,
}

/// Backing store of the names: blocks that are only appended to and never move.
#[derive(Debug)]
struct Bytes(bumpalo::Bump);

impl SymbolTable {
    /// A table that holds the well-known names of [`sym`], in order.
    pub(crate) fn new() -> Self {
        let mut table = Self {
            names: Vec::new(),
            index: FxHashMap::default(),
            bytes: Bytes(bumpalo::Bump::new()),
        };
        for name in WELL_KNOWN {
            table.intern(name.as_bytes());
        }
        table
    }

    /// The symbol of `name`, made when it is new. Amortised O(len).
    pub(crate) fn intern(&mut self, name: &[u8]) -> Symbol {
        if let Some(symbol) = self.index.get(name) {
            return *symbol;
        }
        let symbol = Symbol(to_u32(self.names.len()));
        let kept = self.bytes.keep(name);
        self.names.push(kept);
        self.index.insert(kept, symbol);
        symbol
    }

    /// The symbol of `name` if some source or value has used it.
    pub(crate) fn lookup(&self, name: &[u8]) -> Option<Symbol> {
        self.index.get(name).copied()
    }

    /// The bytes of a name.
    #[inline]
    pub(crate) fn name(&self, symbol: Symbol) -> &'static [u8] {
        self.names[to_usize(symbol.0)]
    }

    /// The name as text, for messages.
    pub(crate) fn text(&self, symbol: Symbol) -> String {
        String::from_utf8_lossy(self.name(symbol)).into_owned()
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

mod keep {
    #![allow(unsafe_code, reason = "names live as long as the table that hands them out")]
    impl super::Bytes {
        /// Copies `name` into the store.
        pub(super) fn keep(&self, name: &[u8]) -> &'static [u8] {
            let kept: &[u8] = self.0.alloc_slice_copy(name);
            // SAFETY: the block is neither moved nor freed before the table is dropped, and the crate-private
            // `SymbolTable` lives in the evaluator beside everything that holds its names.
            unsafe { std::mem::transmute::<&[u8], &'static [u8]>(kept) }
        }
    }
}

macro_rules! well_known {
    ($($ident:ident = $text:literal),* $(,)?) => {
        const WELL_KNOWN: &[&str] = &[$($text),*];
        /// Symbols the evaluator itself looks for.
        pub(crate) mod sym {
            use super::Symbol;
            #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "a counter made of names")]
            enum Index { $($ident),* }
            $(#[allow(non_upper_case_globals, reason = "named after the attribute")]
              pub(crate) const $ident: Symbol = Symbol(Index::$ident as u32);)*
        }
    };
}

well_known! {
    or_ = "or", body = "body", overrides = "__overrides", functor = "__functor", to_string = "__toString",
    out_path = "outPath", drv_path = "drvPath", type_ = "type", name = "name", value = "value", success = "success",
    sub = "__sub", mul = "__mul", div = "__div", less_than = "__lessThan", find_file = "__findFile",
    nix_path = "__nixPath", cur_pos = "__curPos", file = "file", line = "line",
    column = "column", system = "system", builder = "builder", args = "args", outputs = "outputs",
    output_hash = "outputHash", output_hash_algo = "outputHashAlgo", output_hash_mode = "outputHashMode",
    structured_attrs = "__structuredAttrs", ignore_nulls = "__ignoreNulls", json = "__json",
    content_addressed = "__contentAddressed", impure = "__impure", start_set = "startSet", operator = "operator",
    key = "key", path = "path", prefix = "prefix", right = "right", wrong = "wrong", version = "version",
    all_outputs = "allOutputs", url = "url", sha256 = "sha256", filter = "filter", recursive = "recursive",
    hash = "hash", hash_algo = "hashAlgo", to_hash_format = "toHashFormat", regular = "regular",
    directory = "directory", symlink = "symlink", unknown = "unknown", allowed_references = "allowedReferences",
    allowed_requisites = "allowedRequisites", disallowed_references = "disallowedReferences",
    disallowed_requisites = "disallowedRequisites", max_size = "maxSize", max_closure_size = "maxClosureSize",
    output_name = "outputName", empty = "",
    underscore_type = "_type",
}
