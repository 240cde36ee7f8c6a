# Recorded with these hashes from nix-build of Nix 2.8 and 2.34: the output paths in ../fetchurl.rs.
{ base }:
let
  fetch = import <nix/fetchurl.nix>;
  plain = "f3877e8a3d98f809d9f844060fbea2864a4b66980a22ff22297014d0c168db2e";
  tree = "5d5ac0b79d9408e22c0ad90ae1c734bd4be894e670e9e0152f2d805b4e98c970";
in
{
  plain = fetch { url = base + "plain"; sha256 = plain; };
  moved = fetch { url = base + "moved"; sha256 = plain; name = "plain"; };
  prog = fetch {
    url = base + "prog";
    executable = true;
    sha256 = "5e0accf02cedede5e4119ffa15e79e79a5fb1fb9bc43c3d434f33227a14477a0";
  };
  nar = fetch { url = base + "t.nar"; unpack = true; sha256 = tree; };
  xz = fetch { url = base + "t.nar.xz"; unpack = true; sha256 = tree; };
  wrong = fetch {
    url = base + "plain";
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  };
  gone = fetch { url = base + "nothere"; sha256 = plain; };
  notnar = fetch { url = base + "plain"; unpack = true; sha256 = tree; };
  notxz = fetch { url = base + "torn.xz"; unpack = true; sha256 = tree; };
}
