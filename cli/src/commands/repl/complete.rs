//! What Tab offers: commands, variables, attributes, paths.
//!
//! Attributes are those of the value in front of the dot, which is evaluated for it: at most [`TIME_MAX`] long, and what
//! fails offers nothing.

use std::path::Path;
use std::time::Duration;

use igloo_eval::Input;

use super::places::with_home;
use super::session::{Session, quoted};
use super::verbs::{VERBS, split};

/// How long an evaluation for a completion may take.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Where the completed part starts in the line, and what it could become.
pub fn complete(session: &mut Session, line: &str, pos: usize) -> (usize, Vec<String>) {
    let line = line.get(..pos).unwrap_or(line);
    if let Some(start) = line.find(':').filter(|i| line[..*i].trim().is_empty())
        && !line[start..].contains(char::is_whitespace)
    {
        let names = VERBS.iter().flat_map(|verb| verb.names).map(ToString::to_string);
        return (start, starting_with(names, &line[start..]));
    }
    if let Some((Some(verb), argument)) = split(line)
        && verb.argument == "<path>"
    {
        return paths(line.len() - argument.len(), argument);
    }
    let start = word_start(line, |c| !c.is_whitespace() && !"()[]{};=\"'".contains(c));
    let word = &line[start..];
    if ["/", "./", "../", "~/"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
    {
        return paths(start, word);
    }
    let start = word_start(line, |c| c.is_alphanumeric() || "_-'.\"".contains(c));
    match line[start..].rsplit_once('.') {
        Some((base, partial)) => (line.len() - partial.len(), attributes(session, base, partial)),
        None if line[start..].is_empty() => (start, Vec::new()),
        None => (start, variables(session, &line[start..])),
    }
}

fn word_start(line: &str, belongs: impl Fn(char) -> bool) -> usize {
    line.trim_end_matches(belongs).len()
}

fn starting_with(names: impl Iterator<Item = String>, prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn variables(session: &Session, prefix: &str) -> Vec<String> {
    let globals = session.evaluation.global_names();
    let names = session.scope.names().map(quoted);
    let globals = globals.iter().map(|name| quoted(name));
    starting_with(names.chain(globals), prefix)
}

fn attributes(session: &mut Session, base: &str, partial: &str) -> Vec<String> {
    let interrupt = session.interrupt.clone();
    let found = interrupt.within(TIME_MAX, || {
        let read = session.evaluation.read(base.as_bytes(), &session.scope);
        let Ok(Input::Value(value)) = read else {
            return None;
        };
        session.evaluation.attributes(value).ok()?
    });
    let found = found.unwrap_or_default();
    starting_with(found.iter().map(|(name, _)| quoted(name)), partial)
}

/// Entries of the folder a partial path names; folders end with a slash.
fn paths(start: usize, partial: &str) -> (usize, Vec<String>) {
    let (folder, prefix) = partial.rsplit_once('/').map_or(("", partial), |(f, p)| (f, p));
    let place = match (folder, partial.starts_with('/')) {
        ("", true) => "/".to_string(),
        ("", false) => ".".to_string(),
        _ => with_home(folder),
    };
    let Ok(entries) = std::fs::read_dir(Path::new(&place)) else {
        return (start, Vec::new());
    };
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let slash = if entry.path().is_dir() { "/" } else { "" };
        Some(format!("{name}{slash}"))
    });
    let is_hidden = prefix.starts_with('.');
    let names = names.filter(|name| is_hidden || !name.starts_with('.'));
    (start + partial.len() - prefix.len(), starting_with(names, prefix))
}
