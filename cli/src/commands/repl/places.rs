//! Names of files and flakes as they are typed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use super::session::Trouble;
use crate::evaluation::absolute;

/// `~` and `~/…` with the home directory.
pub fn with_home(name: &str) -> String {
    match (name.strip_prefix('~'), std::env::var("HOME")) {
        (Some(rest), Ok(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => name.to_string(),
    }
}

/// A flake reference; one that is a path by its looks is made absolute, as on Nix's command line.
pub fn flake(reference: &str) -> String {
    let reference = reference.trim();
    if reference.is_empty() || reference.starts_with(['.', '/', '~']) {
        let path = absolute(&with_home(if reference.is_empty() { "." } else { reference }));
        return String::from_utf8_lossy(&path).into_owned();
    }
    reference.to_string()
}

/// Opens a file at a line in `$VISUAL` or `$EDITOR`, whose words are split at spaces, and waits until it is closed.
pub fn edit(path: &[u8], line: u32) -> Result<(), Trouble> {
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()));
    let Some(editor) = editor else {
        return Err(Trouble::Other(
            "no editor is known\nhint: set the environment variable EDITOR".into(),
        ));
    };
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words);
    // editors that are known to take a line
    if ["emacs", "nano", "vi", "kak"]
        .iter()
        .any(|name| program.contains(name))
    {
        command.arg(format!("+{line}"));
    }
    command.arg(OsStr::from_bytes(path));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Trouble::Other(format!("the editor '{program}' failed: {status}"))),
        Err(error) => Err(Trouble::Other(format!(
            "cannot start the editor '{program}': {error}"
        ))),
    }
}
