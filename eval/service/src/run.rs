//! An evaluation from its request to its end, on the thread that calls.
//!
//! Source: what `nix-instantiate` does with its inputs (`src/nix/nix-instantiate/nix-instantiate.cc`, `lookupFileArg`).

use std::collections::BTreeSet;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;
use igloo_eval::{
    Answer, Error, EvalIo, Evaluation, FoundDerivation, Origin, Question, Ready, Root, Wanted, ask_on_threads,
};
use igloo_status::Code;
use nix_compat::derivation::OutputName;

use crate::evaluator::EvaluateError;
use crate::event::{EvaluateEvent, Goal};
use crate::request::{Argument, EvaluateRequest, Input, Output};
use crate::settings::absolute;

/// Hears goals and printed values in order; ends the evaluation with false.
pub type Tell<'a> = dyn FnMut(EvaluateEvent) -> bool + 'a;

/// Further threads for an evaluation.
#[derive(Clone, Copy)]
pub struct Threads<'a> {
    /// How many.
    pub count: NonZero<usize>,
    /// A fresh evaluation in the same world, for the thread that calls.
    pub open: &'a (dyn Fn() -> (Evaluation, Rc<dyn EvalIo>) + Sync),
    /// Takes it back there, when it is done.
    pub close: &'a (dyn Fn(Evaluation) + Sync),
}

/// Evaluates what the request asks for in an evaluation that was made for it, and tells every goal and printed value as
/// soon as it is known. Several attributes are evaluated on `threads`, where there are several.
///
/// # Errors
/// [`EvaluateError::Failed`] with the whole text of what went wrong.
pub fn run(
    evaluation: &mut Evaluation,
    io: &dyn EvalIo,
    request: &EvaluateRequest,
    show_trace: bool,
    threads: Option<Threads<'_>>,
    tell: &mut Tell<'_>,
) -> Result<(), EvaluateError> {
    let mut run = Run {
        evaluation,
        io,
        request,
        threads: threads.filter(|threads| threads.count.get() > 1),
        tell,
    };
    match run.all() {
        Ok(()) | Err(Trouble::Enough) => Ok(()),
        Err(Trouble::Eval(error)) => Err(failed(&error, show_trace)),
        Err(Trouble::Other(error)) => Err(error),
    }
}

/// An error of the evaluation as its callers get it.
#[must_use]
pub fn failed(error: &Error, show_trace: bool) -> EvaluateError {
    EvaluateError::Failed {
        text: error.render(show_trace),
        exit: error.exit,
        code: error.code(),
    }
}

/// What ends an evaluation early.
enum Trouble {
    Eval(Error),
    Other(EvaluateError),
    /// Nobody listens any more.
    Enough,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Eval(error)
    }
}

struct Run<'a, 't> {
    evaluation: &'a mut Evaluation,
    io: &'a dyn EvalIo,
    request: &'a EvaluateRequest,
    threads: Option<Threads<'a>>,
    tell: &'a mut Tell<'t>,
}

impl Run<'_, '_> {
    fn all(&mut self) -> Result<(), Trouble> {
        if let (Some(threads), [_, _, ..]) = (self.threads, self.request.attributes.as_slice()) {
            let mut inputs = self.request.inputs.iter();
            return inputs.try_for_each(|input| self.parts_on(threads, input));
        }
        let arguments = arguments(self.evaluation, self.request)?;
        let whole = [String::new()];
        let attributes = match self.request.attributes.as_slice() {
            [] => &whole[..],
            attributes => attributes,
        };
        for input in &self.request.inputs {
            let root = root_of(self.evaluation, self.io, self.request, input)?;
            match attributes {
                // goals are told as they are found in it
                [attribute] => {
                    let value = self.evaluation.select(root, attribute, &arguments)?;
                    self.part(attribute, value, &arguments)?;
                }
                // while one has to wait, those after it go on
                attributes => self.parts(root, attributes, &arguments)?,
            }
        }
        Ok(())
    }

    fn part(&mut self, attribute: &str, value: Root, arguments: &[(String, Root)]) -> Result<(), Trouble> {
        let Output::Printed { format, strict } = self.request.output else {
            return self.goals(attribute, value, arguments);
        };
        let value = match arguments {
            [] => value,
            arguments => self.evaluation.auto_call(value, arguments)?,
        };
        let text = self.evaluation.print(value, format, strict)?;
        say(self.tell, EvaluateEvent::Printed(Bytes::from(text)))
    }

    fn goals(&mut self, attribute: &str, value: Root, arguments: &[(String, Root)]) -> Result<(), Trouble> {
        let mut told = Ok(());
        let (io, tell) = (self.io, &mut *self.tell);
        self.evaluation.derivations(value, arguments, &mut |found| {
            told = tell_goal(io, tell, attribute, &found);
            flow(&told)
        })?;
        told
    }

    fn parts(
        &mut self,
        root: Root,
        attributes: &[String],
        arguments: &[(String, Root)],
    ) -> Result<(), Trouble> {
        let question = self.question(!arguments.is_empty());
        let mut told = Ok(());
        let mut each = each(self.io, &mut *self.tell, attributes, &mut told);
        self.evaluation
            .ask(root, attributes, arguments, question, &mut each)?;
        drop(each);
        told
    }

