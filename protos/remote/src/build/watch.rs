//! What a builder sends while a build runs, checked and passed on.

use igloo_build::{BuildError, BuildEvent, BuildOutcome, BuildReport, EventSender, OutputSink, RelativePath};
use igloo_protos::WireError;
use igloo_protos::build::read_attached;
use igloo_protos::event::{read_failure, read_step, read_stored, text};
use igloo_protos::igloo::build::v1 as wire;
use igloo_protos::igloo::build::v1::build_event::Event;

/// Checks the sequence of events and passes them on.
pub(super) struct Watch {
    outputs: Box<dyn OutputSink>,
    events: EventSender,
    paths: Vec<RelativePath>,
    log: LogPlace,
    state: Outputs,
}

/// Where the next log bytes belong.
#[derive(Clone, Copy)]
enum LogPlace {
    /// Exactly there.
    At(u64),
    /// There or later: the builder may keep no more.
    From(u64),
}

/// How many outputs are whole, and whether one is under way.
#[derive(Clone, Copy)]
enum Outputs {
    /// Their paths are still to be told.
    Unknown,
    Before(usize),
    Within(usize),
}

impl Watch {
    /// Of a build that starts now.
    pub(super) fn of_start(
        paths: Vec<RelativePath>,
        outputs: Box<dyn OutputSink>,
        events: EventSender,
    ) -> Self {
        Self {
            outputs,
            events,
            paths,
            log: LogPlace::At(0),
            state: Outputs::Before(0),
        }
    }

    /// Of a build that is attended from that log byte on; its outputs' paths are told first.
    pub(super) fn of_attach(log_from: u64, outputs: Box<dyn OutputSink>, events: EventSender) -> Self {
        Self {
            outputs,
            events,
            paths: Vec::new(),
            log: LogPlace::From(log_from),
            state: Outputs::Unknown,
        }
    }

    /// The report, at the end.
    pub(super) async fn event(
        &mut self,
        message: wire::BuildEvent,
    ) -> Result<Option<BuildReport>, BuildError> {
        let event = message
            .event
            .ok_or_else(|| protocol("an event of an unknown kind"))?;
        match event {
            Event::Preparing(preparing) => {
                let machine = text(&preparing.machine);
                self.tell(BuildEvent::Preparing { machine }).await;
            }
            Event::Started(_) => self.tell(BuildEvent::Started).await,
            Event::Log(log) => self.log(log).await?,
            Event::Collecting(_) => self.tell(BuildEvent::Collecting).await,
            Event::OutputBegin(begin) => self.begin(begin.index).await?,
            Event::Tree(steps) => self.steps(steps).await?,
            Event::OutputEnd(_) => self.end().await?,
            Event::OutputStored(stored) => self.stored(stored).await?,
            Event::Attached(attached) => self.attached(&attached)?,
            Event::Finished(report) => return self.finish(report).map(Some),
            Event::Failed(failure) => return Err(read_failure(failure)),
        }
        Ok(None)
    }

    /// Nobody need watch.
    async fn tell(&mut self, event: BuildEvent) {
        let _ = self.events.send(event).await;
    }

    async fn log(&mut self, log: wire::Log) -> Result<(), BuildError> {
        let fits = match self.log {
            LogPlace::At(place) => log.sequence == place,
            LogPlace::From(place) => log.sequence >= place,
        };
        let next = log.sequence.checked_add(log.bytes.len() as u64);
        let (true, Some(next)) = (fits, next) else {
            return Err(protocol(&format!("log bytes from {} out of turn", log.sequence)));
        };
        self.log = LogPlace::At(next);
        let (sequence, bytes) = (log.sequence, log.bytes);
        self.tell(BuildEvent::Log { sequence, bytes }).await;
        Ok(())
    }

    fn attached(&mut self, attached: &wire::Attached) -> Result<(), BuildError> {
        if !matches!(self.state, Outputs::Unknown) {
            return Err(protocol("the paths of outputs that are known"));
        }
        self.paths = read_attached(attached).map_err(|error| wrong(&error))?;
        self.state = Outputs::Before(0);
        Ok(())
    }

    async fn begin(&mut self, index: u32) -> Result<(), BuildError> {
        let next = self.next_output(index)?;
        self.state = Outputs::Within(next);
        self.outputs.begin(&self.paths[next]).await
    }

    async fn stored(&mut self, stored: wire::OutputStored) -> Result<(), BuildError> {
        let next = self.next_output(stored.index)?;
        let output = read_stored(stored, self.paths[next].clone()).map_err(|error| wrong(&error))?;
        self.state = Outputs::Before(next + 1);
        self.outputs.stored(output).await
    }

    /// The position of the output that comes now, which must be that one.
    fn next_output(&self, index: u32) -> Result<usize, BuildError> {
        match self.state {
            Outputs::Before(next) if u32::try_from(next) == Ok(index) && next < self.paths.len() => Ok(next),
            _ => Err(protocol(&format!("output {index} out of turn"))),
        }
    }

    async fn steps(&mut self, steps: wire::TreeSteps) -> Result<(), BuildError> {
        if !matches!(self.state, Outputs::Within(_)) {
            return Err(protocol("a file that is in no output"));
        }
        for step in steps.steps {
            let step = read_step(step).map_err(|error| wrong(&error))?;
            self.outputs.event(step).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        let Outputs::Within(index) = self.state else {
            return Err(protocol("the end of an output that was not begun"));
        };
        self.state = Outputs::Before(index + 1);
        self.outputs.end().await
    }

    fn finish(&self, report: wire::Report) -> Result<BuildReport, BuildError> {
        let report = BuildReport::try_from(report).map_err(|error| wrong(&error))?;
        let complete = matches!(self.state, Outputs::Before(count) if count == self.paths.len());
        if report.outcome == BuildOutcome::Success && !complete {
            return Err(protocol("success without all outputs"));
        }
        Ok(report)
    }
}

pub(super) fn wrong(error: &WireError) -> BuildError {
    protocol(&format!("{error}: {}", error.reason))
}

fn protocol(what: &str) -> BuildError {
    BuildError::Protocol {
        reason: format!("the builder sent {what}"),
    }
}
