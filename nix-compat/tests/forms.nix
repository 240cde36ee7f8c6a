# Every form of derivation, with strings that need care.
let
  drv = args: derivation ({ name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; } // args);
  flat = algo: hash: drv { name = "flat-${algo}"; outputHashAlgo = algo; outputHash = hash; };
  recursive = algo: hash: drv {
    name = "recursive-${algo}"; outputHashAlgo = algo; outputHashMode = "recursive"; outputHash = hash;
  };
  md5 = builtins.hashString "md5" "";
  sha1 = builtins.hashString "sha1" "";
  sha256 = builtins.hashString "sha256" "";
  sha512 = builtins.hashString "sha512" "";
  sri = drv { name = "sri"; outputHash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="; };
  many = drv { name = "many"; outputs = [ "out" "dev" "a" "zz-top" ]; };
  lone = drv { name = "lone"; outputs = [ "lib" ]; };
  floating = drv {
    name = "floating"; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
    outputs = [ "out" "dev" ];
  };
  floatingFlat = drv {
    name = "floating-flat"; __contentAddressed = true; outputHashMode = "flat"; outputHashAlgo = "sha512";
  };
  impure = drv { name = "impure"; __impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  text = builtins.toFile "text" "refers to ${builtins.toFile "inner" "inner"}\n";
  chain = builtins.foldl' (before: n: drv { name = "chain-${toString n}"; inherit before; }) lone
    (builtins.genList (n: n) 300);
in [
  (flat "md5" md5) (flat "sha1" sha1) (flat "sha256" sha256) (flat "sha512" sha512)
  (recursive "md5" md5) (recursive "sha1" sha1) (recursive "sha256" sha256) (recursive "sha512" sha512)
  sri many lone floating floatingFlat impure chain
  (drv { name = "many-user"; a = many.dev; b = many; c = many.a; d = "${many}/${many.zz-top}"; })
  # another mirror of the same content: the user's output path must not change
  (drv { name = "fixed-user"; src = flat "sha256" sha256; })
  (drv { name = "fixed-user"; src = drv { name = "flat-sha256"; url = "mirror"; outputHashAlgo = "sha256"; outputHash = sha256; }; })
  (drv { name = "two-fixed"; a = flat "sha256" sha256; b = drv { name = "flat-sha256"; u = 1; outputHashAlgo = "sha256"; outputHash = sha256; }; })
  (drv { name = "deferred"; dep = floating.dev; })
  (drv { name = "deferred-twice"; dep = drv { name = "deferred"; dep = floating; }; })
  (drv { name = "floating-user"; dep = floating; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; })
  (drv { name = "impure-user"; dep = impure; __impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; })
  (drv { name = "sources"; a = ./source.txt; b = text; args = [ "-c" text ./source.txt ]; })
  (drv { name = "whole-closure"; graph = builtins.unsafeDiscardOutputDependency chain.drvPath; deep = many.drvPath; })
  (drv { name = "pass-as-file"; passAsFile = [ "big" ]; big = "line\nline\n"; })
  (drv {
    name = "structured"; __structuredAttrs = true; outputs = [ "out" "doc" ];
    list = [ 1 2.5 true null "s" ]; nested.a.b = { }; path = many.dev; quote = "\"\\\n\t\r";
  })
  (drv {
    name = "odd-strings"; args = [ "" "\"" "\\" "\\n" "\n\r\t" "é ☃ \${x} ''" "a\"b\\\"c\\" ];
    builder = "/odd \"builder\"\n"; "odd name" = "v"; "quote\"name\n" = "\\"; empty = ""; nothing = null; yes = true;
    control = "[${builtins.readFile ./odd-bytes}]";
  })
  (drv { name = "odd-system"; system = "odd system é"; })
  (drv { name = "out-in-env"; outputs = [ "out" "bin" ]; self = builtins.placeholder "out"; selfBin = builtins.placeholder "bin"; })
]
