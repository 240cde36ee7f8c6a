//! Documentation comments: `/** … */` in front of a function, or of the binding it is the value of.

/// The documentation comment that belongs to what starts where `before` ends.
pub(super) fn comment_before(before: &str) -> Option<String> {
    let here = before.trim_end();
    let comment = match comment_at_end(here) {
        Some(comment) => comment,
        None => {
            let name = here.strip_suffix('=')?.trim_end();
            let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '\'' | '.' | '"');
            comment_at_end(name.trim_end_matches(is_name).trim_end())?
        }
    };
    Some(without_indent(comment))
}

fn comment_at_end(text: &str) -> Option<&str> {
    let inner = text.strip_suffix("*/")?;
    let start = inner.rfind("/*")?;
    let body = inner[start..].strip_prefix("/**")?;
    // `/***` starts a comment for nobody in particular
    (!body.starts_with('*')).then_some(body)
}

/// The text without the spaces all its lines but the first start with, and without empty ends.
fn without_indent(comment: &str) -> String {
    let spaces = |line: &&str| line.len() - line.trim_start_matches(' ').len();
    let filled = comment.lines().skip(1).filter(|line| !line.trim().is_empty());
    let indent = filled.map(|line| spaces(&line)).min().unwrap_or(0);
    let mut lines: Vec<&str> = Vec::new();
    for (i, line) in comment.lines().enumerate() {
        let line = if i == 0 {
            line.trim_start()
        } else {
            line.get(indent..).unwrap_or_default()
        };
        lines.push(line.trim_end());
    }
    lines.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::comment_before;

    #[test]
    fn a_comment_belongs_to_the_function_after_it() {
        let doc = |text| comment_before(text);
        assert_eq!(doc("/** adds */ "), Some("adds".into()));
        assert_eq!(doc("{ /** adds */ a.b = "), Some("adds".into()));
        assert_eq!(
            doc("/**\n    one\n      two\n  */\n  f =\n"),
            Some("one\n  two".into())
        );
        assert_eq!(doc("/* adds */ f = "), None);
        assert_eq!(doc("/*** adds */ f = "), None);
        assert_eq!(doc("/** adds */ f = g "), None);
        assert_eq!(doc("x /** é */ "), Some("é".into()));
        assert_eq!(doc(""), None);
    }
}
