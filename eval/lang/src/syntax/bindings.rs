//! Bindings of attribute sets and `let`: attribute paths, `inherit`, and the merging of nested sets.
//!
//! The rules are those of Nix's `ParserState::addAttr`: a path may go through sets defined before, two set literals bound
//! to one name are merged, everything else defined twice is an error at the second place.

use super::ast::{AttrDef, AttrName, Attrs, DefKind, DynamicDef, Expr, ExprId};
use super::parser::{P, Parser};
use super::token::Tok;
use crate::num::{to_u32, to_usize};
use crate::symbol::Symbol;

impl Parser<'_, '_> {
    /// Reads bindings up to (not including) `end`; returns their index in the syntax tree.
    pub(super) fn bindings(&mut self, end: Tok) -> P<u32> {
        let attrs = self.ast.add_attrs(Attrs::default());
        loop {
            match self.tok.tok {
                tok if tok == end => return Ok(attrs),
                Tok::Inherit => self.inherit(attrs)?,
                Tok::Id | Tok::Or | Tok::Quote | Tok::DollarCurly => self.binding(attrs)?,
                _ if end == Tok::In => return Err(self.unexpected(&[Tok::In, Tok::Inherit])),
                _ => return Err(self.unexpected(&[Tok::Inherit])),
            }
        }
    }

    fn binding(&mut self, attrs: u32) -> P<()> {
        let at = self.at();
        let path = self.attr_path()?;
        self.expect(Tok::Byte(b'='), &[Tok::Byte(b'.'), Tok::Byte(b'=')])?;
        let value = self.expr()?;
        if !self.at_open_end() {
            self.expect(Tok::Byte(b';'), &[Tok::Byte(b';')])?;
        }
        let mut names = std::mem::take(&mut self.path);
        names.clear();
        names.extend_from_slice(self.ast.path(path));
        let result = self.add_path_binding(attrs, &mut names, value, at);
        self.path = names;
        result
    }

    fn at_open_end(&self) -> bool {
        self.open_end && self.tok.tok == Tok::End
    }

    fn add_path_binding(
        &mut self,
        mut attrs: u32,
        names: &mut Vec<AttrName>,
        value: ExprId,
        at: u32,
    ) -> P<()> {
        let Some(last) = names.last().copied() else {
            return Ok(());
        };
        for depth in 0..names.len() - 1 {
            attrs = match names[depth] {
                AttrName::Static(name) => self.enter_nested(attrs, name, &names[..=depth], at)?,
                AttrName::Dynamic(name) => {
                    let (nested, node) = self.new_set();
                    self.ast.attrs[to_usize(attrs)].dynamic.push(DynamicDef {
                        name,
                        value: node,
                        at,
                    });
                    nested
                }
            };
        }
        match last {
            AttrName::Static(name) => self.add_def(
                attrs,
                names,
                AttrDef {
                    name,
                    kind: Self::plain(value),
                    at,
                },
            ),
            AttrName::Dynamic(name) => {
                self.ast.attrs[to_usize(attrs)]
                    .dynamic
                    .push(DynamicDef { name, value, at });
                Ok(())
            }
        }
    }

    fn new_set(&mut self) -> (u32, ExprId) {
        let nested = self.ast.add_attrs(Attrs::default());
        (nested, self.ast.add(Expr::Attrs(nested), 0))
    }

    fn enter_nested(&mut self, attrs: u32, name: Symbol, path: &[AttrName], at: u32) -> P<u32> {
        if let Some(def) = self.ast.attrs[to_usize(attrs)].find(name).copied() {
            return match self.nested_set(def) {
                Some(nested) => Ok(nested),
                None => self.duplicate(path, at, def.at),
            };
        }
        let (nested, node) = self.new_set();
        self.ast.attrs[to_usize(attrs)].push(AttrDef {
            name,
            kind: DefKind::Plain(node),
            at,
        });
        Ok(nested)
    }

