# `filter`, half of the elements kept.
n: builtins.length (builtins.filter (x: x / 2 * 2 == x) (builtins.genList (i: i) n))
