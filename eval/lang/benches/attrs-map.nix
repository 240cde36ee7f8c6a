# `mapAttrs` over one large set, every value used.
n:
let
  set = builtins.listToAttrs (
    builtins.genList (i: {
      name = "a${toString i}";
      value = i;
    }) n
  );
in
builtins.foldl' (sum: x: sum + x) 0 (builtins.attrValues (builtins.mapAttrs (name: value: value + 1) set))
