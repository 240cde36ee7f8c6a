//! Surface syntax: what the text says, before names are resolved.
//!
//! Nodes lie in one vector per file and name each other by index, so that a tree of any depth is freed without recursion.
//! A node's position is a byte offset into the text plus one; 0 where Nix keeps none.

use rustc_hash::FxHashMap;

use crate::num::{to_u32, to_usize};
use crate::symbol::Symbol;

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExprId(pub(crate) u32);

/// Byte offset plus one, or 0.
pub(crate) type At = u32;

/// Binary operators that are not calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinOp {
    Eq,
    Neq,
    And,
    Or,
    Impl,
    Update,
    Concat,
}

/// Operators that Nix writes as calls of a builtin looked up by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOp {
    /// `-x`: `__sub 0 x`.
    Neg,
    Sub,
    Mul,
    Div,
    /// `a < b`: `__lessThan a b`.
    Less,
    /// `a > b`: `__lessThan b a`.
    Greater,
    /// `a <= b`: `! __lessThan b a`.
    LessEq,
    /// `a >= b`: `! __lessThan a b`.
    GreaterEq,
}

/// One node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expr {
    Int(i64),
    Float(f64),
    /// Index into [`Ast::strings`].
    Str(u32),
    /// A path literal as written; index into [`Ast::strings`].
    Path(u32),
    /// `~/…`; the text after the tilde.
    HomePath(u32),
    /// `<…>`; the text between the brackets.
    SearchPath(u32),
    Var(Symbol),
    CurPos,
    /// Index into [`Ast::selects`].
    Select(u32),
    HasAttr(ExprId, PathId),
    /// Index into [`Ast::attrs`].
    Attrs(u32),
    Let(u32, ExprId),
    /// Index into [`Ast::lists`].
    List(u32),
    /// Index into [`Ast::lambdas`].
    Lambda(u32),
    /// Function and index into [`Ast::lists`].
    Call(ExprId, u32),
    With(ExprId, ExprId),
    Assert(ExprId, ExprId),
    /// Index into [`Ast::ifs`].
    If(u32),
    Not(ExprId),
    Bin(BinOp, ExprId, ExprId),
    Op(CallOp, ExprId, ExprId),
    /// `a + b`.
    Plus(ExprId, ExprId),
    /// String interpolation (true) or path concatenation (false); index into [`Ast::lists`].
    Interp(bool, u32),
}

/// A name in an attribute path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttrName {
    Static(Symbol),
    Dynamic(ExprId),
}

/// Index into [`Ast::paths`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathId(pub(crate) u32);

/// `base.path or default`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Select {
    pub(crate) base: ExprId,
    pub(crate) path: PathId,
    pub(crate) default: Option<ExprId>,
}

/// How an attribute is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefKind {
    Plain(ExprId),
    /// `inherit x;`
    Inherited,
    /// `inherit (e) x;`: index into [`Attrs::from`].
    InheritedFrom(u32),
}

/// One attribute definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttrDef {
    pub(crate) name: Symbol,
    pub(crate) kind: DefKind,
    pub(crate) at: At,
}

/// `${name} = value`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DynamicDef {
    pub(crate) name: ExprId,
    pub(crate) value: ExprId,
    pub(crate) at: At,
}

/// The bindings of an attribute set or `let`.
#[derive(Debug, Default)]
pub(crate) struct Attrs {
    pub(crate) recursive: bool,
    pub(crate) defs: Vec<AttrDef>,
    pub(crate) dynamic: Vec<DynamicDef>,
    pub(crate) from: Vec<ExprId>,
    index: Option<FxHashMap<Symbol, u32>>,
}

/// Definitions from which on a hash index is kept.
const INDEX_FROM: usize = 12;

impl Attrs {
    /// The definition of a name.
    pub(crate) fn find(&self, name: Symbol) -> Option<&AttrDef> {
        match &self.index {
            Some(index) => index.get(&name).map(|i| &self.defs[to_usize(*i)]),
            None => self.defs.iter().find(|d| d.name == name),
        }
    }

    /// Adds a definition whose name is new.
    pub(crate) fn push(&mut self, def: AttrDef) {
        if let Some(index) = &mut self.index {
            index.insert(def.name, to_u32(self.defs.len()));
        } else if self.defs.len() == INDEX_FROM {
            let numbered = self.defs.iter().enumerate().map(|(i, d)| (d.name, to_u32(i)));
            let mut index: FxHashMap<Symbol, u32> = numbered.collect();
            index.insert(def.name, to_u32(INDEX_FROM));
            self.index = Some(index);
        }
        self.defs.push(def);
    }
}

/// One formal argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Formal {
    pub(crate) name: Symbol,
    pub(crate) default: Option<ExprId>,
    pub(crate) at: At,
}

