{ x ? 5 }: { inherit x; }
