//! Parser: recursive descent for the statements of Nix's grammar; [`super::operators`] climbs its operators.
//!
//! Invariants
//! - recursion is bounded by [`DEPTH_MAX`]; deeper nesting is an error, as in Nix, whose parser stack is bounded too;
//! - the first error ends the parse, worded as Nix's grammar words it (`src/libexpr/parser.y`).

use super::ast::{Ast, AttrName, CallOp, DefKind, Expr, ExprId, Formal, Formals, Lambda, PathId, Select};
use super::lexer::Lexer;
use super::token::{Tok, Token};
use crate::num::to_usize;
use crate::settings::{LintLevel, ParseSettings};
use crate::symbol::{Symbol, SymbolTable, sym};

/// How deeply expressions may nest.
pub(crate) const DEPTH_MAX: u32 = 10_000;

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    /// Byte offset plus one; 0 when the error has no place.
    pub(crate) at: u32,
}

/// Something a lint has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) message: String,
    pub(crate) at: u32,
}

pub(super) type P<T> = Result<T, SyntaxError>;

/// A parsed text: its nodes, the root, and what the lints said.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) ast: Ast,
    pub(crate) root: ExprId,
    pub(crate) warnings: Vec<Warning>,
}

/// Parses one expression.
pub(crate) fn parse(text: &[u8], symbols: &mut SymbolTable, settings: &ParseSettings) -> P<Parsed> {
    parse_into(Ast::default(), text, symbols, settings)
}

/// As [`parse`], in the memory of a syntax tree no longer needed.
pub(crate) fn parse_into(
    ast: Ast,
    text: &[u8],
    symbols: &mut SymbolTable,
    settings: &ParseSettings,
) -> P<Parsed> {
    parse_with(ast, text, symbols, settings, |parser| {
        let root = parser.expr()?;
        if parser.tok.tok != Tok::End {
            return Err(parser.unexpected(&[Tok::End]));
        }
        Ok(root)
    })
}

/// Parses bindings as they stand in a set, without its braces: at least one, the last without a semicolon if it likes. The root is that set.
pub(crate) fn parse_bindings(text: &[u8], symbols: &mut SymbolTable, settings: &ParseSettings) -> P<Parsed> {
    parse_with(Ast::default(), text, symbols, settings, |parser| {
        if parser.tok.tok == Tok::End {
            return Err(parser.unexpected(&[]));
        }
        parser.open_end = true;
        let attrs = parser.bindings(Tok::End)?;
        Ok(parser.ast.add(Expr::Attrs(attrs), 0))
    })
}

fn parse_with(
    mut ast: Ast,
    text: &[u8],
    symbols: &mut SymbolTable,
    settings: &ParseSettings,
    read: impl FnOnce(&mut Parser<'_, '_>) -> P<ExprId>,
) -> P<Parsed> {
    let lexer = Lexer::new(text);
    let tok = lexer.next(0);
    ast.clear();
    let mut parser = Parser {
        lexer,
        tok,
        ast,
        symbols,
        settings,
        warnings: Vec::new(),
        depth: 0,
        exprs: Vec::new(),
        names: Vec::new(),
        cursed: None,
        path: Vec::new(),
        open_end: false,
    };
    let root = read(&mut parser)?;
    Ok(Parsed {
        ast: parser.ast,
        root,
        warnings: parser.warnings,
    })
}

pub(super) struct Parser<'t, 's> {
    pub(super) lexer: Lexer<'t>,
    pub(super) tok: Token,
    pub(super) ast: Ast,
    pub(super) symbols: &'s mut SymbolTable,
    pub(super) settings: &'s ParseSettings,
    warnings: Vec<Warning>,
    pub(super) depth: u32,
    /// Lists and paths under construction, one above the other.
    pub(super) exprs: Vec<ExprId>,
    names: Vec<AttrName>,
    /// An application of the variable `or` that a future Nix will read otherwise, if it stays unparenthesised: the
    /// node and the offset of its end.
    cursed: Option<(ExprId, u32)>,
    /// The attribute path of a binding.
    pub(super) path: Vec<AttrName>,
    /// Whether the end of the text ends a binding, as a semicolon does.
    pub(super) open_end: bool,
}

