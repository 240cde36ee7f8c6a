# `replaceStrings` with several patterns in a long text.
n:
let
  text = builtins.concatStringsSep " " (builtins.genList (i: "the <quick> & brown fox") n);
in
builtins.stringLength (
  builtins.replaceStrings [ "<" ">" "&" "\"" "'" ] [ "&lt;" "&gt;" "&amp;" "&quot;" "&apos;" ] text
)
