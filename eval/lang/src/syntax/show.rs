//! Prints surface syntax in the canonical form of `nix-instantiate --parse`, which assertion messages also use.

use super::ast::{Ast, AttrName, Attrs, BinOp, CallOp, DefKind, Expr, ExprId, Lambda};
use crate::num::to_usize;
use crate::pure::float_format;
use crate::pure::string_ops::{print_attribute_name, print_string};
use crate::symbol::{Symbol, SymbolTable};

/// How path literals are shown: Nix prints them resolved.
pub(crate) trait ShowPath {
    /// A `./…` or `/…` literal.
    fn path(&self, literal: &[u8]) -> Vec<u8>;
    /// A `~/…` literal, without its tilde.
    fn home_path(&self, rest: &[u8]) -> Vec<u8>;
}

/// Shows path literals as written.
pub(crate) struct Literal;

impl ShowPath for Literal {
    fn path(&self, literal: &[u8]) -> Vec<u8> {
        literal.to_vec()
    }

    fn home_path(&self, rest: &[u8]) -> Vec<u8> {
        [b"~", rest].concat()
    }
}

/// Nesting below which an expression is shown as `...`: the left operand of a long chain may be any depth.
const SHOWN_DEPTH_MAX: u32 = 100_000;

/// An expression as Nix prints it.
pub(crate) fn show(ast: &Ast, symbols: &SymbolTable, paths: &dyn ShowPath, root: ExprId) -> String {
    let mut out = Vec::new();
    Shower {
        ast,
        symbols,
        paths,
        out: &mut out,
        depth: 0,
    }
    .expr(root);
    String::from_utf8_lossy(&out).into_owned()
}

/// A name as Nix writes it: plain where possible, else quoted.
pub(crate) fn identifier(name: &[u8]) -> String {
    let mut out = Vec::new();
    print_attribute_name(&mut out, name);
    String::from_utf8_lossy(&out).into_owned()
}

struct Shower<'a> {
    ast: &'a Ast,
    symbols: &'a SymbolTable,
    paths: &'a dyn ShowPath,
    out: &'a mut Vec<u8>,
    depth: u32,
}

