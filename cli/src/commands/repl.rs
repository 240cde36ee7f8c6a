//! `igloo repl`: expressions typed one after another.
//!
//! Map: [`session`] what a text or a command does; [`verbs`] the table of commands; [`line`] reading lines, from a terminal
//! or a pipe; [`complete`] what Tab offers; [`interrupt`] Ctrl-C while something is evaluated.
//!
//! Commands and output are those of `nix repl` in Nix 2.34, except where `cli/tests/repl.rs` says otherwise.

mod complete;
mod interrupt;
mod line;
mod places;
mod session;
mod verbs;

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::rc::Rc;

use igloo_eval::PromptStyle;
use igloo_store_io::Writes;

use crate::args::ReplArguments;
use crate::context::Context;
use crate::evaluation::{self, Request};
use crate::failure::Failure;
use crate::stores;
use interrupt::Interrupt;
use line::{Lines, Read};
use session::{Next, Session};

/// Reads and answers until the input ends.
pub fn run(context: &Context, arguments: ReplArguments) -> Result<(), Failure> {
    let request = Request {
        arguments: arguments.expressions.arguments(),
        options: arguments.expressions.options(),
        show_trace: arguments.expressions.show_trace,
        search: arguments.expressions.include,
        ..Request::default()
    };
    let is_interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let interrupt = Interrupt::default();
    if is_interactive {
        interrupt.listen()?;
    }
    let writes = if stores::is_dummy() {
        Writes::Computed
    } else {
        Writes::Stored
    };
    let opened = evaluation::open(context, &request, writes, interrupt.flag())?;
    let mut session = Session::new(opened, style(context, is_interactive), interrupt);
    session.start(&arguments.files, arguments.expr.as_deref());
    let session = Rc::new(RefCell::new(session));
    let history = arguments
        .history
        .unwrap_or_else(|| context.state_dir.join("repl-history"));
    let mut lines = Lines::open(is_interactive, history, &session)?;
    if is_interactive {
        let version = env!("CARGO_PKG_VERSION");
        eprintln!("igloo {version}, the language of Nix 2.34\nType :? for help.\n");
    }
    loop {
        match lines.read()? {
            Read::End => return session.borrow().flush(),
            Read::Cleared => {}
            Read::Input(input) => {
                let next = session.borrow_mut().process(&input)?;
                if is_interactive {
                    crate::commands::say_bytes(b"")?;
                }
                if next == Next::Quit {
                    return session.borrow().flush();
                }
            }
        }
    }
}

fn style(context: &Context, is_interactive: bool) -> PromptStyle {
    let no_color = context.environment.get(&b"NO_COLOR"[..]);
    let no_color = no_color.is_some_and(|value| !value.is_empty());
    if is_interactive && !no_color {
        PromptStyle::Colored
    } else {
        PromptStyle::Plain
    }
}
