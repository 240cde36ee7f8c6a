# Trivial derivations: a chain, and independent ones that one more needs. A new salt makes new ones.
{ salt ? "1", count ? 100 }:
let
  one = name: variables: derivation ({
    inherit name salt;
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" "echo $name > $out" ];
  } // variables);
  step = previous: number: one "link-${toString number}" { inherit previous; };
in
{
  chain = builtins.foldl' step "" (builtins.genList (n: n) count);
  wide = one "all" { parts = builtins.genList (n: one "part-${toString n}" { }) count; };
}