impl Shower<'_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn symbol(&mut self, symbol: Symbol) {
        print_attribute_name(self.out, self.symbols.name(symbol));
    }

    fn expr(&mut self, id: ExprId) {
        self.depth += 1;
        if self.depth > SHOWN_DEPTH_MAX {
            self.text("...");
        } else {
            self.node(id);
        }
        self.depth -= 1;
    }

    fn node(&mut self, id: ExprId) {
        let ast = self.ast;
        match ast.get(id) {
            Expr::Int(n) => self.text(&n.to_string()),
            Expr::Float(x) => self.text(&float_format::print_value(x)),
            Expr::Str(s) => print_string(self.out, ast.string(s)),
            Expr::Path(s) => {
                let path = self.paths.path(ast.string(s));
                self.out.extend_from_slice(&path);
            }
            Expr::HomePath(s) => {
                let path = self.paths.home_path(ast.string(s));
                self.out.extend_from_slice(&path);
            }
            Expr::SearchPath(s) => {
                self.text("(__findFile __nixPath ");
                print_string(self.out, ast.string(s));
                self.text(")");
            }
            Expr::Var(name) => self.symbol(name),
            Expr::CurPos => self.text("__curPos"),
            Expr::Select(s) => self.select(s),
            Expr::HasAttr(base, path) => {
                self.text("((");
                self.expr(base);
                self.text(") ? ");
                self.path(ast.path(path));
                self.text(")");
            }
            Expr::Attrs(a) => {
                let attrs = &ast.attrs[to_usize(a)];
                self.text(if attrs.recursive { "rec { " } else { "{ " });
                self.bindings(attrs);
                self.text("}");
            }
            Expr::Let(a, body) => {
                self.text("(let ");
                self.bindings(&ast.attrs[to_usize(a)]);
                self.text("in ");
                self.expr(body);
                self.text(")");
            }
            Expr::List(l) => self.list(ast.list(l)),
            Expr::Lambda(l) => self.lambda(&ast.lambdas[to_usize(l)]),
            Expr::Call(f, args) => {
                self.text("(");
                self.expr(f);
                for arg in ast.list(args) {
                    self.text(" ");
                    self.expr(*arg);
                }
                self.text(")");
            }
            Expr::With(attrs, body) => self.wrapped("(with ", &[(attrs, "; "), (body, ")")]),
            Expr::Assert(condition, body) => self.wrapped("assert ", &[(condition, "; "), (body, "")]),
            Expr::If(parts) => {
                let [c, t, e] = ast.ifs[to_usize(parts)];
                self.wrapped("(if ", &[(c, " then "), (t, " else "), (e, ")")]);
            }
            Expr::Not(e) => self.wrapped("(! ", &[(e, ")")]),
            Expr::Bin(op, l, r) => self.binary(op, l, r),
            Expr::Op(op, l, r) => self.call_op(op, l, r),
            Expr::Plus(l, r) => self.sum(&[l, r]),
            Expr::Interp(_, parts) => self.sum(ast.list(parts)),
        }
    }

    fn wrapped(&mut self, open: &str, parts: &[(ExprId, &str)]) {
        self.text(open);
        for (part, after) in parts {
            self.expr(*part);
            self.text(after);
        }
    }

    fn sum(&mut self, parts: &[ExprId]) {
        self.text("(");
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                self.text(" + ");
            }
            self.expr(*part);
        }
        self.text(")");
    }

    fn list(&mut self, items: &[ExprId]) {
        self.text("[ ");
        for item in items {
            self.wrapped("(", &[(*item, ") ")]);
        }
        self.text("]");
    }

    fn select(&mut self, s: u32) {
        let select = self.ast.selects[to_usize(s)];
        self.wrapped("(", &[(select.base, ").")]);
        self.path(self.ast.path(select.path));
        if let Some(default) = select.default {
            self.wrapped(" or (", &[(default, ")")]);
        }
    }

    fn path(&mut self, names: &[AttrName]) {
        for (i, name) in names.iter().enumerate() {
            if i > 0 {
                self.text(".");
            }
            match *name {
                AttrName::Static(name) => self.symbol(name),
                AttrName::Dynamic(name) => self.wrapped("\"${", &[(name, "}\"")]),
            }
        }
    }

    fn binary(&mut self, op: BinOp, l: ExprId, r: ExprId) {
        let text = match op {
            BinOp::Eq => " == ",
            BinOp::Neq => " != ",
            BinOp::And => " && ",
            BinOp::Or => " || ",
            BinOp::Impl => " -> ",
            BinOp::Update => " // ",
            BinOp::Concat => " ++ ",
        };
        self.wrapped("(", &[(l, text), (r, ")")]);
    }

    fn call_op(&mut self, op: CallOp, l: ExprId, r: ExprId) {
        match op {
            CallOp::Neg | CallOp::Sub => self.wrapped("(__sub ", &[(l, " "), (r, ")")]),
            CallOp::Mul => self.wrapped("(__mul ", &[(l, " "), (r, ")")]),
            CallOp::Div => self.wrapped("(__div ", &[(l, " "), (r, ")")]),
            CallOp::Less => self.wrapped("(__lessThan ", &[(l, " "), (r, ")")]),
            CallOp::Greater => self.wrapped("(__lessThan ", &[(r, " "), (l, ")")]),
            CallOp::LessEq => self.wrapped("(! (__lessThan ", &[(r, " "), (l, "))")]),
            CallOp::GreaterEq => self.wrapped("(! (__lessThan ", &[(l, " "), (r, "))")]),
        }
    }

    fn lambda(&mut self, lambda: &Lambda) {
        self.text("(");
        if let Some(formals) = &lambda.formals {
            self.text("{ ");
            let mut sorted: Vec<_> = formals.list.iter().collect();
            sorted.sort_by_key(|f| self.symbols.name(f.name));
            for (i, formal) in sorted.iter().enumerate() {
                if i > 0 {
                    self.text(", ");
                }
                self.symbol(formal.name);
                if let Some(default) = formal.default {
                    self.wrapped(" ? ", &[(default, "")]);
                }
            }
            if formals.ellipsis {
                self.text(if sorted.is_empty() { "..." } else { ", ..." });
            }
            self.text(" }");
            if lambda.arg.is_some() {
                self.text(" @ ");
            }
        }
        if let Some(arg) = lambda.arg {
            self.symbol(arg);
        }
        self.wrapped(": ", &[(lambda.body, ")")]);
    }

    fn bindings(&mut self, attrs: &Attrs) {
        let mut sorted: Vec<_> = attrs.defs.iter().collect();
        sorted.sort_by_key(|d| self.symbols.name(d.name));
        let inherited: Vec<_> = sorted.iter().filter(|d| d.kind == DefKind::Inherited).collect();
        if !inherited.is_empty() {
            self.text("inherit");
            for def in inherited {
                self.text(" ");
                self.symbol(def.name);
            }
            self.text("; ");
        }
        for (i, from) in (0u32..).zip(&attrs.from) {
            let mut names = sorted
                .iter()
                .filter(|d| d.kind == DefKind::InheritedFrom(i))
                .peekable();
            if names.peek().is_none() {
                continue;
            }
            self.wrapped("inherit (", &[(*from, ")")]);
            for def in names {
                self.text(" ");
                self.symbol(def.name);
            }
            self.text("; ");
        }
        for def in &sorted {
            if let DefKind::Plain(value) = def.kind {
                self.symbol(def.name);
                self.wrapped(" = ", &[(value, "; ")]);
            }
        }
        for def in &attrs.dynamic {
            self.wrapped("\"${", &[(def.name, "}\" = "), (def.value, "; ")]);
        }
    }
}
