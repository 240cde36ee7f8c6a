# `match` of one pattern with groups against many short texts.
n:
let
  parts = i: builtins.match "([a-z]+)-([0-9]+)(\\.[0-9]+)*" "package-${toString i}.2.1";
in
builtins.foldl' (sum: i: sum + builtins.length (parts i)) 0 (builtins.genList (i: i) n)
