# `genericClosure` over a graph where each node names two others.
n:
builtins.length (
  builtins.genericClosure {
    startSet = [ { key = 0; } ];
    operator =
      { key }:
      builtins.filter (next: next.key < n) [
        { key = key * 2 + 1; }
        { key = key * 2 + 2; }
      ];
  }
)
