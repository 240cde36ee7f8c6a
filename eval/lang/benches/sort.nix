# `sort` of numbers in no order.
n:
let
  numbers = builtins.genList (i: i * 7919 - i * 7919 / 10007 * 10007) n;
in
builtins.head (builtins.sort (a: b: a < b) numbers)
