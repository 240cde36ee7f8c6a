let
in