    /// The bindings of a definition that is a set literal.
    fn nested_set(&self, def: AttrDef) -> Option<u32> {
        let DefKind::Plain(value) = def.kind else {
            return None;
        };
        match self.ast.get(value) {
            Expr::Attrs(nested) => Some(nested),
            _ => None,
        }
    }

    /// Adds a definition to a set, merging two set literals; `path` ends with the name and is for the message.
    fn add_def(&mut self, attrs: u32, path: &mut Vec<AttrName>, def: AttrDef) -> P<()> {
        let Some(old) = self.ast.attrs[to_usize(attrs)].find(def.name).copied() else {
            if let DefKind::Plain(value) = def.kind {
                self.ast.set_name(value, def.name);
            }
            self.ast.attrs[to_usize(attrs)].push(def);
            return Ok(());
        };
        let (Some(into), Some(from)) = (self.nested_set(old), self.nested_set(def)) else {
            return self.duplicate(path, def.at, old.at);
        };
        self.merge(into, from, path)
    }

    fn merge(&mut self, into: u32, from: u32, path: &mut Vec<AttrName>) -> P<()> {
        let mut source = std::mem::take(&mut self.ast.attrs[to_usize(from)]);
        source.defs.sort_by_key(|d| d.name);
        let shift = to_u32(self.ast.attrs[to_usize(into)].from.len());
        for mut def in source.defs {
            if let DefKind::InheritedFrom(index) = &mut def.kind {
                *index += shift;
            }
            path.push(AttrName::Static(def.name));
            self.add_def(into, path, def)?;
            path.pop();
        }
        let target = &mut self.ast.attrs[to_usize(into)];
        target.dynamic.append(&mut source.dynamic);
        target.from.append(&mut source.from);
        Ok(())
    }

    fn duplicate<T>(&self, path: &[AttrName], at: u32, before: u32) -> P<T> {
        let mut shown = String::new();
        for (i, name) in path.iter().enumerate() {
            if i > 0 {
                shown.push('.');
            }
            match name {
                AttrName::Static(name) => shown.push_str(&super::show::identifier(self.symbols.name(*name))),
                AttrName::Dynamic(name) => {
                    let inner = super::show::show(&self.ast, self.symbols, &super::show::Literal, *name);
                    shown.push_str(&format!("\"${{{inner}}}\""));
                }
            }
        }
        self.duplicate_named(&shown, at, before)
    }

    /// The message holds [`super::parser::PLACE`] where the first place is to be written, once the origin is known.
    fn duplicate_named<T>(&self, shown: &str, at: u32, before: u32) -> P<T> {
        let text = format!("attribute '{shown}' already defined at \u{1}{before}\u{1}");
        self.error(text, at)
    }

    fn inherit(&mut self, attrs: u32) -> P<()> {
        self.advance();
        let mut from = None;
        if self.tok.tok == Tok::Byte(b'(') {
            self.advance();
            let source = self.expr()?;
            self.expect(Tok::Byte(b')'), &[Tok::Byte(b')')])?;
            let list = &mut self.ast.attrs[to_usize(attrs)].from;
            list.push(source);
            from = Some(to_u32(list.len() - 1));
        }
        while self.tok.tok != Tok::Byte(b';') && !self.at_open_end() {
            let at = self.at();
            if !matches!(self.tok.tok, Tok::Id | Tok::Or | Tok::Quote | Tok::DollarCurly) {
                return Err(self.unexpected(&[]));
            }
            let AttrName::Static(name) = self.attr_name()? else {
                return self.error("dynamic attributes not allowed in inherit", at);
            };
            if let Some(old) = self.ast.attrs[to_usize(attrs)].find(name).copied() {
                let shown = super::show::identifier(self.symbols.name(name));
                return self.duplicate_named(&shown, at, old.at);
            }
            let kind = from.map_or(DefKind::Inherited, DefKind::InheritedFrom);
            self.ast.attrs[to_usize(attrs)].push(AttrDef { name, kind, at });
        }
        self.advance();
        Ok(())
    }
}
