# Names found through several `with`s around them.
n:
let
  scope = builtins.listToAttrs (
    builtins.genList (i: {
      name = "name${toString i}";
      value = i;
    }) 1000
  );
  step =
    sum: i:
    with scope;
    with { inner = 1; };
    with { other = 2; };
    sum + name7 + name500 + inner + other;
in
builtins.foldl' step 0 (builtins.genList (i: i) n)
