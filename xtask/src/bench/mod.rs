//! `cargo xtask bench NAME`: measurements anyone can rerun.
//!
//! Every figure is taken side by side with a yardstick in one run, interleaved, because machines are shared and noisy: read
//! the ratios. CPU seconds are user and system time of the process and its children.

mod coordinator;
mod eval;
mod first_light;
mod measure;

use anyhow::{Result, bail};

/// Runs the task.
pub fn run(options: &[String]) -> Result<()> {
    match options.first().map(String::as_str) {
        Some("coordinator") => coordinator::run(),
        Some("first-light") => first_light::run(),
        Some("eval") => eval::run(&options[1..]),
        Some(other) => bail!("there is no benchmark `{other}`; there are: coordinator, eval, first-light"),
        None => bail!("name a benchmark: coordinator, eval, first-light"),
    }
}
