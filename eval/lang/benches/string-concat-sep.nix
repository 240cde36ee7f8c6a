# `concatStringsSep` of many short strings into one.
n: builtins.stringLength (builtins.concatStringsSep ", " (builtins.genList toString n))
