# Selection, `?`, `or` and `with` on nested sets.
n:
let
  set = {
    a.b.c = 1;
    d.e = 2;
  };
  step = sum: i: sum + set.a.b.c + (set.d.f or 3) + (if set ? a.b then 1 else 0) + (with set.d; e);
in
builtins.foldl' step 0 (builtins.genList (i: i) n)
