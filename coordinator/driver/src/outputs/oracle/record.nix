# What the floating outputs here were recorded from, with Nix 2.34 in a private store, sandboxed. `tools` is any static
# busybox. NAME.drv is the derivation after its resolution, NAME.txt what Nix registered: of each output its name, path, NAR
# hash and size, content address, realisation id and references.
{ tools }:
let
  run = script: extra: derivation ({ name = "t"; system = "x86_64-linux"; builder = "${tools}/bin/sh"; args = [ "-e" "-c" ("PATH=${tools}/bin; " + script) ]; } // extra);
  floating = script: extra: run script ({ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; } // extra);
  a = run "echo a > $out" { name = "a"; };
in
{
  plain = floating "echo hello > $out" { name = "plain"; };
  itself = floating "mkdir $out; echo $out > $out/self; echo twice $out $out > $out/two; ln -s $out/self $out/link; touch $out/$(printf '%s' $out | tr / _); printf '#!%s' $out > $out/x; chmod +x $out/x" { name = "itself"; };
  several = floating "mkdir $out $lib $dev; echo $lib $out > $out/f; echo $lib > $lib/f; echo $out > $dev/f; echo ${a} >> $dev/f" { name = "several"; outputs = [ "out" "lib" "dev" ]; };
  flat = floating "echo hi > $out" { name = "flat"; outputHashMode = "flat"; };
  sha512 = floating "echo x > $out" { name = "sha512"; outputHashAlgo = "sha512"; };
  text = floating "echo ${a} > $out" { name = "text"; outputHashMode = "text"; };
  discarded = floating "echo ${placeholder "lib"} ${placeholder "out"} ${a} > ${placeholder "out"}; echo x > ${placeholder "lib"}" { name = "discarded"; __structuredAttrs = true; outputs = [ "out" "lib" ]; unsafeDiscardReferences.out = true; };
}
