//! Questions about types.

use crate::error::{ErrorKind, EvalError, R};
use crate::heap::attrs::Attr;
use crate::heap::object::Func;
use crate::heap::value::{Type, Value};
use crate::interp::Interp;
use crate::pos::Pos;

fn is(interp: &mut Interp, args: &[Value], wanted: Type) -> R<Value> {
    Ok(Value::bool(interp.force(args[0])?.kind_of() == wanted))
}

macro_rules! tests {
    ($($name:ident = $kind:ident),*) => {
        $(pub(super) fn $name(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
            is(interp, args, Type::$kind)
        })*
    };
}

tests! {
    is_null = Null, is_function = Function, is_int = Int, is_float = Float, is_string = String, is_bool = Bool,
    is_path = Path, is_attrs = Set, is_list = List
}

pub(super) fn type_of(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let name = match interp.force(args[0])?.kind_of() {
        Type::Int => "int",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Path => "path",
        Type::Null => "null",
        Type::Set => "set",
        Type::List => "list",
        Type::Function | Type::Thunk => "lambda",
        Type::Float => "float",
    };
    let name = interp.symbols.intern(name.as_bytes());
    Ok(interp.name_value(name))
}

pub(super) fn function_args(interp: &mut Interp, args: &[Value], _pos: Pos) -> R<Value> {
    let value = interp.force(args[0])?;
    let param = match value.as_func() {
        Some(Func::Closure(code, _)) => code.params.first(),
        Some(Func::Partial(inner, given)) => match inner.as_func() {
            Some(Func::Closure(code, _)) => code.params.get(given.len()),
            _ => None,
        },
        Some(Func::Builtin(_)) => None,
        None => {
            return Err(EvalError::new(
                ErrorKind::Type,
                "'functionArgs' requires a function",
            ));
        }
    };
    let Some(formals) = param.and_then(|p| p.formals) else {
        return Ok(interp.heap.empty_set());
    };
    let attrs: Vec<Attr> = formals
        .list
        .iter()
        .map(|f| (f.name, Value::bool(f.default.is_some()), f.pos))
        .collect();
    Ok(interp.heap.set_of_sorted(&attrs))
}
