//! The derivations in a value, as `nix-instantiate` and `nix-build` find them.
//!
//! A derivation is itself; of a list every item counts, whatever it is; of a set the attributes that are derivations, in
//! the order of their names, and those of sets that ask for it (`recurseForDerivations`). A set met twice counts once.
//!
//! Source: `getDerivations` in `src/libexpr/get-drvs.cc`; behaviour recorded from Nix 2.34.

use std::ops::ControlFlow;
use std::rc::Rc;

use rustc_hash::FxHashSet;

use crate::error::{Context, ErrorKind, EvalError, R, fail};
use crate::heap::attrs::SetRef;
use crate::heap::context::Ctx;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::interp::fibers::wide::{Items, Job, Outcome};
use crate::pos::Pos;
use crate::symbol::{Symbol, sym};

/// A derivation found in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDerivation {
    /// Where in the value: names and positions with dots between them; empty for the value itself.
    pub attribute: String,
    /// Its store path.
    pub drv_path: String,
    /// The output meant.
    pub output_name: String,
}

/// Hands over the derivations in a value, until `visit` breaks.
pub(crate) fn find(
    interp: &mut Interp,
    value: Value,
    args: Vec<(String, Value)>,
    visit: &mut dyn FnMut(FoundDerivation) -> ControlFlow<()>,
) -> R<()> {
    let mut seen = FxHashSet::default();
    let mut enough = false;
    let mut finder = Finder {
        args: Rc::new(args),
        meet: &mut |met: Met| {
            if !seen.insert(met.set.bits()) {
                return Ok(());
            }
            enough = visit(met.found).is_break();
            if enough {
                return fail(ErrorKind::Cancelled, "enough");
            }
            Ok(())
        },
    };
    let result = finder.find(interp, value, "");
    if enough { Ok(()) } else { result }
}

/// A derivation that was come across, and the set it is.
pub(crate) struct Met {
    set: Value,
    found: FoundDerivation,
}

/// Where the items of a loop are, which decides what counts in them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    List,
    Set,
}

/// How an item of a loop is searched when it is started early.
pub(crate) struct Find {
    args: Rc<Vec<(String, Value)>>,
    place: Place,
}

impl Find {
    /// What is in an item; where, is told from the item on.
    pub(crate) fn early(&self, interp: &mut Interp, item: (Option<Symbol>, Value, Pos)) -> R<Vec<Met>> {
        let mut all = Vec::new();
        let mut finder = Finder {
            args: Rc::clone(&self.args),
            meet: &mut |met| {
                all.push(met);
                Ok(())
            },
        };
        finder.item(interp, self.place, item, "")?;
        Ok(all)
    }
}

/// Looks for derivations.
struct Finder<'a> {
    args: Rc<Vec<(String, Value)>>,
    meet: &'a mut dyn FnMut(Met) -> R<()>,
}

