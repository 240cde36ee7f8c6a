# `fromTOML` of a long document, as a lock file is.
n:
let
  package = i: ''
    [[package]]
    name = "package-${toString i}"
    version = "1.0.${toString i}"
    dependencies = ["a", "b"]
  '';
in
builtins.length
  (builtins.fromTOML (builtins.concatStringsSep "\n" (builtins.genList package (n / 8)))).package
