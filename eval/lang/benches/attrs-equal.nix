# `==` of nested sets and lists.
n:
let
  make = i: {
    a = [
      i
      "text"
      { b = i; }
    ];
    c.d = null;
  };
in
builtins.length (builtins.filter (i: make i == make i) (builtins.genList (i: i) n))
