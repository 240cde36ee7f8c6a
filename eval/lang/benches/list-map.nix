# `map` over a list, every element used.
n: builtins.foldl' (sum: x: sum + x) 0 (map (x: x * 2) (builtins.genList (i: i) n))
