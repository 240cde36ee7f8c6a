//! What writing to a store costs an evaluation: `instantiate [--dry] FILE ATTR...` instantiates attributes into a store
//! in memory, or (`--dry`) computes paths only, and says how long it took and what came of it.
//!
//! stdout: the paths of the derivations. stderr: time, derivations, paths, bytes of NAR.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::StreamExt;
use igloo_eval::io::FsIo;
use igloo_eval::{EvalIo, Evaluation, Settings};
use igloo_store::Store;
use igloo_store_io::{DerivationSink, HostStore, StoreIo};
use nix_compat::derivation::Derivation;
use nix_compat::store_path::{StoreDir, StorePath};

type Failure = Box<dyn std::error::Error>;

#[derive(Default)]
struct Count(AtomicUsize);

#[async_trait::async_trait]
impl DerivationSink for Count {
    async fn derivation(&self, _: &StorePath, _: &Arc<Derivation>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let dry = args.first().is_some_and(|arg| arg == "--dry");
    if dry {
        args.remove(0);
    }
    let [file, attrs @ ..] = args.as_slice() else {
        return Err("usage: instantiate [--dry] FILE ATTR...".into());
    };
    if dry {
        let start = Instant::now();
        evaluate(Rc::new(FsIo::new(StoreDir::default())), file, attrs)?;
        eprintln!("evaluated in {:.2?}", start.elapsed());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()?;
    let store = Store::memory(StoreDir::default());
    let heard = Arc::new(Count::default());
    let io = StoreIo::new(store.clone(), runtime.handle().clone())
        .with_host_store(HostStore::Hidden)
        .with_sink(Arc::<Count>::clone(&heard));
    let io = Rc::new(io);
    let start = Instant::now();
    evaluate(Rc::<StoreIo>::clone(&io), file, attrs)?;
    let evaluated = start.elapsed();
    io.flush()?;
    eprintln!(
        "evaluated in {evaluated:.2?}, written after {:.2?}",
        start.elapsed()
    );
    let infos = runtime.block_on(store.path_infos.list().collect::<Vec<_>>());
    let infos = infos.into_iter().collect::<Result<Vec<_>, _>>()?;
    let bytes: u64 = infos.iter().map(|info| info.nar_size).sum();
    let derivations = heard.0.load(Ordering::Relaxed);
    eprintln!(
        "{derivations} derivations, {} paths, {bytes} bytes of NAR",
        infos.len()
    );
    Ok(())
}

fn evaluate(io: Rc<dyn EvalIo>, file: &str, attrs: &[String]) -> Result<(), Failure> {
    let settings = Settings {
        current_system: Some("x86_64-linux".to_owned()),
        ..Settings::default()
    };
    let mut evaluation = Evaluation::new(settings, io);
    let path = std::path::absolute(file)?;
    let root = evaluation.eval_file(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    let root = root.map_err(|error| error.render(true))?;
    for attr in attrs {
        let value = evaluation
            .select(root, attr, &[])
            .map_err(|error| error.render(true))?;
        evaluation
            .derivations(value, &[], &mut |found| {
                println!("{}", found.drv_path);
                ControlFlow::Continue(())
            })
            .map_err(|error| error.render(true))?;
    }
    Ok(())
}
