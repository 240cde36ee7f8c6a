# `foldl'` with a set as accumulator, its values forced at every step.
n:
let
  step =
    state: x:
    let
      count = state.count + 1;
      sum = state.sum + x;
    in
    builtins.seq count (builtins.seq sum { inherit count sum; });
in
(builtins.foldl' step {
  count = 0;
  sum = 0;
} (builtins.genList (i: i) n)).sum
