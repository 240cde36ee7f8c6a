//! How a CI server drives the coordinator: tell it what happens, do what it says, in order.
//!
//! This one has a store that is empty, no substituters, and a builder that always succeeds. A real one does each action in a
//! task of its own and sends the event when that is done.

use std::collections::{BTreeMap, BTreeSet};

use igloo_coordinator::{
    Action, Answer, BuildEnd, BuilderId, BuilderOffer, ClientId, CommitResult, Config, DrvInfo, Event,
    Machine, MadeOutput, OfferAnswer, Priority, Purpose, Requirements, StoreAnswer, Target, Time, Want,
    WantId,
};
use nix_compat::derivation::{DerivationKind, OutputName};
use nix_compat::store_path::{StorePath, StorePathName};

#[expect(clippy::print_stdout, reason = "it is a program")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let drvs = two_derivations()?;
    let mut machine = Machine::new(Config::default(), 42); // or Machine::restore(…, journal), after a restart
    let mut events = vec![
        builder_up(),
        wanted(drvs.keys().last().cloned().ok_or("no derivation")?),
    ];
    while let Some(event) = events.pop() {
        for action in machine.handle(Time::from_millis(0), event) {
            match action {
                // append it, and sync before anything after it is begun
                Action::Journal(record) => println!("journal: {record}"),
                Action::ReadDrvs { drvs: paths } => {
                    let known = paths.iter().filter_map(|path| drvs.get(path)).cloned();
                    events.extend(known.map(|info| Event::DrvKnown(Box::new(info))));
                }
                Action::QueryStore { keys } => {
                    let answers = keys.into_iter().map(|key| (key, StoreAnswer::Absent));
                    events.push(Event::StoreAnswers(answers.collect()));
                }
                Action::QuerySubstituters { paths } => {
                    let answers = paths.into_iter().map(|path| (path, OfferAnswer::None));
                    events.push(Event::Offers(answers.collect()));
                }
                Action::Dispatch(order) => {
                    let info = &drvs[&order.drv];
                    let made = |(name, path): &(OutputName, Option<StorePath>)| {
                        let (name, path, nar_size) = (name.clone(), path.clone()?, 1);
                        Some(MadeOutput { name, path, nar_size })
                    };
                    let (outputs, run) = (info.outputs.iter().filter_map(made).collect(), Default::default());
                    let end = BuildEnd::Built { outputs, run };
                    events.push(Event::Ended {
                        lease: order.lease,
                        end,
                    });
                }
                Action::Commit { provenance, .. } => {
                    // check the outputs, sign them, register them; then:
                    let (lease, result) = (provenance.lease, CommitResult::Valid);
                    events.push(Event::Committed { lease, result });
                }
                Action::Reply {
                    want,
                    answer: Answer::Valid { outputs },
                    ..
                } => println!("{want}: {outputs:?}"),
                Action::Reply { want, answer, .. } => println!("{want}: {answer:?}"),
                Action::WakeAt(_) => {} // set the one timer; send Event::Tick when it is due
                other => println!("not in this example: {other:?}"),
            }
        }
    }
    Ok(())
}

fn builder_up() -> Event {
    let offers = BuilderOffer {
        systems: BTreeSet::from(["x86_64-linux".into()]),
        slots: 4,
        ..Default::default()
    };
    Event::BuilderUp {
        builder: BuilderId(1),
        offers,
        running: BTreeSet::new(),
    }
}

fn wanted(drv: StorePath) -> Event {
    let target = Target::Outputs {
        drv,
        outputs: BTreeSet::new(),
    };
    let want = Want {
        id: WantId(1),
        target,
        purpose: Purpose::Goal,
        priority: Priority::Normal,
    };
    Event::Wanted {
        client: ClientId(1),
        want,
    }
}

/// A real front end gets these from [`DrvInfo::of`].
fn two_derivations() -> Result<BTreeMap<StorePath, DrvInfo>, Box<dyn std::error::Error>> {
    let path = |digit: u8, name: &str| {
        Ok::<_, Box<dyn std::error::Error>>(StorePath::new([digit; 20], StorePathName::new(name)?))
    };
    let info = |digit, name: &str, inputs| {
        Ok::<_, Box<dyn std::error::Error>>(DrvInfo {
            path: path(digit, &format!("{name}.drv"))?,
            kind: DerivationKind::InputAddressed,
            outputs: vec![(OutputName::new("out")?, Some(path(digit + 100, name)?))],
            inputs,
            sources: Vec::new(),
            needs: Requirements {
                system: "x86_64-linux".into(),
                ..Default::default()
            },
            estimate: None,
            substitutable: true,
        })
    };
    let library = info(1, "library", Vec::new())?;
    let program = info(
        2,
        "program",
        vec![(library.path.clone(), vec![OutputName::new("out")?])],
    )?;
    Ok([library, program]
        .into_iter()
        .map(|info| (info.path.clone(), info))
        .collect())
}
