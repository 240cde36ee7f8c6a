# `//` of one attribute onto a large set, many times, as overlays do.
n:
let
  base = builtins.listToAttrs (
    builtins.genList (i: {
      name = "a${toString i}";
      value = i;
    }) 20000
  );
in
builtins.foldl' (sum: i: sum + (base // { a7 = i; }).a7) 0 (builtins.genList (i: i) n)
