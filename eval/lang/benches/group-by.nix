# `groupBy` into a hundred groups.
n:
builtins.length (
  builtins.attrNames (builtins.groupBy (i: toString (i - i / 100 * 100)) (builtins.genList (i: i) n))
)
