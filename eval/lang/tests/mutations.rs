//! The fuzz targets' properties over mutated good programs: no fuzzer needed, the same inputs each time.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking; it shares a module with the fuzz targets"
)]

#[path = "../fuzz/src/properties.rs"]
mod properties;

use igloo_mutate::mutants;

/// Programs that use every form of the grammar and most builtins. None of them computes much.
const PROGRAMS: &[&str] = &[
    "let f = { a, b ? a, ... }@args: a + b + args.c; in f { a = 1; c = 2; }",
    "rec { x.y.\"z w\" = [ 1 2.5 null true ./a.nix ~/b <nixpkgs/c> ]; ${\"n\" + \"m\"} = x.y or 3; inherit (x) y; }",
    "with { a = 1; }; assert a == 1 -> !(a > 2); if a <= 1 && true || false then \"t${toString a}\" else throw \"no\"",
    "''\n    line ${\"x\"}\n      ''${no} '''quoted''' ''\\n\n  ''",
    "let x = -1 - 2 * 3 / 4; y = [ 1 ] ++ [ 2 ]; z = { a = 1; } // { b = 2; }; in z ? b && (x |> f y) or { }",
    "{ a, b }: c: [ (a: a) (import ./a.nix).x (builtins.readFile ./text) ] # comment\n/* another */",
    "builtins.foldl' (a: b: a + b) 0 (builtins.genList (i: i * i) 10)",
    "builtins.sort (a: b: a < b) [ 3 1 2 ] ++ builtins.filter (x: x != 2) (map (x: x + 1) [ 1 2 3 ])",
    "builtins.mapAttrs (n: v: n + toString v) (builtins.listToAttrs [ { name = \"a\"; value = 1; } { name = \"b\"; value = 2; } ])",
    "builtins.concatStringsSep \",\" (builtins.attrNames (removeAttrs { a = 1; b = 2; } [ \"a\" ] // builtins.intersectAttrs { c = 1; } { c = 2; }))",
    "builtins.replaceStrings [ \"a\" \"\" ] [ \"b\" \"-\" ] \"banana\" + builtins.substring 1 3 \"hello\"",
    "builtins.match \"([a-z]+)(-([0-9]+))?\" \"name-12\" ++ builtins.split \"[,;]\" \"a,b;c\"",
    "(derivation { name = \"x\"; system = \"s\"; builder = \"/b\"; args = [ \"${builtins.toFile \"f\" \"text\"}\" ]; outputs = [ \"out\" \"dev\" ]; }).dev",
    "builtins.tryEval (builtins.genericClosure { startSet = [ { key = 1; } ]; operator = x: if x.key < 5 then [ { key = x.key + 1; } ] else [ ]; })",
    "builtins.fromJSON \"{\\\"a\\\":[1,2.0e3,null,\\\"\\\\u00e9\\\"]}\" == builtins.fromTOML \"a = [1, 2]\"",
    "builtins.getContext (builtins.unsafeDiscardStringContext \"x\") // { v = builtins.compareVersions \"1.2\" \"1.10\"; }",
    "let a = b; b = { __functor = self: x: self.n + x; n = 1; __toString = s: \"s\"; }; in [ (a 2) \"${a}\" (builtins.functionArgs ({ x, y ? 1 }: x)) ]",
    "builtins.groupBy (x: if x > 1 then \"big\" else \"small\") [ 1 2 3 ] // builtins.zipAttrsWith (n: vs: vs) [ { a = 1; } { a = 2; } ]",
    "https://example.org/a:b?c=d",
    "let inherit (builtins) seq deepSeq elemAt trace; in seq (trace \"t\" 1) (deepSeq [ 1 ] (elemAt [ 1 2 ] 1))",
];

const DOCUMENTS: &[&str] = &[
    "{\"a\": [1, -2, 3.5e-7, true, null, \"\\u00e9\\ud83d\\ude00\\n\"], \"b\": {\"c\": {}}}",
    "[9223372036854775807, 1e400, 0.1, \"\"]",
    "title = \"x\"\n[a.b]\nc = 1_000\nd = [ 1.5, \"y\", '''z''' ]\n[[e]]\nf = 0x1f\ng = { h = true }\n",
    "([a-z]+)|[^[:digit:]]{2,3}(x*)?$",
    "hello-world-1.2.3pre4",
    "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
];

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn parse() {
    mutants(&bytes(PROGRAMS), 2_000, properties::parse);
}

#[test]
fn evaluate() {
    mutants(&bytes(PROGRAMS), 300, properties::evaluate);
}

#[test]
fn documents() {
    mutants(&bytes(DOCUMENTS), 1_000, properties::documents);
}
