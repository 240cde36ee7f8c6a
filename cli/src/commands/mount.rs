//! `igloo mount DIR`

use std::sync::Arc;
use std::time::Duration;

use igloo_mount::fs::CastoreFs;
use igloo_mount::fuse::{Mount, MountOptions, Unmount, cleanup_stale};

use super::say;
use crate::args::MountArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::roots::StoreRoots;
use crate::stop::Stop;
use crate::stores;

/// How often a mount is looked at that somebody else may have unmounted.
const WATCH: Duration = Duration::from_millis(250);

/// Shows the store as files until it is told to stop, or until somebody unmounts it.
pub async fn run(context: &Context, arguments: &MountArguments, stop: Stop) -> Result<(), Failure> {
    let store = stores::open(context).await?;
    cleanup_stale(&arguments.dir)?;
    let castore = store.castore.clone();
    let roots = Arc::new(StoreRoots::new(store));
    let fs = Arc::new(CastoreFs::of_store(
        roots,
        castore,
        tokio::runtime::Handle::current(),
    ));
    let options = MountOptions {
        threads: usize::from(arguments.threads),
        allow_other: arguments.allow_other,
        over_content: arguments.over_content,
        ..MountOptions::default()
    };
    let mount = Mount::new(&arguments.dir, fs, &options)?;
    say(format_args!("mounted on {}", arguments.dir.display()))?;
    tokio::select! {
        () = stop.asked() => mount.unmount(Unmount::Lazy)?,
        () = unmounted_by_others(&mount) => {}
    }
    if !context.quiet {
        eprintln!("read through the mount: {}", mount.fs().counters().snapshot());
    }
    Ok(())
}

async fn unmounted_by_others(mount: &Mount) {
    while !mount.ended() {
        tokio::time::sleep(WATCH).await;
    }
}
