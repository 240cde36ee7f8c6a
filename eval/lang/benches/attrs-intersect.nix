# `intersectAttrs` of a small set with a large one, many times, as `callPackage` does.
n:
let
  large = builtins.listToAttrs (
    builtins.genList (i: {
      name = "a${toString i}";
      value = i;
    }) 10000
  );
  small = {
    a1 = true;
    a500 = true;
    a9999 = true;
    absent = true;
  };
in
builtins.foldl' (sum: i: sum + (builtins.intersectAttrs small large).a500) 0 (builtins.genList (i: i) n)
