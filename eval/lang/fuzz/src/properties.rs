//! What must hold for any bytes whatever. A violation panics.

use std::rc::Rc;

use igloo_eval::io::MemoryIo;
use igloo_eval::{Error, ErrorKind, Evaluation, Format, Origin, Root, Settings};
use nix_compat::store_path::StoreDir;

/// Calls an evaluation may make: some milliseconds.
const STEPS_MAX: u64 = 20_000;
/// Bytes its values may take.
const HEAP_BYTES_MAX: usize = 64 << 20;
/// Calls that may be open at once, and a stack that has room for them.
const DEPTH_MAX: u32 = 1_000;
const STACK_BYTES: usize = 16 << 20;

/// Lexer and parser: an error lies in the text. A text that is accepted prints to one that is read as itself: from the second
/// print on nothing changes. (The first print of a string of three parts, `(a + b + c)`, reads as two sums, in Nix too.)
pub fn parse(bytes: &[u8]) {
    let mut evaluation = evaluation();
    let Some(first) = printed(&mut evaluation, bytes) else {
        return;
    };
    let Some(second) = printed(&mut evaluation, &first) else {
        return;
    };
    // a computed name is printed in parentheses, which its own text then has once more, in Nix too
    if contains(&first, b"\"${") {
        return;
    }
    let third = printed(&mut evaluation, &second).map(String::from_utf8);
    assert_eq!(
        third,
        Some(String::from_utf8(second)),
        "printed, it reads as another"
    );
}

/// The text printed; nothing where it is refused. Names that are no identifiers are printed as they are, which Nix does
/// too, so that a printed text may be refused as well.
fn printed(evaluation: &mut Evaluation, text: &[u8]) -> Option<Vec<u8>> {
    match evaluation.parse(text, &Origin::String) {
        Ok(printed) => Some(printed.into_bytes()),
        Err(error) => {
            check(&error, text);
            None
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The whole language: evaluating twice gives the same value, text for text, or the same error.
pub fn evaluate(bytes: &[u8]) {
    let first = answers(bytes);
    assert_eq!(first, answers(bytes), "a second evaluation differs");
}

/// Documents of other formats, read by builtins: JSON that is accepted comes back from `toJSON` as what reads the same.
pub fn documents(bytes: &[u8]) {
    let mut evaluation = evaluation();
    let text = evaluation.string(bytes);
    let arguments = [("text".to_owned(), text)];
    for call in [
        "{ text }: builtins.fromJSON text",
        "{ text }: builtins.fromTOML text",
        "{ text }: builtins.match text text",
        "{ text }: builtins.split text \"a.b-c/d\"",
        "{ text }: [ (builtins.parseDrvName text) (builtins.splitVersion text) (builtins.compareVersions text \"1.2pre3\") ]",
        "{ text }: builtins.hasContext (builtins.appendContext \"\" { ${text} = { path = true; }; })",
        "{ text }: builtins.hashString \"sha256\" text",
        "{ text }: builtins.convertHash { hash = text; hashAlgo = \"sha256\"; toHashFormat = \"base16\"; }",
    ] {
        if let Err(error) = called(&mut evaluation, call, &arguments) {
            let _ = error.render(true);
        }
    }
    let Ok(json) = called(
        &mut evaluation,
        "{ text }: builtins.toJSON (builtins.fromJSON text)",
        &arguments,
    ) else {
        return;
    };
    let again = evaluation.string(&json);
    let again = called(
        &mut evaluation,
        "{ text }: builtins.toJSON (builtins.fromJSON (builtins.fromJSON text))",
        &[("text".to_owned(), again)],
    );
    assert_eq!(
        again.as_deref().ok(),
        Some(&json[..]),
        "written, it reads as another"
    );
}

fn called(
    evaluation: &mut Evaluation,
    function: &str,
    arguments: &[(String, Root)],
) -> Result<Vec<u8>, Error> {
    let function = evaluation.eval_text(function.as_bytes(), Origin::String)?;
    let value = evaluation.auto_call(function, arguments)?;
    evaluation.print(value, Format::Json, true)
}

/// The value in every format, or the error.
fn answers(bytes: &[u8]) -> Vec<Result<String, String>> {
    let mut evaluation = evaluation();
    let shown = |error: Error| {
        let _ = error.render(false);
        error.render(true)
    };
    let root = match evaluation.eval_text(bytes, Origin::String) {
        Ok(root) => root,
        Err(error) => {
            if error.kind == ErrorKind::Syntax {
                check(&error, bytes);
            }
            return vec![Err(shown(error))];
        }
    };
    let formats = [Format::Nix, Format::Json, Format::Xml { location: true }];
    let mut print = |format| match evaluation.print(root, format, true) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) => Err(shown(error)),
    };
    formats.into_iter().map(&mut print).collect()
}

/// An error can be shown, and its place is in the text.
fn check(error: &Error, text: &[u8]) {
    let _ = (error.render(false), error.render(true), error.code());
    let lines = text.split(|byte| b"\r\n".contains(byte)).count(); // a carriage return alone ends a line too, as in Nix
    if let Some(location) = &error.location
        && location.origin == Origin::String
    {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX);
        assert!((1..=lines).contains(&line), "line {line} of {lines}");
    }
}

fn evaluation() -> Evaluation {
    let dir = StoreDir::default();
    let world = MemoryIo::new(dir)
        .with_file("/src/a.nix", b"{ x = 1; y = ./b.nix; }")
        .with_file("/src/text", b"hello")
        .with_env("HOME", "/home/me");
    let settings = Settings {
        base_dir: "/src".to_owned(),
        home: Some("/home/me".to_owned()),
        current_system: Some("x86_64-linux".to_owned()),
        max_steps: STEPS_MAX,
        max_heap_bytes: HEAP_BYTES_MAX,
        max_call_depth: DEPTH_MAX,
        stack_bytes: STACK_BYTES,
        ..Settings::default()
    };
    Evaluation::new(settings, Rc::new(world))
}
