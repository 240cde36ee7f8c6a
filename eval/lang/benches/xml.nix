# `toXML` of a list of small sets.
n:
builtins.stringLength (
  builtins.toXML (
    builtins.genList (i: {
      name = "<name${toString i}>";
      value = i;
    }) n
  )
)
