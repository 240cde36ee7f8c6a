//! stdout: the paths of what was built.

use igloo_driver::job::{Built, GoalReport, JobReport};
use nix_compat::store_path::StoreDir;
use serde_json::{Value, json};

use super::Wish;
use crate::commands::say;
use crate::failure::Failure;

/// Prints everything that was asked for, in that order.
pub fn built(dir: &StoreDir, wish: &Wish, reports: &[JobReport]) -> Result<(), Failure> {
    if wish.json {
        return say(as_json(dir, reports));
    }
    for goal in reports.iter().flat_map(|report| &report.goals) {
        for path in goal.outputs.values() {
            say(dir.print(path))?;
        }
    }
    Ok(())
}

/// As nix-build, a dry run prints nothing; as JSON it prints what is known.
pub fn dry_run(dir: &StoreDir, wish: &Wish, reports: &[JobReport]) -> Result<(), Failure> {
    if wish.json {
        return say(as_json(dir, reports));
    }
    Ok(())
}

/// `[{"drvPath": …, "outputs": {…}}]` as `nix build --json`, a text for a store path that was asked for as such; `build` is
/// ours: what the build used, null when there was none.
fn as_json(dir: &StoreDir, reports: &[JobReport]) -> Value {
    let one = |report: &JobReport, goal: &GoalReport| {
        if !goal.goal.drv.name().as_str().ends_with(".drv") {
            return json!(dir.print(&goal.goal.drv));
        }
        let outputs: serde_json::Map<_, _> = goal
            .outputs
            .iter()
            .map(|(name, path)| (name.to_string(), json!(dir.print(path))))
            .collect();
        let build = report.built.iter().find(|built| built.drv == goal.goal.drv);
        json!({
            "drvPath": dir.print(&goal.goal.drv),
            "outputs": outputs,
            "build": build.map(used),
        })
    };
    reports
        .iter()
        .flat_map(|report| report.goals.iter().map(move |goal| one(report, goal)))
        .collect()
}

fn used(built: &Built) -> Value {
    let stats = &built.stats;
    json!({
        "bootSeconds": stats.boot.as_secs_f64(),
        "runSeconds": stats.run.as_secs_f64(),
        "totalSeconds": stats.total.as_secs_f64(),
        "inputBytes": built.input_bytes,
        "inputBytesRead": stats.input_bytes_read,
        "inputFiles": built.input_files,
        "inputFilesRead": stats.input_files_read,
        "outputBytes": stats.output_bytes,
        "machine": stats.machine,
    })
}
