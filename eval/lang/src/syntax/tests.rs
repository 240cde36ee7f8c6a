//! The front end against what Nix's parser does.

use proptest::prelude::*;

use super::lexer::Lexer;
use super::parser::{DEPTH_MAX, parse};
use super::show::{Literal, show};
use super::token::Tok;
use crate::settings::{LintLevel, ParseSettings};
use crate::symbol::SymbolTable;

fn canonical(text: &str) -> Result<String, String> {
    let mut symbols = SymbolTable::new();
    let settings = ParseSettings {
        pipe_operators: true,
        ..ParseSettings::default()
    };
    let parsed = parse(text.as_bytes(), &mut symbols, &settings).map_err(|e| e.message)?;
    Ok(show(&parsed.ast, &symbols, &Literal, parsed.root))
}

fn tokens(text: &str) -> Vec<Tok> {
    let lexer = Lexer::new(text.as_bytes());
    let mut at = 0;
    let mut all = Vec::new();
    loop {
        let token = lexer.next(at);
        if token.tok == Tok::End {
            return all;
        }
        all.push(token.tok);
        at = token.end;
    }
}

#[test]
fn longest_token_wins() {
    assert_eq!(tokens("a/b"), [Tok::Path]);
    assert_eq!(tokens("a / b"), [Tok::Id, Tok::Byte(b'/'), Tok::Id]);
    assert_eq!(tokens("1/2"), [Tok::Path]);
    assert_eq!(tokens("x:y"), [Tok::Uri]);
    assert_eq!(tokens("x: y"), [Tok::Id, Tok::Byte(b':'), Tok::Id]);
    assert_eq!(tokens("a.b"), [Tok::Id, Tok::Byte(b'.'), Tok::Id]);
    assert_eq!(
        tokens("1.5e3 .5 0.5 1. 00.5"),
        [
            Tok::Float,
            Tok::Float,
            Tok::Float,
            Tok::Float,
            Tok::Int,
            Tok::Float
        ]
    );
    assert_eq!(tokens("<a/b> <a"), [Tok::SearchPath, Tok::Byte(b'<'), Tok::Id]);
    assert_eq!(
        tokens("~/a ../b a//b"),
        [Tok::HomePath, Tok::Path, Tok::Id, Tok::Update, Tok::Id]
    );
    assert_eq!(
        tokens("a-b'c if iff # x\n/* y */ or"),
        [Tok::Id, Tok::If, Tok::Id, Tok::Or]
    );
}

