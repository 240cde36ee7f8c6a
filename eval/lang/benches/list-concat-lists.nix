# `concatLists` of many short lists.
n: builtins.length (builtins.concatLists (builtins.genList (i: [ i i i ]) n))
