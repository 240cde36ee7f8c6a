//! Commands: one table of names, arguments, help and what they do.

use std::fmt::Write as _;

use igloo_eval::{Documentation, PromptDepth};

use super::session::{Done, Next, Session, Trouble, quoted};
use crate::commands::say_bytes;

/// A command.
pub struct Verb {
    /// Its names, the short one first.
    pub names: &'static [&'static str],
    /// What follows it.
    pub argument: &'static str,
    /// Whether that is an expression, which may take several lines.
    pub is_expression: bool,
    /// What it does, for `:?`.
    pub help: &'static str,
    /// Does it.
    pub run: fn(&mut Session, &str) -> Done,
}

const fn verb(
    names: &'static [&'static str],
    argument: &'static str,
    help: &'static str,
    run: fn(&mut Session, &str) -> Done,
) -> Verb {
    Verb {
        names,
        argument,
        is_expression: false,
        help,
        run,
    }
}

const fn on_expression(
    names: &'static [&'static str],
    help: &'static str,
    run: fn(&mut Session, &str) -> Done,
) -> Verb {
    Verb {
        is_expression: true,
        ..verb(names, "<expr>", help, run)
    }
}

/// All commands.
pub const VERBS: &[Verb] = &[
    on_expression(&[":a", ":add"], "Add the attributes of a set to the scope", add),
    on_expression(
        &[":b", ":build"],
        "Not done from here: names the derivation and says how it is built",
        build,
    ),
    on_expression(&[":bl"], "As :b", build),
    on_expression(&[":doc"], "Show the documentation of a function", document),
    on_expression(
        &[":e", ":edit"],
        "Open the definition of a package or function in $EDITOR",
        edit,
    ),
    verb(&[":env"], "", "Show the variables in scope", environment),
    on_expression(
        &[":i", ":instantiate"],
        "Instantiate a derivation and print its store path",
        instantiate,
    ),
    verb(
        &[":l", ":load"],
        "<path>",
        "Load a file and add its attributes to the scope",
        load,
    ),
    verb(
        &[":lf", ":load-flake"],
        "<ref>",
        "Load a flake and add its attributes to the scope",
        load_flake,
    ),
    verb(
        &[":ll", ":last-loaded"],
        "",
        "Show the variables added last",
        last_loaded,
    ),
    on_expression(&[":log"], "Show the log of a derivation's build", log),
    on_expression(
        &[":p", ":print"],
        "Evaluate and print a value with all it holds; a string as its own text",
        print,
    ),
    verb(&[":q", ":quit"], "", "Leave", quit),
    verb(
        &[":r", ":reload"],
        "",
        "Forget all variables and load all files again",
        reload,
    ),
    on_expression(
        &[":sh"],
        "Not done by igloo: a shell with what a derivation needs",
        shell,
    ),
    on_expression(
        &[":t", ":type"],
        "Say what kind of value an expression has",
        describe,
    ),
    verb(
        &[":te", ":trace-enable"],
        "[bool]",
        "Switch the showing of every call in errors on or off",
        trace,
    ),
    on_expression(&[":u"], "Not done by igloo: a shell with a package", shell),
    verb(&[":?", ":help"], "", "Show this", help),
];

/// The command an input starts with, and what follows; `None` when it is no command, no verb when it is unknown.
pub fn split(input: &str) -> Option<(Option<&'static Verb>, &str)> {
    let input = input.trim_start();
    if !input.starts_with(':') {
        return None;
    }
    let end = input.find(char::is_whitespace).unwrap_or(input.len());
    let (name, argument) = input.split_at(end);
    let verb = VERBS.iter().find(|verb| verb.names.contains(&name));
    Some((
        verb,
        argument.strip_prefix(char::is_whitespace).unwrap_or(argument),
    ))
}

fn add(session: &mut Session, text: &str) -> Done {
    let value = session.evaluate(text)?;
    session.add(value)?;
    Ok(Next::Continue)
}

fn load(session: &mut Session, file: &str) -> Done {
    let file = file.trim();
    session.load_file(if file.is_empty() { "." } else { file })?;
    Ok(Next::Continue)
}

fn load_flake(session: &mut Session, reference: &str) -> Done {
    session.load_flake(reference.trim())?;
    Ok(Next::Continue)
}

fn reload(session: &mut Session, _: &str) -> Done {
    session.reload()?;
    Ok(Next::Continue)
}

fn last_loaded(session: &mut Session, _: &str) -> Done {
    for name in session.last_added() {
        say_bytes(name)?;
    }
    Ok(Next::Continue)
}

fn environment(session: &mut Session, _: &str) -> Done {
    for name in session.scope.names() {
        say_bytes(quoted(name).as_bytes())?;
    }
    Ok(Next::Continue)
}

