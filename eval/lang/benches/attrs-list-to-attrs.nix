# `listToAttrs` with names out of order and every name twice.
n:
builtins.length (
  builtins.attrNames (
    builtins.listToAttrs (
      builtins.genList (i: {
        name = "a${toString (if i / 2 * 2 == i then i else n - i)}";
        value = i;
      }) n
    )
  )
)
