# `hashString` of many short texts.
n:
builtins.foldl' (
  sum: i: sum + builtins.stringLength (builtins.hashString "sha256" (toString i))
) 0 (builtins.genList (i: i) n)