fn describe(session: &mut Session, text: &str) -> Done {
    let value = session.evaluate(text)?;
    let kind = session.evaluation.describe(value)?;
    say_bytes(kind.as_bytes())?;
    Ok(Next::Continue)
}

fn print(session: &mut Session, text: &str) -> Done {
    let value = session.evaluate(text)?;
    session.show(value, PromptDepth::Whole)?;
    Ok(Next::Continue)
}

fn document(session: &mut Session, text: &str) -> Done {
    let value = session.evaluate(text)?;
    let Some(documentation) = session.evaluation.documentation(value)? else {
        return Err(Trouble::Other("value does not have documentation".into()));
    };
    let answer = match documentation {
        Documentation::Builtin { name, args, text } => {
            format!("Synopsis: builtins.{name} {}\n\n{text}", args.join(" "))
        }
        Documentation::Function { name, location, text } => {
            let place = location.map_or_else(String::new, |place| place.to_string());
            let mut answer = match name {
                Some(name) => format!("Function {name}\n… defined at {place}"),
                None => format!("Function defined at {place}"),
            };
            if let Some(text) = text {
                answer.push_str("\n\n");
                answer.push_str(&text);
            }
            answer
        }
    };
    say_bytes(answer.as_bytes())?;
    Ok(Next::Continue)
}

fn derivation(session: &mut Session, text: &str) -> Result<String, Trouble> {
    let value = session.evaluate(text)?;
    let found = session.evaluation.derivation(value)?;
    found.map(|found| found.drv_path).ok_or_else(|| {
        Trouble::Other("expression does not evaluate to a derivation, so I can't build it".into())
    })
}

fn instantiate(session: &mut Session, text: &str) -> Done {
    let path = derivation(session, text)?;
    session.flush()?;
    say_bytes(path.as_bytes())?;
    Ok(Next::Continue)
}

fn build(session: &mut Session, text: &str) -> Done {
    let path = derivation(session, text)?;
    Err(Trouble::Other(format!(
        "'{path}' is not built from here yet\nhint: `igloo build -E EXPR` and `igloo build -f FILE -A ATTR` build"
    )))
}

fn shell(_: &mut Session, _: &str) -> Done {
    Err(Trouble::Other("igloo starts no shells".into()))
}

fn log(session: &mut Session, text: &str) -> Done {
    let path = derivation(session, text)?;
    Err(Trouble::Other(format!(
        "logs are not shown here\nhint: `igloo log {path}` prints the log of its last build"
    )))
}

fn edit(session: &mut Session, text: &str) -> Done {
    let value = session.evaluate(text)?;
    let Some((path, line)) = session.evaluation.definition(value)? else {
        return Err(Trouble::Other(format!(
            "package '{}' has no source location information",
            text.trim()
        )));
    };
    super::places::edit(&path, line)?;
    session.interrupt.clear();
    session.reload()?;
    Ok(Next::Continue)
}

fn trace(session: &mut Session, argument: &str) -> Done {
    session.show_trace = match argument.trim() {
        "" => !session.show_trace,
        "true" => true,
        "false" => false,
        other => return Err(Trouble::Other(format!("unexpected argument '{other}' to :te"))),
    };
    session.evaluation.set_show_trace(session.show_trace);
    let not = if session.show_trace { "" } else { "not " };
    say_bytes(format!("{not}showing error traces").as_bytes())?;
    Ok(Next::Continue)
}

fn quit(_: &mut Session, _: &str) -> Done {
    Ok(Next::Quit)
}

fn help(_: &mut Session, _: &str) -> Done {
    const WIDTH: usize = 29;
    let mut text = String::from("The following commands are available:\n\n");
    let mut row = |left: &str, right: &str| {
        let _ = writeln!(text, "  {left:WIDTH$}{right}"); // writing to a String cannot fail
    };
    row("<expr>", "Evaluate and print expression");
    row("<x> = <expr>", "Bind expression to variable");
    for verb in VERBS {
        row(&format!("{} {}", verb.names.join(", "), verb.argument), verb.help);
    }
    say_bytes(text.as_bytes())?;
    Ok(Next::Continue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_word_and_the_rest_its_argument() {
        let named = |input| split(input).map(|(verb, rest)| (verb.map(|v| v.names[0]), rest));
        assert_eq!(named(":t 1 + 2"), Some((Some(":t"), "1 + 2")));
        assert_eq!(named(" :type\n1"), Some((Some(":t"), "1")));
        assert_eq!(named(":t1"), Some((None, "")));
        assert_eq!(named("x: x"), None);
    }

    #[test]
    fn every_name_means_one_command() {
        let mut names: Vec<_> = VERBS.iter().flat_map(|verb| verb.names).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