const ATTR_START: [Tok; 4] = [Tok::Id, Tok::Or, Tok::DollarCurly, Tok::Quote];

impl Parser<'_, '_> {
    pub(super) fn advance(&mut self) {
        self.tok = self.lexer.next(self.tok.end);
    }

    pub(super) const fn at(&self) -> u32 {
        self.tok.start + 1
    }

    pub(super) fn error<T>(&self, message: impl Into<String>, at: u32) -> P<T> {
        Err(SyntaxError {
            message: message.into(),
            at,
        })
    }

    /// Nix's "syntax error, unexpected …": the expected tokens are named when there are at most four.
    pub(super) fn unexpected(&self, expected: &[Tok]) -> SyntaxError {
        let mut message = format!("syntax error, unexpected {}", self.tok.tok.describe());
        for (i, tok) in expected.iter().enumerate() {
            message.push_str(if i == 0 { ", expecting " } else { " or " });
            message.push_str(&tok.describe());
        }
        SyntaxError {
            message,
            at: self.at(),
        }
    }

    pub(super) fn expect(&mut self, tok: Tok, expected: &[Tok]) -> P<()> {
        if self.tok.tok != tok {
            return Err(self.unexpected(expected));
        }
        self.advance();
        Ok(())
    }

    pub(super) fn intern_token(&mut self) -> Symbol {
        let name = self.lexer.slice(self.tok);
        self.symbols.intern(name)
    }

