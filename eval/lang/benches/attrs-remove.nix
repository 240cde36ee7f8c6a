# `removeAttrs` of half of the names of one large set.
n:
let
  set = builtins.listToAttrs (
    builtins.genList (i: {
      name = "a${toString i}";
      value = i;
    }) n
  );
in
builtins.length (builtins.attrNames (removeAttrs set (builtins.genList (i: "a${toString (i * 2)}") (n / 2))))