    /// The same on several threads, each of which evaluates the input for itself.
    fn parts_on(&mut self, threads: Threads<'_>, input: &Input) -> Result<(), Trouble> {
        let request = self.request;
        let question = self.question(!request.arguments.is_empty());
        let start = || {
            let (mut evaluation, io) = (threads.open)();
            let args = arguments(&mut evaluation, request)?;
            let root = root_of(&mut evaluation, &*io, request, input)?;
            Ok::<_, Trouble>(Ready {
                evaluation,
                root,
                args,
            })
        };
        let end = |ready: Ready| (threads.close)(ready.evaluation);
        let attributes = &request.attributes;
        let mut told = Ok(());
        let mut each = each(self.io, &mut *self.tell, attributes, &mut told);
        ask_on_threads(threads.count, start, end, attributes, question, &mut each)?;
        drop(each);
        told
    }

    fn question(&self, has_arguments: bool) -> Question {
        match self.request.output {
            Output::Goals => Question {
                what: Wanted::Derivations,
                call: true,
            },
            Output::Printed { format, strict } => Question {
                what: Wanted::Text { format, strict },
                call: has_arguments,
            },
        }
    }
}

/// Tells answers for `attributes`, in their order.
fn each<'a>(
    io: &'a dyn EvalIo,
    tell: &'a mut Tell<'_>,
    attributes: &'a [String],
    told: &'a mut Result<(), Trouble>,
) -> impl FnMut(Answer) -> ControlFlow<()> {
    let mut names = attributes.iter();
    move |answer| {
        let name = names.next().map_or("", String::as_str);
        *told = match answer {
            Answer::Derivations(all) => all.iter().try_for_each(|found| tell_goal(io, tell, name, found)),
            Answer::Text(text) => say(tell, EvaluateEvent::Printed(text.into())),
        };
        flow(told)
    }
}

fn arguments(evaluation: &mut Evaluation, request: &EvaluateRequest) -> Result<Vec<(String, Root)>, Trouble> {
    let mut arguments = Vec::with_capacity(request.arguments.len());
    for argument in &request.arguments {
        arguments.push(match argument {
            Argument::Expression(name, text) => (name.clone(), evaluation.eval_text(text, Origin::String)?),
            Argument::Text(name, text) => (name.clone(), evaluation.string(text.as_bytes())),
        });
    }
    Ok(arguments)
}

/// The value of an input.
fn root_of(
    evaluation: &mut Evaluation,
    io: &dyn EvalIo,
    request: &EvaluateRequest,
    input: &Input,
) -> Result<Root, Trouble> {
    let file = match input {
        Input::Text(text) => return Ok(evaluation.eval_text(text, Origin::String)?),
        Input::Stdin(text) => return Ok(evaluation.eval_text(text, Origin::Stdin)?),
        Input::File(file) => file,
    };
    let name = file.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let path = match name {
        Some(name) => evaluation.look_up(name)?,
        None => place_of(io, request, file)?,
    };
    Ok(evaluation.eval_file(&path)?)
}

/// A file of this machine, or what a URL gives.
fn place_of(io: &dyn EvalIo, request: &EvaluateRequest, file: &str) -> Result<Vec<u8>, Trouble> {
    let fetched = io.resolve_search_path(file).map_err(|error| {
        Trouble::Other(EvaluateError::Failed {
            text: format!("error: {error}"),
            exit: EXIT_FAILED,
            code: error.code(),
        })
    })?;
    Ok(fetched.unwrap_or_else(|| absolute(&request.base_dir, file).into_bytes()))
}

fn flow(told: &Result<(), Trouble>) -> ControlFlow<()> {
    match told {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

fn say(tell: &mut Tell<'_>, event: EvaluateEvent) -> Result<(), Trouble> {
    if tell(event) { Ok(()) } else { Err(Trouble::Enough) }
}

fn tell_goal(
    io: &dyn EvalIo,
    tell: &mut Tell<'_>,
    attribute: &str,
    found: &FoundDerivation,
) -> Result<(), Trouble> {
    let goal = goal(io, attribute, found).map_err(Trouble::Other)?;
    say(tell, EvaluateEvent::Goal(goal))
}

const EXIT_FAILED: u8 = 1;

/// As `nix-build` does: what is built of a derivation is the output the value names (`outputName`).
fn goal(io: &dyn EvalIo, attribute: &str, found: &FoundDerivation) -> Result<Goal, EvaluateError> {
    let wrong = |reason: String| EvaluateError::Failed {
        text: format!("error: {reason}"),
        exit: EXIT_FAILED,
        code: Code::InvalidArgument,
    };
    let drv = io.store_dir().parse(&found.drv_path);
    let output = OutputName::new(&found.output_name);
    Ok(Goal {
        attribute: match (attribute, found.attribute.as_str()) {
            ("", inner) => inner.to_owned(),
            (outer, "") => outer.to_owned(),
            (outer, inner) => format!("{outer}.{inner}"),
        },
        drv: drv.map_err(|error| wrong(error.to_string()))?,
        outputs: BTreeSet::from([output.map_err(|error| wrong(error.to_string()))?]),
    })
}
