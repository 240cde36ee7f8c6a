//! `igloo doctor`

use igloo_vmm::doctor::{DoctorConfig, Finding, State, examine};
use igloo_vmm::qemu::Qemu;
use serde_json::json;

use super::{machines, say};
use crate::args::DoctorArguments;
use crate::context::Context;
use crate::failure::Failure;

/// Looks at everything builds and mounts need. Exit code 1 when something is missing.
pub async fn run(context: &Context, arguments: &DoctorArguments) -> Result<(), Failure> {
    let config = DoctorConfig {
        image_dir: machines::image_dir(
            context,
            arguments.image.as_ref().or(context.config.image.as_ref()),
        ),
        probe: machines::probe_config(context),
    };
    let findings = examine(&config, &Qemu).await;
    if arguments.json {
        say(serde_json::Value::from_iter(findings.iter().map(as_json)))?;
    } else {
        for finding in &findings {
            say(as_text(finding))?;
        }
    }
    let missing = findings
        .iter()
        .filter(|finding| finding.state == State::Missing)
        .count();
    if missing > 0 {
        return Err(Failure::new(anyhow::anyhow!(
            "{missing} of {} things are missing",
            findings.len()
        )));
    }
    Ok(())
}

fn word(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Degraded => "slow",
        State::Missing => "missing",
    }
}

fn as_text(finding: &Finding) -> String {
    let first = format!(
        "{:<8} {}: {}",
        word(finding.state),
        finding.subject,
        finding.detail
    );
    match &finding.hint {
        Some(hint) => format!("{first}\n         to mend it: {hint}"),
        None => first,
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    json!({
        "subject": finding.subject,
        "state": word(finding.state),
        "detail": finding.detail,
        "hint": finding.hint,
    })
}
