# `zipAttrsWith` and `catAttrs` over many small sets, as the module system does.
n:
let
  sets = builtins.genList (i: {
    ${"a${toString (i - i / 64 * 64)}"} = i;
    common = 1;
  }) n;
in
(builtins.zipAttrsWith (name: values: builtins.length values) sets).a7
+ builtins.length (builtins.catAttrs "common" sets)
