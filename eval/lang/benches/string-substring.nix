# `substring` at every place of a long text, as `lib.stringToCharacters` does.
n:
let
  text = builtins.concatStringsSep "" (builtins.genList (i: "abcdefgh") (n / 8 + 1));
in
builtins.length (
  builtins.filter (c: c == "c") (builtins.genList (i: builtins.substring i 1 text) n)
)
