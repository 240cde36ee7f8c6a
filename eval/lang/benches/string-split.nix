# `split` of a long text at every separator, as `lib.splitString` does.
n: builtins.length (builtins.split ":" (builtins.concatStringsSep ":" (builtins.genList (i: "/usr/lib") n)))