#[test]
fn operators_bind_as_in_nix() {
    let cases = [
        ("1 + 2 * 3 - 4", "(__sub (1 + (__mul 2 3)) 4)"),
        ("a -> b -> c || d && e", "(a -> (b -> (c || (d && e))))"),
        ("!a == b", "((! a) == b)"),
        ("!a // b", "((! a) // b)"),
        ("!a + b", "(! (a + b))"),
        ("-a ? b", "(((__sub 0 a)) ? b)"),
        ("a ++ b ++ c", "(a ++ (b ++ c))"),
        ("a // b // c", "(a // (b // c))"),
        ("f a.b or c d", "(f (a).b or (c) d)"),
        ("a <= b", "(! (__lessThan b a))"),
        ("x |> f |> g", "(g (f x))"),
        ("g <| f <| x", "(g (f x))"),
        ("let { a = 1; body = a; }", "(rec { a = 1; body = a; }).body"),
        ("{ a.b = 1; a.c = 2; }", "{ a = { b = 1; c = 2; }; }"),
        (
            "{ x = { a = 1; }; x.b = 2; inherit y; inherit (z) q; }",
            "{ inherit y; inherit (z) q; x = { a = 1; b = 2; }; }",
        ),
        ("{ a, b ? 1, ... }@c: a", "({ a, b ? 1, ... } @ c: a)"),
        ("(f a) b (c - d) e", "(f a b (__sub c d) e)"),
        ("(c - d) e", "(__sub c d e)"),
        ("[ 1 or 2 ]", "[ ((1 or)) (2) ]"),
    ];
    for (text, expected) in cases {
        assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn strings_are_stripped_and_unescaped() {
    assert_eq!(canonical("''\n  a\n   b\n  ''").as_deref(), Ok("\"a\\n b\\n\""));
    assert_eq!(
        canonical("''\n    ''${x}\n  y''").as_deref(),
        Ok("(\"  \" + \"$\" + \"{x}\\ny\")")
    );
    assert_eq!(
        canonical("''a'''b''\\tc''").as_deref(),
        Ok("(\"a\" + \"''\" + \"b\" + \"\\t\" + \"c\")")
    );
    assert_eq!(canonical("\"$$${x} $\"").as_deref(), Ok("(\"$$\" + x + \" $\")"));
    assert_eq!(canonical("\"a\r\nb\"").as_deref(), Ok("\"a\\nb\""));
}

#[test]
fn errors_are_worded_as_in_nix() {
    let cases = [
        (
            "a.if",
            "syntax error, unexpected 'if', expecting identifier or 'or' or '${' or '\"'",
        ),
        ("if 1 else", "syntax error, unexpected 'else', expecting 'then'"),
        (
            "{ a ... }",
            "syntax error, unexpected '...', expecting '.' or '='",
        ),
        ("1 == 2 == 3", "syntax error, unexpected '=='"),
        ("\"a", "syntax error, unexpected end of file, expecting '\"'"),
        ("{x, y, x}: x", "duplicate formal function argument 'x'"),
        ("./a/", "path has a trailing slash"),
        ("let ${a} = 1; in 2", "dynamic attributes not allowed in let"),
        ("9223372036854775808", "invalid integer '9223372036854775808'"),
    ];
    for (text, expected) in cases {
        assert_eq!(canonical(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = DEPTH_MAX as usize + 10;
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{a=", ";}"),
        ("\"${", "}\""),
        ("x: ", ""),
    ] {
        let text = format!("{}1{}", open.repeat(deep), close.repeat(deep));
        let result = std::thread::Builder::new()
            .stack_size(256 << 20)
            .spawn(move || canonical(&text).map(drop));
        let result = result.ok().and_then(|t| t.join().ok());
        assert_eq!(result, Some(Err("memory exhausted".to_owned())), "{open}");
    }
}

#[test]
fn lints_warn_or_fail() {
    let mut symbols = SymbolTable::new();
    let settings = |level| ParseSettings {
        lint_url_literals: level,
        ..ParseSettings::default()
    };
    let warned = parse(b"http://x", &mut symbols, &settings(LintLevel::Warn)).map(|p| p.warnings.len());
    assert_eq!(warned, Ok(1));
    assert!(parse(b"http://x", &mut symbols, &settings(LintLevel::Fatal)).is_err());
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-e]".prop_map(String::from),
        (0i64..100).prop_map(|n| n.to_string()),
        "[a-z $\\\\\"]{0,6}".prop_map(|s| {
            let mut out = Vec::new();
            crate::pure::string_ops::print_string(&mut out, s.as_bytes());
            String::from_utf8_lossy(&out).into_owned()
        }),
        Just("./p".to_owned()),
    ];
    leaf.prop_recursive(5, 60, 4, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (
                two.clone(),
                prop::sample::select(vec!["+", "-", "*", "//", "++", "==", "->", "&&", "||", "<", ">="])
            )
                .prop_map(|((a, b), op)| format!("({a} {op} {b})")),
            two.clone().prop_map(|(a, b)| format!("({a} {b})")),
            two.clone()
                .prop_map(|(a, b)| format!("{{ a = {a}; b.c = {b}; }}")),
            two.clone().prop_map(|(a, b)| format!("(let a = {a}; in {b})")),
            two.prop_map(|(a, b)| format!("({{ a ? {a}, ... }}: {b})")),
            inner.clone().prop_map(|a| format!("({a}).x.y or 1")),
            inner.clone().prop_map(|a| format!("\"s${{{a}}}\"")),
            prop::collection::vec(inner, 0..3).prop_map(|v| {
                format!(
                    "[ {} ]",
                    v.iter().map(|x| format!("({x})")).collect::<Vec<_>>().join(" ")
                )
            }),
        ]
    })
}

proptest! {
    /// The canonical form of an expression is an expression with the same canonical form.
    #[test]
    fn canonical_form_is_stable(text in expression()) {
        let once = canonical(&text).map_err(TestCaseError::fail)?;
        // `__sub` and its like are printed as calls of a name: parsing that name again gives the same call.
        let twice = canonical(&once).map_err(TestCaseError::fail)?;
        prop_assert_eq!(once, twice);
    }

    /// No bytes make the parser panic or read past the end.
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut symbols = SymbolTable::new();
        let _ = parse(&bytes, &mut symbols, &ParseSettings::default()).map(|p| show(&p.ast, &symbols, &Literal, p.root));
    }

    /// Neither does any text made of the language's own pieces.
    #[test]
    fn any_pieces_are_parsed_or_refused(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "(", ")", "[", "]", "let", "in", "rec", "inherit", "with", "assert", "if", "then", "else", "a", "b",
        "1", ".", "=", ";", ":", "@", "?", "...", "\"", "''", "${", "$", "\\", "./a", "~/a", "<a>", "/", "//", "or", "-",
        "!", "==", "\n", " ", "#", "/*", "*/", "'", "x:y",
    ]), 0..40)) {
        let mut symbols = SymbolTable::new();
        let text = pieces.concat();
        let parsed = parse(text.as_bytes(), &mut symbols, &ParseSettings::default());
        let _ = parsed.map(|p| show(&p.ast, &symbols, &Literal, p.root));
    }
}
