//! `igloo log PATH`

use std::io::Write as _;

use nix_compat::store_path::StorePath;

use super::paths;
use crate::args::LogArguments;
use crate::context::Context;
use crate::coordination;
use crate::failure::Failure;
use crate::stores;

/// Prints the log of the last build that made a path, or of a derivation: byte for byte on a pipe, harmless on a terminal.
pub async fn run(context: &Context, arguments: &LogArguments) -> Result<(), Failure> {
    let mut config = context.config.clone();
    config.coordinator = arguments.coordinator.clone().or(config.coordinator);
    let drv = derivation(context, &arguments.path).await?;
    let log = coordination::log(context, &config, &drv).await?;
    let Some(log) = log else {
        return Err(Failure::coded(
            anyhow::anyhow!("build log of '{}' is not available", arguments.path),
            igloo_status::Code::NotFound,
        )
        .with_hint("logs are kept where something was built; `igloo build` with --check builds it again"));
    };
    let mut out = std::io::stdout().lock();
    if std::io::IsTerminal::is_terminal(&out) {
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let text = crate::progress::log::printable(line);
            writeln!(out, "{text}")?;
        }
    } else {
        out.write_all(&log)?;
    }
    Ok(out.flush()?)
}

/// The derivation itself, or that of which the path is an output.
async fn derivation(context: &Context, text: &str) -> Result<StorePath, Failure> {
    let dir = nix_compat::store_path::StoreDir::default();
    let path = paths::parse(&dir, text)?;
    if path.name().as_str().ends_with(".drv") {
        return Ok(path);
    }
    let store = stores::open_to_read(context).await?;
    let info = paths::find(&store, text).await?;
    info.deriver.ok_or_else(|| {
        Failure::new(anyhow::anyhow!(
            "'{}' was not built: no derivation is known for it",
            dir.print(&info.path)
        ))
    })
}
