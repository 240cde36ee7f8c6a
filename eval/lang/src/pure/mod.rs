//! Language-independent pieces: text formats, regular expressions, versions, sorting, paths.
