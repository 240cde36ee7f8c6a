# `derivationStrict` in a chain, each derivation depending on the one before.
n:
let
  make =
    before: i:
    derivation {
      name = "package-${toString i}";
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = [
        "-c"
        "echo ${toString before} > $out"
      ];
      inherit before;
      outputs = [
        "out"
        "dev"
      ];
    };
  step =
    before: i:
    let
      this = make before i;
    in
    builtins.seq this.drvPath this;
in
(builtins.foldl' step "" (builtins.genList (i: i) n)).drvPath
