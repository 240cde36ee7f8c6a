# `//` onto a set that grows by one attribute each time: what a list becomes a set by, without `listToAttrs`.
n:
builtins.length (
  builtins.attrNames (
    builtins.foldl' (set: i: set // { "a${toString i}" = i; }) { } (builtins.genList (i: i) n)
  )
)
