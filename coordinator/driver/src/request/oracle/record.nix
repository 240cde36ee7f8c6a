# What the oracle files here were recorded from, with Nix 2.34 in a private store, sandboxed, two cores:
# each derivation copies what it found in its build directory to its output. `tools` is any static busybox.
{ tools }:
let
  run = script: extra: derivation ({ name = "t"; system = "x86_64-linux"; builder = "${tools}/bin/sh"; args = [ "-e" "-c" ("PATH=${tools}/bin; " + script) ]; } // extra);
  a = run "echo a > $out" { name = "a"; };
  b = run "mkdir $out; echo ${a} > $out/f; echo $out > $out/self; mkdir $lib; echo x > $lib/x" { name = "b"; outputs = [ "out" "lib" ]; };
  P = placeholder "out";
in
{
  attributes = run "mkdir ${P}; cp .attrs.json .attrs.sh ${P}; env > ${P}/env" {
    name = "attributes"; __structuredAttrs = true; outputs = [ "out" ];
    i = 3; neg = -7; big = 4294967297; f = 1.5; fi = 2.0; fbig = 1.0e22; t = true; fa = false; n = null; s = "a'b\"c\n";
    l = [ 1 "x" null true 2.5 ]; l2 = [ true false null "a b" ]; nl = [ [ 1 ] ]; e = { }; el = [ ];
    m = { a = 1; b = "x y"; "c d" = "z'"; nested = { q = 1; }; }; m2 = { "k'" = "v"; }; m3 = { a = true; b = false; c = null; };
    "bad-name" = "x"; _ok = "1"; "ü" = "uni"; HOME = "mine"; PATH = "/p"; NIX_STORE = "x"; ph = P; NIX_BUILD_CORES = 5;
    mixed = [ "a" { b = 1; } ]; "9a" = 1; lf = [ 1.0 2.0 ]; NIX_ATTRS_SH_FILE = "x"; i2 = 16777217; i3 = 2147483648;
    fr = 16777217.5; fm = -2147483649.0; passAsFile = [ "s" ]; tab = "\t"; impureEnvVars = [ "FOO" ];
  };
  structured = run ": ${b}; mkdir ${P}; cp .attrs.json .attrs.sh ${P}" {
    name = "structured"; __structuredAttrs = true;
    exportReferencesGraph = { g1 = [ b ]; g2 = b; g3 = [ a [ b.lib ] ]; g4 = [ b.drvPath ]; };
  };
  classic = run ": ${b}; mkdir $out; cp g1 g2 g3 $out" {
    name = "classic"; exportReferencesGraph = [ "g1" b "g2" b.drvPath "g3" "${b}/f" ];
  };
}
