//! Compiles bindings: `let`, `rec` sets and plain sets.

use super::compile::{C, Compiler, constants};
use super::scope::{Place, Target};
use super::{AttrsOp, Binds, Delay, DynamicAttr, LetOp, Op, SelectOp};
use crate::num::to_usize;
use crate::pos::Pos;
use crate::symbol::{Symbol, sym};
use crate::syntax::ast::{AttrDef, Attrs, DefKind, Expr, ExprId};
use std::sync::atomic::AtomicU64;

impl Compiler<'_, '_> {
    /// `let bindings in body`.
    pub(super) fn let_in(&mut self, attrs: u32, body: ExprId) -> C<Op> {
        let attrs = &self.unit.ast.attrs[to_usize(attrs)];
        let (mark, first_slot) = (self.scopes.mark(), self.scopes.next_slot());
        let binds = self.group(attrs, &[])?;
        let body = self.expr(body)?;
        self.scopes.pop_to(mark);
        self.scopes.release(first_slot);
        if binds.list.is_empty() {
            return Ok(body);
        }
        Ok(Op::Let(self.keep(LetOp { binds, body })))
    }

    /// Opens the names of a recursive group and compiles what is bound to those that need a slot.
    ///
    /// `inherit x` and constants need none: the name then means what `x` means outside, or the value itself.
    fn group(&mut self, attrs: &Attrs, keep_slots: &[Symbol]) -> C<Binds> {
        let outer: Vec<Option<Target>> = attrs
            .defs
            .iter()
            .map(|d| {
                if d.kind == DefKind::Inherited {
                    self.resolve(d.name, d.at)
                } else {
                    Ok(None)
                }
            })
            .collect::<C<_>>()?;
        let sources: Vec<Place> = attrs.from.iter().map(|_| self.scopes.slot()).collect();
        let mut places: Vec<Option<Place>> = Vec::with_capacity(attrs.defs.len());
        for (def, outer) in attrs.defs.iter().zip(&outer) {
            let place = if outer.is_some() {
                None
            } else {
                Some(self.scopes.slot())
            };
            places.push(place);
            match (outer, place) {
                (Some(target), _) => self.scopes.bind(def.name, *target),
                (None, Some(place)) => self.scopes.bind(def.name, Target::Slot(place)),
                (None, None) => {}
            }
        }
        for (def, place) in attrs.defs.iter().zip(&mut places) {
            if place.is_some()
                && !keep_slots.contains(&def.name)
                && let Some(value) = self.constant_def(attrs, *def)
            {
                self.scopes.rebind(def.name, Target::Const(value));
                *place = None;
            }
        }
        let mut list = Vec::new();
        for (source, place) in attrs.from.iter().zip(&sources) {
            if self.constant(*source).is_none() {
                list.push((place.slot, self.delay_in_group(*source, place.slot, attrs)?));
            }
        }
        for (def, place) in attrs.defs.iter().zip(&places) {
            let Some(place) = place else { continue };
            let delay = match def.kind {
                DefKind::Plain(value) => self.delay_in_group(value, place.slot, attrs)?,
                DefKind::Inherited => {
                    let pos = self.pos(def.at);
                    self.thunk_with(|c| Ok(c.with_var(def.name, pos)))?
                }
                DefKind::InheritedFrom(i) => self.inherited(attrs, &sources, i, *def)?,
            };
            list.push((place.slot, delay));
        }
        Ok(Binds {
            list: self.unit.heap.keep_slice(&list),
        })
    }

    fn constant_def(&self, attrs: &Attrs, def: AttrDef) -> Option<crate::heap::value::Value> {
        match def.kind {
            DefKind::Plain(value) => self.constant(value),
            DefKind::Inherited => None,
            DefKind::InheritedFrom(i) => {
                let source = self.constant(attrs.from[to_usize(i)])?;
                self.unit.globals.builtin(source, def.name)
            }
        }
    }

    /// As `delay`, but an alias of a name of the same group is a thunk: that name's slot may not be set yet.
    fn delay_in_group(&mut self, id: ExprId, _slot: u32, attrs: &Attrs) -> C<Delay> {
        if let Expr::Var(name) = self.unit.ast.get(id)
            && attrs.find(name).is_some()
            && self.constant(id).is_none()
        {
            return self.thunk_with(|c| c.expr(id));
        }
        self.delay(id)
    }

    fn inherited(&mut self, attrs: &Attrs, sources: &[Place], i: u32, def: AttrDef) -> C<Delay> {
        let pos = self.pos(def.at);
        let source = attrs.from[to_usize(i)];
        if let Some(value) = self.constant_def(attrs, def) {
            return Ok(Delay::Const(value));
        }
        let constant = self.constant(source);
        let place = sources[to_usize(i)];
        self.thunk_with(|c| {
            let base = match constant {
                Some(value) => Op::Const(value),
                None => Self::var_op(c.scopes.reach(place), pos),
            };
            Ok(Op::Select(c.keep(SelectOp {
                base,
                name: def.name,
                pos,
                cache: AtomicU64::new(0),
            })))
        })
    }

