# `toJSON` and `fromJSON` of a list of small sets.
n:
builtins.length (
  builtins.fromJSON (
    builtins.toJSON (
      builtins.genList (i: {
        name = "name${toString i}";
        value = i;
        list = [
          1
          2.5
          null
          true
        ];
      }) n
    )
  )
)