/// The formals of a function.
#[derive(Debug)]
pub(crate) struct Formals {
    pub(crate) list: Vec<Formal>,
    pub(crate) ellipsis: bool,
}

/// A function.
#[derive(Debug)]
pub(crate) struct Lambda {
    pub(crate) arg: Option<Symbol>,
    pub(crate) formals: Option<Formals>,
    pub(crate) body: ExprId,
    /// The attribute it is bound to, for messages.
    pub(crate) name: Option<Symbol>,
}

/// A parsed text.
#[derive(Debug, Default)]
pub(crate) struct Ast {
    pub(crate) nodes: Vec<(Expr, At)>,
    /// Texts, lists and paths are ranges of one pool each.
    pub(super) bytes: Vec<u8>,
    strings: Vec<Range>,
    items: Vec<ExprId>,
    lists: Vec<Range>,
    names: Vec<AttrName>,
    paths: Vec<Range>,
    pub(crate) selects: Vec<Select>,
    pub(crate) attrs: Vec<Attrs>,
    pub(crate) lambdas: Vec<Lambda>,
    pub(crate) ifs: Vec<[ExprId; 3]>,
}

/// Start and length in a pool.
type Range = (u32, u32);

fn slice<T>(pool: &[T], (start, len): Range) -> &[T] {
    &pool[to_usize(start)..to_usize(start) + to_usize(len)]
}

macro_rules! pool {
    ($method:ident, $field:ident, $item:ty) => {
        pub(crate) fn $method(&mut self, item: $item) -> u32 {
            self.$field.push(item);
            to_u32(self.$field.len() - 1)
        }
    };
}

impl Ast {
    /// Adds a node.
    pub(crate) fn add(&mut self, expr: Expr, at: At) -> ExprId {
        self.nodes.push((expr, at));
        ExprId(to_u32(self.nodes.len() - 1))
    }

    /// A node.
    #[inline]
    pub(crate) fn get(&self, id: ExprId) -> Expr {
        self.nodes[to_usize(id.0)].0
    }

    /// Where a node's own position is (Nix's `Expr::getPos`), 0 when it keeps none.
    pub(crate) fn at(&self, id: ExprId) -> At {
        self.nodes[to_usize(id.0)].1
    }

    pool!(add_attrs, attrs, Attrs);
    pool!(add_lambda, lambdas, Lambda);
    pool!(add_select, selects, Select);
    pool!(add_if, ifs, [ExprId; 3]);

    /// Adds an attribute path.
    pub(crate) fn add_path(&mut self, path: &[AttrName]) -> PathId {
        self.paths.push((to_u32(self.names.len()), to_u32(path.len())));
        self.names.extend_from_slice(path);
        PathId(to_u32(self.paths.len() - 1))
    }

    /// Adds a list of nodes.
    pub(crate) fn add_list(&mut self, items: &[ExprId]) -> u32 {
        self.lists.push((to_u32(self.items.len()), to_u32(items.len())));
        self.items.extend_from_slice(items);
        to_u32(self.lists.len() - 1)
    }

    /// Adds a text.
    pub(crate) fn add_string(&mut self, text: &[u8]) -> u32 {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        self.end_string(start)
    }

    /// Makes a text of what was appended to the pool since it had `start` bytes.
    pub(super) fn end_string(&mut self, start: usize) -> u32 {
        self.strings
            .push((to_u32(start), to_u32(self.bytes.len() - start)));
        to_u32(self.strings.len() - 1)
    }

    /// The parts of a list node.
    pub(crate) fn list(&self, list: u32) -> &[ExprId] {
        slice(&self.items, self.lists[to_usize(list)])
    }

    /// The names of an attribute path.
    pub(crate) fn path(&self, path: PathId) -> &[AttrName] {
        slice(&self.names, self.paths[to_usize(path.0)])
    }

    /// The text of a string node.
    pub(crate) fn string(&self, string: u32) -> &[u8] {
        slice(&self.bytes, self.strings[to_usize(string)])
    }

    /// Forgets everything but the memory.
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.bytes.clear();
        self.strings.clear();
        self.items.clear();
        self.lists.clear();
        self.names.clear();
        self.paths.clear();
        self.selects.clear();
        self.attrs.clear();
        self.lambdas.clear();
        self.ifs.clear();
    }

    /// Names the function `id` (and the functions it returns directly) after the attribute it is bound to.
    pub(crate) fn set_name(&mut self, mut id: ExprId, name: Symbol) {
        loop {
            let next = match self.get(id) {
                Expr::Lambda(l) => {
                    let lambda = &mut self.lambdas[to_usize(l)];
                    lambda.name = Some(name);
                    lambda.body
                }
                _ => return,
            };
            id = next;
        }
    }
}
