//! The table of builtins.

use super::{
    Builtin, context, control, convert, derivation, fetch, files, flake, hash, lists, math, sets, strings,
    types, versions,
};
use crate::error::R;
use crate::heap::value::Value;
use crate::interp::Interp;
use crate::pos::Pos;
use crate::settings::Features;

type Run = fn(&mut Interp, &[Value], Pos) -> R<Value>;

const fn always(_: &Features) -> bool {
    true
}

const fn b(
    name: &'static str,
    args: &'static [&'static str],
    strict: &'static [usize],
    run: Run,
    doc: &'static str,
) -> Builtin {
    Builtin {
        name,
        args,
        strict,
        run,
        traced: true,
        enabled: always,
        doc,
    }
}

const fn feature(builtin: Builtin, enabled: fn(&Features) -> bool) -> Builtin {
    Builtin { enabled, ..builtin }
}

const fn hidden(name: &'static str, run: Run) -> Builtin {
    Builtin {
        name,
        args: &["x"],
        strict: &[],
        run,
        traced: false,
        enabled: always,
        doc: "",
    }
}

/// Line of a position number.
pub(super) static POSITION_LINE: Builtin = hidden("lineOfPos", control::position_line);
/// Column of a position number.
pub(super) static POSITION_COLUMN: Builtin = hidden("columnOfPos", control::position_column);
/// Evaluates a file.
pub(super) static LOAD_FILE: Builtin = hidden("loadFile", control::load_file);
/// A tree by the attributes of a lock file.
pub(super) static LOCKED_TREE: Builtin = hidden("fetchLockedTree", fetch::fetch_locked_tree);
/// The set of builtins.
pub(super) static BUILTINS_ITSELF: Builtin = hidden("builtins", control::builtins_itself);

