# `compareVersions`, `parseDrvName` and `splitVersion`.
n:
let
  step =
    sum: i:
    sum
    + builtins.compareVersions "2.3pre${toString i}" "2.3"
    + builtins.length (builtins.splitVersion "1.2.${toString i}a")
    + builtins.stringLength (builtins.parseDrvName "hello-world-${toString i}").version;
in
builtins.foldl' step 0 (builtins.genList (i: i) n)
