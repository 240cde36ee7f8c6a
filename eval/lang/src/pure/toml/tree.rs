//! The tables of a document while it is read, and who may still add to them.
//!
//! Invariants
//! - every value is in one container, the root in none;
//! - a table is defined by one header, or by dotted keys, or in line, and what is in line never changes again.
//!
//! Source: TOML 1.0.0, sections "Table", "Inline Table", "Array of Tables", "Keys".

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Value, ValueId};

/// How a container came to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A header named something inside it: `a` in `[a.b]`. Its own header may still come.
    Implied,
    /// By its header.
    Header,
    /// By dotted keys: `a` in `a.b = 1`.
    Dotted,
    /// In line, or not a container.
    Fixed,
}

/// The values read so far; number 0 is the root table.
pub(super) struct Tree {
    pub(super) values: Vec<Value>,
    origins: Vec<Origin>,
}

/// What was wrong, in toml11's words.
pub(super) type Wrong = &'static str;

const VALUE_EXISTS: Wrong = "toml::insert_value: failed to insert a value, value already exists";
const TABLE_EXISTS: Wrong = "toml::insert_value: failed to insert a table, table already defined";
const ARRAY_EXISTS: Wrong = "toml::insert_value: failed to insert an array of tables, value already exists";
const INLINE: Wrong = "toml::insert_value: failed to insert a value: inline table is immutable";
const INLINE_ARRAY: Wrong =
    "toml::insert_value: failed to insert a table, inline array of tables is immutable";
const REOPENED: Wrong = "toml::insert_value: reopening a table using dotted keys";
const REOPENED_ARRAY: Wrong = "toml::insert_value:dotted key cannot reopen an array-of-tables";

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            values: vec![Value::Table(BTreeMap::new())],
            origins: vec![Origin::Header],
        }
    }

    pub(super) fn add(&mut self, value: Value, origin: Origin) -> ValueId {
        self.values.push(value);
        self.origins.push(origin);
        ValueId(self.values.len() - 1)
    }

    /// Adds an element to an array that is being read.
    pub(super) fn push(&mut self, array: ValueId, element: ValueId) {
        if let Value::Array(elements) = &mut self.values[array.0] {
            elements.push(element);
        }
    }

    /// Says that the table is complete.
    pub(super) fn fix(&mut self, table: ValueId) {
        self.origins[table.0] = Origin::Fixed;
    }

    /// `key = value` in `table`, the key possibly dotted.
    pub(super) fn insert(&mut self, table: ValueId, key: &[String], value: ValueId) -> Result<(), Wrong> {
        let Some((last, path)) = key.split_last() else {
            return Ok(());
        };
        let mut at = table;
        for name in path {
            at = match self.child(at, name) {
                None => self.add_table(at, name, Origin::Dotted),
                Some(next) => match (&self.values[next.0], self.origins[next.0]) {
                    (Value::Table(_), Origin::Dotted) => next,
                    (Value::Table(_), Origin::Fixed) => return Err(INLINE),
                    (Value::Table(_), _) => return Err(REOPENED),
                    (Value::Array(_), Origin::Header) => return Err(REOPENED_ARRAY),
                    _ => return Err(VALUE_EXISTS),
                },
            };
        }
        self.insert_new(at, last, value).map_err(|()| VALUE_EXISTS)
    }

    /// The table that the header `[path]` begins.
    pub(super) fn header(&mut self, path: &[String]) -> Result<ValueId, Wrong> {
        let Some((last, above)) = path.split_last() else {
            return Ok(ValueId(0));
        };
        let at = self.descend(above)?;
        match self.child(at, last) {
            None => Ok(self.add_table(at, last, Origin::Header)),
            Some(known) if self.origins[known.0] == Origin::Implied && self.is_table(known) => {
                self.origins[known.0] = Origin::Header;
                Ok(known)
            }
            Some(_) => Err(TABLE_EXISTS),
        }
    }

    /// The new table that the header `[[path]]` begins.
    pub(super) fn array_header(&mut self, path: &[String]) -> Result<ValueId, Wrong> {
        let Some((last, above)) = path.split_last() else {
            return Ok(ValueId(0));
        };
        let at = self.descend(above)?;
        let array = match self.child(at, last) {
            None => {
                let array = self.add(Value::Array(Vec::new()), Origin::Header);
                self.insert_new(at, last, array).map_err(|()| ARRAY_EXISTS)?;
                array
            }
            Some(known) => match (&self.values[known.0], self.origins[known.0]) {
                (Value::Array(_), Origin::Header) => known,
                (Value::Array(elements), _) if !elements.is_empty() => return Err(INLINE_ARRAY),
                _ => return Err(ARRAY_EXISTS),
            },
        };
        let table = self.add(Value::Table(BTreeMap::new()), Origin::Header);
        self.push(array, table);
        Ok(table)
    }

    /// Walks down from the root, making what is missing; an array of tables is entered at its last table.
    fn descend(&mut self, path: &[String]) -> Result<ValueId, Wrong> {
        let mut at = ValueId(0);
        for name in path {
            at = match self.child(at, name) {
                None => self.add_table(at, name, Origin::Implied),
                Some(next) => match (&self.values[next.0], self.origins[next.0]) {
                    (Value::Table(_), Origin::Fixed) => return Err(INLINE),
                    (Value::Table(_), _) => next,
                    (Value::Array(elements), Origin::Header) => {
                        elements.last().copied().ok_or(VALUE_EXISTS)?
                    }
                    _ => return Err(VALUE_EXISTS),
                },
            };
        }
        Ok(at)
    }

    fn child(&self, table: ValueId, name: &str) -> Option<ValueId> {
        match &self.values[table.0] {
            Value::Table(members) => members.get(name).copied(),
            _ => None,
        }
    }

    fn is_table(&self, id: ValueId) -> bool {
        matches!(self.values[id.0], Value::Table(_))
    }

    fn add_table(&mut self, parent: ValueId, name: &str, origin: Origin) -> ValueId {
        let table = self.add(Value::Table(BTreeMap::new()), origin);
        if let Value::Table(members) = &mut self.values[parent.0] {
            members.insert(name.to_owned(), table);
        }
        table
    }

    fn insert_new(&mut self, table: ValueId, name: &str, value: ValueId) -> Result<(), ()> {
        let Value::Table(members) = &mut self.values[table.0] else {
            return Err(());
        };
        match members.entry(name.to_owned()) {
            Entry::Occupied(_) => Err(()),
            Entry::Vacant(place) => {
                place.insert(value);
                Ok(())
            }
        }
    }
}
