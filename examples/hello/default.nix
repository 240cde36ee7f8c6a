# GNU hello from its source archive, with a C toolchain made of Debian packages.
#
# The arguments are store paths: the helper of src/enter.rs, the toolchain, two source archives. `about` is built and
# imported while the expression is evaluated: what stands in the archive names the build that follows.
{ enter, toolchain, helloArchive, mawkArchive, system ? builtins.currentSystem }:

let
  inherit (builtins) storePath;

  # a derivation that runs a script in the toolchain; its variables are those of the script
  run = name: script: variables: derivation ({
    inherit name system;
    builder = storePath enter;
    args = [ (storePath toolchain) "/bin/sh" "-ec" script ];
    PATH = "/usr/bin";
  } // variables);
in

rec {
  about = run "about-hello" ''
    tar -xf $archive --wildcards --strip-components=1 '*/configure'
    version=$(sed -n "s/^PACKAGE_VERSION='\(.*\)'$/\1/p" configure)
    test -n "$version"
    echo "{ version = \"$version\"; }" > $out
  '' { archive = storePath helloArchive; };

  source = run "hello-source" ''
    mkdir unpacked
    tar -xf $archive -C unpacked
    cp -r unpacked/* $out
  '' { archive = storePath helloArchive; };

  mawk = run "mawk" ''
    tar -xf $archive
    cd mawk-*
    ./configure --prefix=$out CFLAGS=-O1 LDFLAGS=-static
    make -j2
    make install
    ln -s mawk $out/bin/awk
  '' { archive = storePath mawkArchive; };

  # timestamps are kept: all are the same in the store, and make must not find a generated file out of date
  hello = run "hello-${(import about).version}" ''
    export PATH=$mawk/bin:$PATH
    test "$(command -v awk)" = $mawk/bin/awk
    cp -r --preserve=timestamps $source hello
    chmod -R u+w hello
    cd hello
    ./configure --prefix=$out --disable-nls --disable-dependency-tracking CFLAGS=-O1 LDFLAGS=-static
    make -j2
    make install
  '' { inherit source mawk; };
}