    /// An attribute set literal.
    pub(super) fn attrs(&mut self, index: u32, at: u32) -> C<Op> {
        let attrs = &self.unit.ast.attrs[to_usize(index)];
        let pos = self.pos(at);
        if attrs.defs.is_empty() && attrs.dynamic.is_empty() {
            return Ok(Op::Const(
                self.unit.heap.set(self.unit.heap.shape(&[], &[], Pos::NONE), &[]),
            ));
        }
        if attrs.recursive && attrs.find(sym::overrides).is_some() {
            return self.overridden(attrs, pos);
        }
        let (mark, first_slot) = (self.scopes.mark(), self.scopes.next_slot());
        let result = if attrs.recursive {
            self.rec_set(attrs, pos)
        } else {
            self.plain_set(attrs, pos, false)
        };
        self.scopes.pop_to(mark);
        self.scopes.release(first_slot);
        result
    }

    fn rec_set(&mut self, attrs: &Attrs, pos: Pos) -> C<Op> {
        let binds = self.group(attrs, &[])?;
        let mut defs = Vec::with_capacity(attrs.defs.len());
        for def in &attrs.defs {
            let value = match self.scopes.lookup(def.name) {
                Some(Target::Const(value)) => Delay::Const(value),
                Some(Target::Slot(place)) => Self::delay_var(self.scopes.reach(place)),
                Some(Target::Attr(place)) => {
                    let at = self.pos(def.at);
                    self.thunk_with(|c| Ok(c.attr_of(place, def.name, at)))?
                }
                None => Delay::Const(crate::heap::value::Value::NULL),
            };
            defs.push((def.name, value, self.pos(def.at)));
        }
        self.set_code(attrs, defs, binds, pos, false)
    }

    /// `rec { __overrides = …; }`: names of the set mean attributes of the finished set, which a hidden variable holds.
    fn overridden(&mut self, attrs: &Attrs, pos: Pos) -> C<Op> {
        let (mark, first_slot) = (self.scopes.mark(), self.scopes.next_slot());
        let outer: Vec<_> = attrs
            .defs
            .iter()
            .filter(|d| d.kind == DefKind::Inherited)
            .collect();
        let outer: Vec<_> = outer
            .into_iter()
            .map(|d| Ok((d.name, self.resolve(d.name, d.at)?)))
            .collect::<C<Vec<_>>>()?;
        let whole = self.scopes.slot();
        for def in &attrs.defs {
            let inherited = outer.iter().find(|(n, _)| *n == def.name).and_then(|(_, t)| *t);
            self.scopes
                .bind(def.name, inherited.unwrap_or(Target::Attr(whole)));
        }
        let set = self.thunk_with(|c| c.plain_set(attrs, pos, true))?;
        self.scopes.pop_to(mark);
        self.scopes.release(first_slot);
        let binds = Binds {
            list: self.unit.heap.keep_slice(&[(whole.slot, set)]),
        };
        Ok(Op::Let(self.keep(LetOp {
            binds,
            body: Op::Local(whole.slot, pos),
        })))
    }

    fn plain_set(&mut self, attrs: &Attrs, pos: Pos, overrides: bool) -> C<Op> {
        let sources: Vec<Place> = attrs.from.iter().map(|_| self.scopes.slot()).collect();
        let mut binds = Vec::new();
        for (source, place) in attrs.from.iter().zip(&sources) {
            if self.constant(*source).is_none() {
                binds.push((place.slot, self.delay(*source)?));
            }
        }
        let mut defs = Vec::with_capacity(attrs.defs.len());
        for def in &attrs.defs {
            let value = match def.kind {
                DefKind::Plain(value) => self.delay(value)?,
                DefKind::Inherited => self.delay_name(def.name, def.at)?,
                DefKind::InheritedFrom(i) => self.inherited(attrs, &sources, i, *def)?,
            };
            defs.push((def.name, value, self.pos(def.at)));
        }
        let binds = Binds {
            list: self.unit.heap.keep_slice(&binds),
        };
        self.set_code(attrs, defs, binds, pos, overrides)
    }

    fn delay_name(&mut self, name: Symbol, at: u32) -> C<Delay> {
        let pos = self.pos(at);
        Ok(match self.resolve(name, at)? {
            Some(Target::Const(value)) => Delay::Const(value),
            Some(Target::Slot(place)) => Self::delay_var(self.scopes.reach(place)),
            Some(Target::Attr(place)) => self.thunk_with(|c| Ok(c.attr_of(place, name, pos)))?,
            None => self.thunk_with(|c| Ok(c.with_var(name, pos)))?,
        })
    }

    fn set_code(
        &mut self,
        attrs: &Attrs,
        mut defs: Vec<(Symbol, Delay, Pos)>,
        binds: Binds,
        pos: Pos,
        overrides: bool,
    ) -> C<Op> {
        let mut dynamic = Vec::new();
        for def in &attrs.dynamic {
            let (name, value) = (self.expr(def.name)?, self.delay(def.value)?);
            dynamic.push(DynamicAttr {
                name,
                value,
                pos: self.pos(def.at),
            });
        }
        defs.sort_by_key(|d| d.0);
        let names: Vec<Symbol> = defs.iter().map(|d| d.0).collect();
        let positions: Vec<Pos> = defs.iter().map(|d| d.2).collect();
        let values: Vec<Delay> = defs.iter().map(|d| d.1).collect();
        let heap = self.unit.heap;
        let shape = heap.literal_shape(&names, &positions, pos);
        if binds.list.is_empty()
            && dynamic.is_empty()
            && !overrides
            && let Some(constants) = constants(values.iter())
        {
            return Ok(Op::Const(heap.set(shape, &constants)));
        }
        let (values, dynamic) = (heap.keep_slice(&values), heap.keep_slice(&dynamic));
        Ok(Op::Attrs(self.keep(AttrsOp {
            binds,
            shape,
            values,
            dynamic,
            overrides,
        })))
    }
}
