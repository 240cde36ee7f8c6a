# `concatMap` with lists of length 0 and 2.
n: builtins.length (builtins.concatMap (x: if x / 2 * 2 == x then [ x x ] else [ ]) (builtins.genList (i: i) n))