/// Every builtin that is a function.
#[rustfmt::skip]
pub(super) static TABLE: &[Builtin] = &[
    b("abort", &["s"], &[], control::abort, "Ends the evaluation with a message; tryEval does not catch it."),
    b("__add", &["e1", "e2"], &[0, 1], math::add, "The sum of two numbers."),
    b("__addDrvOutputDependencies", &["s"], &[0], context::add_drv_output_dependencies,
      "The string with its one constant reference to a derivation turned into one to its whole closure."),
    Builtin { traced: false, ..b("__addErrorContext", &["context", "value"], &[], control::add_error_context,
      "The value; when it fails, the error says the context.") },
    b("__all", &["pred", "list"], &[0, 1], lists::all, "Whether the predicate holds for all items."),
    b("__any", &["pred", "list"], &[0, 1], lists::any, "Whether the predicate holds for some item."),
    b("__appendContext", &["s", "context"], &[0, 1], context::append_context, "The string with more context."),
    b("__attrNames", &["set"], &[0], sets::attr_names, "The names of a set's attributes, sorted."),
    b("__attrValues", &["set"], &[0], sets::attr_values, "The values of a set's attributes, by name."),
    b("baseNameOf", &["x"], &[], files::base_name_of, "What follows the last slash."),
    b("__bitAnd", &["e1", "e2"], &[0, 1], math::bit_and, "Bitwise and of two integers."),
    b("__bitOr", &["e1", "e2"], &[0, 1], math::bit_or, "Bitwise or of two integers."),
    b("__bitXor", &["e1", "e2"], &[0, 1], math::bit_xor, "Bitwise exclusive or of two integers."),
    b("break", &["v"], &[0], control::force_first, "Its argument; a debugger stops here."),
    b("__catAttrs", &["attr", "list"], &[0, 1], sets::cat_attrs,
      "The values of an attribute in those sets that have it."),
    b("__ceil", &["number"], &[0], math::ceil, "The least integer not below a number."),
    b("__compareVersions", &["s1", "s2"], &[0, 1], versions::compare_versions,
      "-1, 0 or 1: which version is older."),
    b("__concatLists", &["lists"], &[0], lists::concat_lists, "Lists joined to one."),
    b("__concatMap", &["f", "list"], &[0, 1], lists::concat_map,
      "The lists a function makes of items, joined."),
    b("__concatStringsSep", &["separator", "list"], &[0, 1], strings::concat_strings_sep,
      "Strings joined by a separator."),
    b("__convertHash", &["args"], &[0], hash::convert_hash, "A hash in another notation."),
    b("__deepSeq", &["e1", "e2"], &[], control::deep_seq,
      "The second argument, after evaluating all of the first."),
    b("derivationStrict", &["args"], &[0], derivation::derivation_strict, "Instantiates a derivation."),
    b("dirOf", &["s"], &[0], files::dir_of, "What precedes the last slash."),
    b("__div", &["e1", "e2"], &[0, 1], math::divide, "The quotient of two numbers."),
    b("__elem", &["x", "xs"], &[1], lists::elem, "Whether a list has an item."),
    b("__elemAt", &["xs", "n"], &[1, 0], lists::elem_at, "An item of a list, from 0."),
    feature(b("__fetchClosure", &["args"], &[0], fetch::fetch_closure,
      "A closure from a binary cache."), |f| f.fetch_closure),
    b("fetchGit", &["args"], &[0], fetch::fetch_git, "A tree from a Git repository."),
    b("fetchMercurial", &["args"], &[0], fetch::fetch_mercurial, "A tree from a Mercurial repository."),
    b("fetchTarball", &["args"], &[0], fetch::fetch_tarball, "An archive, downloaded and unpacked."),
    feature(b("fetchTree", &["input"], &[0], fetch::fetch_tree,
      "A tree, from wherever its attributes say."), |f| f.fetch_tree || f.flakes),
    b("__fetchurl", &["arg"], &[0], fetch::fetchurl, "A file, downloaded."),
    b("__filter", &["f", "list"], &[1], lists::filter, "The items for which a predicate holds."),
    b("__filterSource", &["e1", "e2"], &[], files::filter_source,
      "A tree in the store, without what a predicate refuses."),
    b("__findFile", &["search-path", "lookup-path"], &[0], files::find_file, "A file found in a search path."),
    b("__flakeRefToString", &["attrs"], &[0], flake::flake_ref_to_string_,
      "A flake reference as text."),
    b("__parseFlakeRef", &["flake-ref"], &[0], flake::parse_flake_ref,
      "The attributes of a flake reference."),
    b("__floor", &["number"], &[0], math::floor, "The greatest integer not above a number."),
    b("__foldl'", &["op", "nul", "list"], &[0, 2], lists::foldl_strict,
      "A list reduced from the left, strictly."),
    b("__fromJSON", &["e"], &[0], convert::from_json, "The value of a JSON text."),
    b("fromTOML", &["e"], &[0], convert::from_toml, "The value of a TOML text."),
    b("__functionArgs", &["f"], &[0], types::function_args,
      "The formals of a function, and whether they have defaults."),
    b("__genList", &["generator", "length"], &[1], lists::gen_list, "A list made by a function of the index."),
    b("__genericClosure", &["attrset"], &[0], control::generic_closure,
      "Everything reachable by an operator, by key."),
    b("__getAttr", &["s", "set"], &[0, 1], sets::get_attr, "An attribute by a computed name."),
    b("__getContext", &["s"], &[0], context::get_context, "The context of a string, as a set."),
    b("__getEnv", &["s"], &[0], control::get_env, "An environment variable, or an empty string."),
    b("__getFlake", &["args"], &[0], fetch::get_flake, "A flake's outputs."),
    b("__groupBy", &["f", "list"], &[0, 1], lists::group_by, "Items by what a function names them."),
    b("__hasAttr", &["s", "set"], &[0, 1], sets::has_attr,
      "Whether a set has an attribute by a computed name."),
    b("__hasContext", &["s"], &[0], context::has_context, "Whether a string has a context."),
    b("__hashFile", &["type", "p"], &[0], hash::hash_file, "The hash of a file, in base 16."),
    b("__hashString", &["type", "s"], &[0, 1], hash::hash_string, "The hash of a string, in base 16."),
    b("__head", &["list"], &[0], lists::head, "The first item of a list."),
    b("import", &["path"], &[0], control::import, "The value of a file."),
    b("__intersectAttrs", &["e1", "e2"], &[0, 1], sets::intersect_attrs,
      "The attributes of the second set that the first has."),
    b("__isAttrs", &["e"], &[0], types::is_attrs, "Whether a value is a set."),
    b("__isBool", &["e"], &[0], types::is_bool, "Whether a value is a boolean."),
    b("__isFloat", &["e"], &[0], types::is_float, "Whether a value is a float."),
    b("__isFunction", &["e"], &[0], types::is_function, "Whether a value is a function."),
    b("__isInt", &["e"], &[0], types::is_int, "Whether a value is an integer."),
    b("__isList", &["e"], &[0], types::is_list, "Whether a value is a list."),
    b("isNull", &["e"], &[0], types::is_null, "Whether a value is null."),
    b("__isPath", &["e"], &[0], types::is_path, "Whether a value is a path."),
    b("__isString", &["e"], &[0], types::is_string, "Whether a value is a string."),
    b("__length", &["e"], &[0], lists::length, "The length of a list."),
    b("__lessThan", &["e1", "e2"], &[0, 1], math::less_than, "Whether the first comes before the second."),
    b("__listToAttrs", &["e"], &[0], sets::list_to_attrs,
      "A set of name and value pairs; the first of doubles counts."),
    b("map", &["f", "list"], &[1], lists::map, "A list with a function applied to each item."),
    b("__mapAttrs", &["f", "attrset"], &[1], sets::map_attrs,
      "A set with a function applied to each name and value."),
    b("__match", &["regex", "str"], &[0, 1], strings::match_,
      "The groups of a regular expression that matches all of a string."),
    b("__mul", &["e1", "e2"], &[0, 1], math::multiply, "The product of two numbers."),
    feature(b("__outputOf", &["derivation-reference", "output-name"], &[], fetch::output_of,
      "An output of a derivation that another makes."), |f| f.dynamic_derivations),
    b("__parseDrvName", &["s"], &[0], versions::parse_drv_name, "Name and version of a derivation's name."),
    b("__partition", &["pred", "list"], &[0, 1], lists::partition,
      "Items for which a predicate holds, and the others."),
    b("__path", &["args"], &[0], files::path, "A path in the store, with name, filter and hash."),
    b("__pathExists", &["path"], &[0], files::path_exists, "Whether something is at a path."),
    b("placeholder", &["output"], &[0], hash::placeholder,
      "What stands for an output's path inside its own derivation."),
    b("__readDir", &["path"], &[], files::read_dir, "Names and types of a directory's entries."),
    b("__readFile", &["path"], &[], files::read_file, "The text of a file."),
    b("__readFileType", &["p"], &[], files::read_file_type, "What is at a path."),
    b("removeAttrs", &["set", "list"], &[0, 1], sets::remove_attrs, "A set without some attributes."),
    b("__replaceStrings", &["from", "to", "s"], &[0, 1], strings::replace_strings,
      "A string with parts replaced."),
    b("scopedImport", &["scope", "path"], &[], control::scoped_import,
      "The value of a file, with more names in scope."),
    b("__seq", &["e1", "e2"], &[0], control::seq, "The second argument, after evaluating the first."),
    b("__sort", &["comparator", "list"], &[1], lists::sort, "A list in order."),
    b("__split", &["regex", "str"], &[0, 1], strings::split,
      "A string cut at a regular expression, with its groups."),
    b("__splitVersion", &["s"], &[0], versions::split_version, "The components of a version."),
    b("__storePath", &["path"], &[], files::store_path, "A store path that exists, as a dependency."),
    b("__stringLength", &["e"], &[0], strings::string_length, "The length of a string, in bytes."),
    b("__sub", &["e1", "e2"], &[0, 1], math::subtract, "The difference of two numbers."),
    b("__substring", &["start", "len", "s"], &[0, 1], strings::substring, "A part of a string."),
    b("__tail", &["list"], &[0], lists::tail, "A list without its first item."),
    b("throw", &["s"], &[], control::throw, "Fails with a message; tryEval catches it."),
    b("__toFile", &["name", "s"], &[0, 1], files::to_file, "A file in the store with some text."),
    b("__toJSON", &["e"], &[], convert::to_json, "A value as JSON."),
    b("__toPath", &["s"], &[], files::to_path, "An absolute path as a string."),
    b("toString", &["e"], &[0], strings::to_string, "A value as a string."),
    b("__toXML", &["e"], &[], convert::to_xml, "A value as XML."),
    b("__trace", &["e1", "e2"], &[0], control::trace, "The second argument, after printing the first."),
    b("__traceVerbose", &["e1", "e2"], &[], control::trace_verbose, "As trace, where asked for."),
    b("__tryEval", &["e"], &[], control::try_eval, "Whether a value can be evaluated, and the value."),
    b("__typeOf", &["e"], &[0], types::type_of, "The name of a value's type."),
    b("__unsafeDiscardOutputDependency", &["s"], &[0], context::unsafe_discard_output_dependency,
      "The string with references to derivations' closures made references to the derivations."),
    b("__unsafeDiscardStringContext", &["s"], &[0], context::unsafe_discard_string_context,
      "The string without context."),
    b("__unsafeGetAttrPos", &["s", "set"], &[0, 1], sets::unsafe_get_attr_pos,
      "Where an attribute was defined."),
    b("__warn", &["e1", "e2"], &[0], control::warn, "The second argument, after a warning."),
    b("__zipAttrsWith", &["f", "list"], &[0, 1], sets::zip_attrs_with,
      "Sets merged: a function of name and values."),
];