impl Finder<'_> {
    /// Finds those in a value and what it holds.
    fn find(&mut self, interp: &mut Interp, value: Value, attribute: &str) -> R<()> {
        let value = interp.auto_call(value, &self.args)?;
        if self.one(interp, value, attribute)? {
            return Ok(());
        }
        let (items, place) = if let Some(items) = value.as_list() {
            (Items::list(items), Place::List)
        } else if let Some(set) = value.as_set() {
            (Items::sorted(interp.heap.flat(set), interp), Place::Set)
        } else {
            let text = "expression does not evaluate to a derivation (or a set or list of those)";
            return fail(ErrorKind::Type, text);
        };
        interp.deeper(Pos::NONE, |s| self.items(s, items, place, attribute))
    }

    fn items(&mut self, interp: &mut Interp, items: Items, place: Place, attribute: &str) -> R<()> {
        let job = Job::Find(Rc::new(Find {
            args: Rc::clone(&self.args),
            place,
        }));
        interp.each_item(items, job, |interp, i, early| {
            let item = items.get(i);
            let name = match item.0 {
                Some(name) => interp.symbols.text(name),
                None => i.to_string(),
            };
            let path = join(attribute, &name);
            let Some(Outcome::Found(all)) = early? else {
                return self.item(interp, place, item, &path);
            };
            for mut met in all {
                met.found.attribute = join(&path, &met.found.attribute);
                (self.meet)(met)?;
            }
            Ok(())
        })
    }

    fn item(
        &mut self,
        interp: &mut Interp,
        place: Place,
        (name, value, pos): (Option<Symbol>, Value, Pos),
        attribute: &str,
    ) -> R<()> {
        let Some(name) = name.filter(|_| place == Place::Set) else {
            return self.find(interp, value, attribute);
        };
        if !is_plain(interp.symbols.name(name)) {
            return Ok(());
        }
        self.attribute(interp, value, attribute).context_with(pos, || {
            format!("while evaluating the attribute '{}'", interp.symbols.text(name))
        })
    }

    fn attribute(&mut self, interp: &mut Interp, value: Value, attribute: &str) -> R<()> {
        let value = interp.force(value)?;
        if self.one(interp, value, attribute)? {
            return Ok(());
        }
        let recurse = interp.symbols.intern(b"recurseForDerivations");
        let Some((flag, pos)) = value.as_set().and_then(|set| set.get(recurse)) else {
            return Ok(());
        };
        let what = "while evaluating the attribute `recurseForDerivations`";
        if interp.expect_bool(flag, pos, what)? {
            self.find(interp, value, attribute)?;
        }
        Ok(())
    }

    /// Whether a value is a derivation, which then counts.
    fn one(&mut self, interp: &mut Interp, value: Value, attribute: &str) -> R<bool> {
        let Some(set) = value.as_set() else {
            return Ok(false);
        };
        if !interp.is_derivation(set)? {
            return Ok(false);
        }
        let found = described(interp, set, attribute)?;
        (self.meet)(Met { set: value, found })?;
        Ok(true)
    }
}

fn described(interp: &mut Interp, set: SetRef, attribute: &str) -> R<FoundDerivation> {
    let Some((name, pos)) = set.get(sym::name) else {
        return fail(ErrorKind::Type, "derivation name missing");
    };
    let mut ctx = Ctx::EMPTY;
    let what = "while evaluating the 'name' attribute of a derivation";
    interp.expect_string(name, &mut ctx, pos, what)?;
    let Some((path, pos)) = set.get(sym::drv_path) else {
        return fail(
            ErrorKind::Type,
            "derivation does not contain a 'drvPath' attribute",
        );
    };
    let what = "while evaluating the 'drvPath' attribute of a derivation";
    let path = interp.expect_string(path, &mut ctx, pos, what)?;
    let drv_path = derivation_path(interp, path).context(pos, what)?;
    let output_name = match set.get(sym::output_name) {
        Some((name, pos)) => {
            let what = "while evaluating the output name of a derivation";
            let text = interp.expect_string(name, &mut ctx, pos, what)?;
            String::from_utf8_lossy(text).into_owned()
        }
        None => String::new(),
    };
    if output_name.is_empty() {
        let text = format!("derivation '{drv_path}' lacks an 'outputName' attribute");
        return fail(ErrorKind::Type, text);
    }
    Ok(FoundDerivation {
        attribute: attribute.to_owned(),
        drv_path,
        output_name,
    })
}

fn derivation_path(interp: &Interp, path: &[u8]) -> R<String> {
    let shown = String::from_utf8_lossy(path).into_owned();
    let Ok(stored) = interp.io.store_dir().parse_bytes(path) else {
        let text = format!("path '{shown}' is not in the Nix store");
        return Err(EvalError::new(ErrorKind::Eval, text));
    };
    if !stored.is_derivation() {
        let text = format!("store path '{stored}' is not a valid derivation path");
        return Err(EvalError::new(ErrorKind::InvalidPath, text));
    }
    Ok(shown)
}

/// Whether an attribute's name is one that counts; others cannot be named on a command line.
fn is_plain(name: &[u8]) -> bool {
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let goes_on = |byte: u8| starts(byte) || byte.is_ascii_digit() || b"-+".contains(&byte);
    name.first().is_some_and(|byte| starts(*byte)) && name.iter().all(|byte| goes_on(*byte))
}

fn join(attribute: &str, name: &str) -> String {
    match (attribute, name) {
        ("", name) => name.to_owned(),
        (attribute, "") => attribute.to_owned(),
        (attribute, name) => format!("{attribute}.{name}"),
    }
}
