# Plain calls: recursion with two calls each, no builtin.
n:
let
  fib = i: if i < 2 then i else fib (i - 1) + fib (i - 2);
  again = i: if i == 0 then 0 else fib 15 + again (i - 1);
in
again (n / 1000)
