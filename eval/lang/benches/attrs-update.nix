# `//` of a set of sixteen attributes with a small one, many times.
n:
let
  base = builtins.listToAttrs (
    builtins.genList (i: {
      name = "attribute${toString i}";
      value = i;
    }) 16
  );
  step = set: i: set // { attribute7 = i; };
in
(builtins.foldl' step base (builtins.genList (i: i) n)).attribute7
