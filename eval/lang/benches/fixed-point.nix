# A fixed point with overlays, as nixpkgs is one: every layer reads the one before and the last.
n:
let
  fix =
    f:
    let
      x = f x;
    in
    x;
  extend =
    f: overlay: final:
    let
      prev = f final;
    in
    prev // overlay final prev;
  layer = i: final: prev: {
    count = prev.count + 1;
    total = final.base + prev.total;
  };
  ground = final: {
    count = 0;
    total = 0;
    base = 1;
  };
  build = fix (builtins.foldl' extend ground (builtins.genList layer 20));
  again =
    i:
    let
      set = fix (builtins.foldl' extend ground (builtins.genList layer 20));
    in
    set.count + set.total;
in
builtins.foldl' (sum: i: sum + again i) build.count (builtins.genList (i: i) (n / 20))
