# Calls with a set pattern and defaults, as packages and modules are.
n:
let
  f =
    {
      a,
      b ? 2,
      c ? a + b,
      ...
    }:
    a + b + c;
in
builtins.foldl' (
  sum: i:
  sum
  + f {
    a = i;
    d = 1;
  }
) 0 (builtins.genList (i: i) n)
