# `elem`, `elemAt`, `head`, `tail` and `any` on short lists, many times.
n:
let
  names = [ "a" "b" "c" "d" "e" "f" "g" "h" ];
  step =
    sum: i:
    sum
    + (if builtins.elem "g" names then 1 else 0)
    + builtins.stringLength (builtins.elemAt names 3)
    + builtins.length (builtins.tail names)
    + (if builtins.any (name: name == "e") names then 1 else 0);
in
builtins.foldl' step 0 (builtins.genList (i: i) n)
