# Interpolation of short strings, the commonest string operation of all.
n:
let
  line = i: "name-${toString i}: ${"value"}/${toString (i + 1)}";
in
builtins.foldl' (sum: i: sum + builtins.stringLength (line i)) 0 (builtins.genList (i: i) n)
