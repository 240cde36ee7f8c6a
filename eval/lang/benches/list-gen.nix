# `genList` with every element forced.
n: builtins.deepSeq (builtins.genList (i: [ i ]) n) n