    pub(super) fn enter(&mut self) -> P<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error("memory exhausted", self.at());
        }
        Ok(())
    }

    /// `expr`: functions, `let`, `with`, `assert`, `if`, pipes and operators.
    pub(super) fn expr(&mut self) -> P<ExprId> {
        self.enter()?;
        let result = self.expr_function();
        self.depth -= 1;
        result
    }

    fn expr_function(&mut self) -> P<ExprId> {
        let at = self.at();
        match self.tok.tok {
            Tok::Id => {
                let after = self.lexer.skip_space(to_usize(self.tok.end));
                match self.lexer.at(after) {
                    b':' => self.simple_lambda(at),
                    b'@' => self.named_formals(at),
                    _ => self.pipes(),
                }
            }
            Tok::Byte(b'{') if self.lexer.starts_formals(to_usize(self.tok.start)) => self.formals_lambda(at),
            Tok::Assert => {
                self.advance();
                let condition = self.expr()?;
                self.expect(Tok::Byte(b';'), &[Tok::Byte(b';')])?;
                let body = self.expr()?;
                Ok(self.ast.add(Expr::Assert(condition, body), at))
            }
            Tok::With => {
                self.advance();
                let attrs = self.expr()?;
                self.expect(Tok::Byte(b';'), &[Tok::Byte(b';')])?;
                let body = self.expr()?;
                Ok(self.ast.add(Expr::With(attrs, body), at))
            }
            Tok::Let if !self.let_brace() => self.let_in(at),
            Tok::If => self.if_then_else(at),
            _ => self.pipes(),
        }
    }

    fn let_brace(&self) -> bool {
        self.lexer.at(self.lexer.skip_space(to_usize(self.tok.end))) == b'{'
    }

    fn let_in(&mut self, at: u32) -> P<ExprId> {
        self.advance();
        let attrs = self.bindings(Tok::In)?;
        self.expect(Tok::In, &[Tok::Inherit, Tok::In])?;
        let body = self.expr()?;
        if !self.ast.attrs[to_usize(attrs)].dynamic.is_empty() {
            return self.error("dynamic attributes not allowed in let", at);
        }
        Ok(self.ast.add(Expr::Let(attrs, body), at))
    }

    fn if_then_else(&mut self, at: u32) -> P<ExprId> {
        self.advance();
        let condition = self.expr()?;
        self.expect(Tok::Then, &[Tok::Then])?;
        let then = self.expr()?;
        self.expect(Tok::Else, &[Tok::Else])?;
        let otherwise = self.expr()?;
        let parts = self.ast.add_if([condition, then, otherwise]);
        Ok(self.ast.add(Expr::If(parts), at))
    }

    fn simple_lambda(&mut self, at: u32) -> P<ExprId> {
        let arg = self.intern_token();
        self.advance();
        self.advance();
        self.lambda(at, Some(arg), None)
    }

    fn named_formals(&mut self, at: u32) -> P<ExprId> {
        let arg = self.intern_token();
        self.advance();
        self.advance();
        if self.tok.tok != Tok::Byte(b'{') {
            return Err(self.unexpected(&[Tok::Byte(b'{')]));
        }
        let formals = self.formals(at, Some(arg))?;
        self.expect(Tok::Byte(b':'), &[Tok::Byte(b':')])?;
        self.lambda(at, Some(arg), Some(formals))
    }

    fn formals_lambda(&mut self, at: u32) -> P<ExprId> {
        let mut formals = self.formal_list()?;
        let mut arg = None;
        if self.tok.tok == Tok::Byte(b'@') {
            self.advance();
            if self.tok.tok != Tok::Id {
                return Err(self.unexpected(&[Tok::Id]));
            }
            arg = Some(self.intern_token());
            self.advance();
        }
        self.expect(Tok::Byte(b':'), &[Tok::Byte(b':'), Tok::Byte(b'@')])?;
        self.check_formals(&mut formals, arg, at)?;
        self.lambda(at, arg, Some(formals))
    }

    fn lambda(&mut self, at: u32, arg: Option<Symbol>, formals: Option<Formals>) -> P<ExprId> {
        let body = self.expr()?;
        let lambda = self.ast.add_lambda(Lambda {
            arg,
            formals,
            body,
            name: None,
        });
        Ok(self.ast.add(Expr::Lambda(lambda), at))
    }

    fn formals(&mut self, at: u32, arg: Option<Symbol>) -> P<Formals> {
        let mut formals = self.formal_list()?;
        self.check_formals(&mut formals, arg, at)?;
        Ok(formals)
    }

    fn formal_list(&mut self) -> P<Formals> {
        let mut formals = Formals {
            list: Vec::new(),
            ellipsis: false,
        };
        self.advance();
        loop {
            match self.tok.tok {
                Tok::Byte(b'}') => break,
                Tok::Ellipsis => {
                    formals.ellipsis = true;
                    self.advance();
                    if self.tok.tok != Tok::Byte(b'}') {
                        return Err(self.unexpected(&[Tok::Byte(b'}')]));
                    }
                    break;
                }
                Tok::Id => formals.list.push(self.formal()?),
                _ => return Err(self.unexpected(&[Tok::Id, Tok::Ellipsis, Tok::Byte(b'}')])),
            }
            match self.tok.tok {
                Tok::Byte(b',') => self.advance(),
                Tok::Byte(b'}') => {}
                _ => return Err(self.unexpected(&[Tok::Byte(b'}'), Tok::Byte(b',')])),
            }
        }
        self.advance();
        Ok(formals)
    }

    fn formal(&mut self) -> P<Formal> {
        let at = self.at();
        let name = self.intern_token();
        self.advance();
        let mut default = None;
        if self.tok.tok == Tok::Byte(b'?') {
            self.advance();
            default = Some(self.expr()?);
        }
        Ok(Formal { name, default, at })
    }

    /// Orders the formals by symbol and refuses doubles; of several, Nix reports the least symbol's second place.
    fn check_formals(&self, formals: &mut Formals, arg: Option<Symbol>, at: u32) -> P<()> {
        formals.list.sort_by_key(|f| (f.name, f.at));
        let double = formals
            .list
            .windows(2)
            .find(|w| w[0].name == w[1].name)
            .map(|w| (w[1].name, w[1].at));
        let clash = arg
            .filter(|a| formals.list.iter().any(|f| f.name == *a))
            .map(|a| (a, at));
        if let Some((name, at)) = double.or(clash) {
            let name = self.symbols.text(name);
            return self.error(format!("duplicate formal function argument '{name}'"), at);
        }
        Ok(())
    }

    const fn starts_simple(&self) -> bool {
        matches!(
            self.tok.tok,
            Tok::Id
                | Tok::Int
                | Tok::Float
                | Tok::Quote
                | Tok::IndOpen
                | Tok::Path
                | Tok::HomePath
                | Tok::SearchPath
                | Tok::Uri
                | Tok::Byte(b'(' | b'{' | b'[')
                | Tok::Let
                | Tok::Rec
        )
    }

    pub(super) fn application(&mut self) -> P<ExprId> {
        let at = self.at();
        let f = self.select()?;
        self.cursed = None;
        if !self.starts_simple() {
            return Ok(f);
        }
        let mark = self.exprs.len();
        let (f, at) = self.reopen_call(f).unwrap_or((f, at));
        while self.starts_simple() {
            let arg = self.select()?;
            self.warn_if_cursed(arg);
            self.exprs.push(arg);
        }
        let list = self.take_list(mark);
        Ok(self.ast.add(Expr::Call(f, list), at))
    }

    /// A call that is called again takes the new arguments too, even out of parentheses, and operators that are calls
    /// in Nix do as well: puts its arguments aside and returns its function and place.
    pub(super) fn reopen_call(&mut self, call: ExprId) -> Option<(ExprId, u32)> {
        let at = self.ast.at(call);
        let function = match self.ast.get(call) {
            Expr::Call(function, list) => {
                self.exprs.extend_from_slice(self.ast.list(list));
                return Some((function, at));
            }
            Expr::Op(op, l, r) => {
                let (name, swap) = match op {
                    CallOp::Neg | CallOp::Sub => (sym::sub, false),
                    CallOp::Mul => (sym::mul, false),
                    CallOp::Div => (sym::div, false),
                    CallOp::Less => (sym::less_than, false),
                    CallOp::Greater => (sym::less_than, true),
                    CallOp::LessEq | CallOp::GreaterEq => return None,
                };
                self.exprs.extend_from_slice(&if swap { [r, l] } else { [l, r] });
                name
            }
            Expr::SearchPath(text) => {
                let path = self.ast.add(Expr::Var(sym::nix_path), 0);
                let text = self.ast.add(Expr::Str(text), 0);
                self.exprs.extend_from_slice(&[path, text]);
                sym::find_file
            }
            _ => return None,
        };
        Some((self.ast.add(Expr::Var(function), 0), at))
    }

    /// Makes a list of the nodes put aside since `mark`.
    pub(super) fn take_list(&mut self, mark: usize) -> u32 {
        let list = self.ast.add_list(&self.exprs[mark..]);
        self.exprs.truncate(mark);
        list
    }

    /// Warns when an operand is `f or`, whose meaning is to change (NixOS/nix pull request 11121).
    fn warn_if_cursed(&mut self, id: ExprId) {
        let Some((cursed, end)) = self.cursed.take() else {
            return;
        };
        if cursed != id {
            return;
        }
        let at = self.ast.at(id);
        let text = String::from_utf8_lossy(&self.lexer.text[to_usize(at) - 1..to_usize(end)]);
        let message = format!(
            "at \u{1}{at}\u{1}: This expression uses `or` as an identifier in a way that will change in a future Nix release.\nWrap this entire expression in parentheses to preserve its current meaning:\n    ({text})\nGive feedback at https://github.com/NixOS/nix/pull/11121"
        );
        self.warnings.push(Warning { message, at: 0 });
    }

    /// `expr_select`: a simple expression, with an attribute path, or applied to the variable `or`.
    pub(super) fn select(&mut self) -> P<ExprId> {
        let at = self.at();
        let base = self.simple()?;
        if self.tok.tok == Tok::Or {
            let (or_at, end) = (self.at(), self.tok.end);
            self.advance();
            let or = self.ast.add(Expr::Var(sym::or_), or_at);
            let list = self.ast.add_list(&[or]);
            let call = self.ast.add(Expr::Call(base, list), at);
            self.cursed = Some((call, end));
            return Ok(call);
        }
        if self.tok.tok != Tok::Byte(b'.') {
            return Ok(base);
        }
        self.advance();
        let path = self.attr_path()?;
        let mut default = None;
        if self.tok.tok == Tok::Or {
            self.advance();
            self.enter()?;
            let value = self.select()?;
            self.warn_if_cursed(value);
            default = Some(value);
            self.depth -= 1;
        }
        let select = self.ast.add_select(Select { base, path, default });
        Ok(self.ast.add(Expr::Select(select), at))
    }

    /// `attrpath`.
    pub(super) fn attr_path(&mut self) -> P<PathId> {
        let mark = self.names.len();
        let first = self.attr_name()?;
        self.names.push(first);
        while self.tok.tok == Tok::Byte(b'.') {
            self.advance();
            let next = self.attr_name()?;
            self.names.push(next);
        }
        let path = self.ast.add_path(&self.names[mark..]);
        self.names.truncate(mark);
        Ok(path)
    }

    /// One name of an attribute path; a string without interpolation is a plain name.
    pub(super) fn attr_name(&mut self) -> P<AttrName> {
        let name = match self.tok.tok {
            Tok::Id | Tok::Or => {
                let name = self.intern_token();
                self.advance();
                return Ok(AttrName::Static(name));
            }
            Tok::Quote => self.string()?,
            Tok::DollarCurly => {
                self.advance();
                let name = self.expr()?;
                self.expect(Tok::Byte(b'}'), &[Tok::Byte(b'}')])?;
                name
            }
            _ => return Err(self.unexpected(&ATTR_START)),
        };
        if let Expr::Str(s) = self.ast.get(name) {
            let symbol = self.symbols.intern(self.ast.string(s));
            return Ok(AttrName::Static(symbol));
        }
        Ok(AttrName::Dynamic(name))
    }

    fn simple(&mut self) -> P<ExprId> {
        let at = self.at();
        let expr = match self.tok.tok {
            Tok::Id => {
                let name = self.intern_token();
                self.advance();
                let expr = if name == sym::cur_pos {
                    Expr::CurPos
                } else {
                    Expr::Var(name)
                };
                return Ok(self.ast.add(expr, at));
            }
            Tok::Int => self.integer()?,
            Tok::Float => self.float()?,
            Tok::Quote => return self.string(),
            Tok::IndOpen => return self.indented_string(),
            Tok::Path | Tok::HomePath => return self.path(),
            Tok::SearchPath => {
                let text = self.lexer.slice(self.tok);
                let string = self.ast.add_string(&text[1..text.len() - 1]);
                self.advance();
                return Ok(self.ast.add(Expr::SearchPath(string), at));
            }
            Tok::Uri => self.uri(at)?,
            Tok::Byte(b'(') => {
                self.advance();
                let inner = self.expr()?;
                self.expect(Tok::Byte(b')'), &[Tok::Byte(b')')])?;
                return Ok(inner);
            }
            Tok::Byte(b'{') => return self.set(at, false),
            Tok::Rec => {
                self.advance();
                if self.tok.tok != Tok::Byte(b'{') {
                    return Err(self.unexpected(&[Tok::Byte(b'{')]));
                }
                return self.set(at, true);
            }
            Tok::Let if self.let_brace() => {
                self.advance();
                let set = self.set(at, true)?;
                let path = self.ast.add_path(&[AttrName::Static(sym::body)]);
                let select = self.ast.add_select(Select {
                    base: set,
                    path,
                    default: None,
                });
                return Ok(self.ast.add(Expr::Select(select), at));
            }
            Tok::Byte(b'[') => return self.list_literal(at),
            _ => return Err(self.unexpected(&[])),
        };
        self.advance();
        Ok(self.ast.add(expr, 0))
    }

    fn set(&mut self, at: u32, recursive: bool) -> P<ExprId> {
        self.enter()?;
        self.advance();
        let attrs = self.bindings(Tok::Byte(b'}'))?;
        self.expect(Tok::Byte(b'}'), &[Tok::Inherit])?;
        self.depth -= 1;
        self.ast.attrs[to_usize(attrs)].recursive = recursive;
        Ok(self.ast.add(Expr::Attrs(attrs), at))
    }

    fn list_literal(&mut self, at: u32) -> P<ExprId> {
        self.enter()?;
        self.advance();
        let mark = self.exprs.len();
        while self.tok.tok != Tok::Byte(b']') {
            let item = self.select()?;
            self.warn_if_cursed(item);
            self.exprs.push(item);
        }
        self.advance();
        self.depth -= 1;
        let list = self.take_list(mark);
        Ok(self.ast.add(Expr::List(list), at))
    }

    fn integer(&mut self) -> P<Expr> {
        let text = String::from_utf8_lossy(self.lexer.slice(self.tok));
        let Ok(value) = text.parse() else {
            return self.error(format!("invalid integer '{text}'"), self.at());
        };
        Ok(Expr::Int(value))
    }

    fn float(&mut self) -> P<Expr> {
        let text = String::from_utf8_lossy(self.lexer.slice(self.tok));
        let value: f64 = text.parse().unwrap_or(f64::INFINITY);
        let vanishes = value == 0.0
            && text
                .split(['e', 'E'])
                .next()
                .is_some_and(|m| m.contains(|c| ('1'..='9').contains(&c)));
        if !value.is_finite() || vanishes || value.is_subnormal() {
            return self.error(format!("invalid float '{text}'"), self.at());
        }
        Ok(Expr::Float(value))
    }

    fn uri(&mut self, at: u32) -> P<Expr> {
        let text = self.lexer.slice(self.tok);
        self.lint(
            self.settings.lint_url_literals,
            "lint-url-literals",
            at,
            |fatal| {
                let how = if fatal { "disallowed" } else { "discouraged" };
                let shown = String::from_utf8_lossy(text);
                format!("URL literals are {how}. Consider using a string literal \"{shown}\" instead")
            },
        )?;
        Ok(Expr::Str(self.ast.add_string(text)))
    }

    /// Reports what a lint found, as its level says.
    fn lint(&mut self, level: LintLevel, name: &str, at: u32, text: impl Fn(bool) -> String) -> P<()> {
        match level {
            LintLevel::Ignore => Ok(()),
            LintLevel::Warn => {
                self.warnings.push(Warning {
                    message: format!("{} ({name})", text(false)),
                    at,
                });
                Ok(())
            }
            LintLevel::Fatal => self.error(format!("{} ({name})", text(true)), at),
        }
    }

    /// The lints about path literals.
    pub(super) fn lint_path(&mut self, literal: &[u8], at: u32) -> P<()> {
        let shown = String::from_utf8_lossy(literal).into_owned();
        match literal.first() {
            Some(b'~') => {
                self.lint(self.settings.lint_absolute_path_literals, "lint-absolute-path-literals", at, |_| {
                    format!("home path literals are not portable. Consider replacing path literal '{shown}' by a string, relative path, or parameter")
                })
            }
            Some(b'/') => {
                self.lint(self.settings.lint_absolute_path_literals, "lint-absolute-path-literals", at, |_| {
                    format!("absolute path literals are not portable. Consider replacing path literal '{shown}' by a string, relative path, or parameter")
                })
            }
            Some(b'.') | None => Ok(()),
            Some(_) => self.lint(self.settings.lint_short_path_literals, "lint-short-path-literals", at, |_| {
                format!("relative path literal '{shown}' should be prefixed with '.' for clarity: './{shown}'")
            }),
        }
    }

    /// The kind of a plain definition.
    pub(super) const fn plain(value: ExprId) -> DefKind {
        DefKind::Plain(value)
    }
}
