//! String contexts: which store paths and derivation outputs a string refers to.
//!
//! A context is an interned sorted set, so that most strings carry a number, equal contexts are equal numbers, and the
//! union of the same two contexts is looked up instead of computed.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::num::{to_u32, to_usize};

/// An interned context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ctx(pub(crate) u32);

impl Ctx {
    /// No references.
    pub(crate) const EMPTY: Self = Self(0);

    /// Whether there are no references.
    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One reference: what Nix calls a string context element. Paths are full store paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContextElem {
    /// A store path as it is.
    Opaque(Rc<[u8]>),
    /// A derivation with everything it needs and makes.
    DrvDeep(Rc<[u8]>),
    /// An output of a derivation.
    Built {
        /// The derivation's store path.
        drv: Rc<[u8]>,
        /// The output's name.
        output: Rc<[u8]>,
    },
}

impl ContextElem {
    /// Nix's text form: `path`, `=path` or `!output!path`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Opaque(path) => path.to_vec(),
            Self::DrvDeep(path) => [b"=", path.as_ref()].concat(),
            Self::Built { drv, output } => [b"!", output.as_ref(), b"!", drv].concat(),
        }
    }

    /// The store path named.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Opaque(path) | Self::DrvDeep(path) => path,
            Self::Built { drv, .. } => drv,
        }
    }
}

/// The contexts of one evaluator.
#[derive(Debug)]
pub(crate) struct ContextTable {
    elems: Vec<ContextElem>,
    elem_index: FxHashMap<ContextElem, u32>,
    sets: Vec<Rc<[u32]>>,
    set_index: FxHashMap<Rc<[u32]>, u32>,
    unions: FxHashMap<(u32, u32), u32>,
}

impl ContextTable {
    /// A table with the empty context.
    pub(crate) fn new() -> Self {
        let empty: Rc<[u32]> = Rc::new([]);
        Self {
            elems: Vec::new(),
            elem_index: FxHashMap::default(),
            sets: vec![Rc::clone(&empty)],
            set_index: std::iter::once((empty, 0)).collect(),
            unions: FxHashMap::default(),
        }
    }

    /// The context of one reference.
    pub(crate) fn single(&mut self, elem: ContextElem) -> Ctx {
        let id = self.elem(elem);
        self.set(Rc::new([id]))
    }

    /// The context of several references.
    pub(crate) fn of(&mut self, elems: impl IntoIterator<Item = ContextElem>) -> Ctx {
        let mut ids: Vec<u32> = elems.into_iter().map(|e| self.elem(e)).collect();
        ids.sort_unstable();
        ids.dedup();
        self.set(ids.into())
    }

    fn elem(&mut self, elem: ContextElem) -> u32 {
        if let Some(id) = self.elem_index.get(&elem) {
            return *id;
        }
        let id = to_u32(self.elems.len());
        self.elems.push(elem.clone());
        self.elem_index.insert(elem, id);
        id
    }

    fn set(&mut self, ids: Rc<[u32]>) -> Ctx {
        if let Some(id) = self.set_index.get(&ids) {
            return Ctx(*id);
        }
        let id = to_u32(self.sets.len());
        self.sets.push(Rc::clone(&ids));
        self.set_index.insert(ids, id);
        Ctx(id)
    }

    /// Both contexts' references.
    #[inline]
    pub(crate) fn union(&mut self, a: Ctx, b: Ctx) -> Ctx {
        if a == b || b.is_empty() {
            return a;
        }
        if a.is_empty() {
            return b;
        }
        self.union_slow(a, b)
    }

    #[inline(never)]
    fn union_slow(&mut self, a: Ctx, b: Ctx) -> Ctx {
        let key = (a.0.min(b.0), a.0.max(b.0));
        if let Some(id) = self.unions.get(&key) {
            return Ctx(*id);
        }
        let mut ids = [&self.sets[to_usize(a.0)][..], &self.sets[to_usize(b.0)][..]].concat();
        ids.sort_unstable();
        ids.dedup();
        let result = self.set(ids.into());
        self.unions.insert(key, result.0);
        result
    }

    /// The references, in Nix's order (by their text form's set order: opaque, deep, built; then by path).
    pub(crate) fn elems(&self, ctx: Ctx) -> Vec<ContextElem> {
        let ids = &self.sets[to_usize(ctx.0)];
        let mut elems: Vec<ContextElem> = ids.iter().map(|id| self.elems[to_usize(*id)].clone()).collect();
        elems.sort();
        elems
    }
}
