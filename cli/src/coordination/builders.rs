//! Who builds: machines of this host, or another process.

use std::sync::Arc;

use async_trait::async_trait;
use igloo_build::{BuildError, BuildIo, BuildReport, BuildRequest, Builder};
use igloo_driver::NamedBuilder;
use igloo_driver::builtin::{BuiltinBuilder, UrlFetch};
use igloo_store_io::FetchLimits;
use igloo_vmm::image::GuestImage;
use tokio::sync::{OnceCell, mpsc};

use crate::args::NetworkChoice;
use crate::commands::machines;
use crate::config::Config;
use crate::context::Context;
use crate::evaluation::fetcher;
use crate::failure::Failure;
use crate::stores;

/// Downloads of builds at once.
const DOWNLOADS_MAX: u32 = 8;

/// Who builds: the builders of these URLs or names, else this machine; and this process, where no program is to run.
pub async fn configured(
    context: &Context,
    config: &Config,
    others: &[String],
    broken: mpsc::Sender<Failure>,
) -> Result<Vec<NamedBuilder>, Failure> {
    let mut found = Vec::new();
    for name in others {
        let builder = stores::remote_builder(context, name).await?;
        found.push(as_offered(name, builder, config));
    }
    if others.is_empty() {
        let own = Arc::new(OwnMachines::new(context, config, broken));
        let mut named = NamedBuilder::new("this machine", own, u32::from(config.max_jobs));
        named.network = config.network != Some(NetworkChoice::Refuse);
        found.push(named);
    }
    found.push(own_process(config));
    for named in &mut found {
        named.build_memory_mib = config.memory_mib;
    }
    Ok(found)
}

/// Builders that are part of Nix, `builtin:fetchurl`: they need no machine.
fn own_process(config: &Config) -> NamedBuilder {
    let fetch = UrlFetch::new(Arc::new(fetcher()), FetchLimits::default());
    let builtin = Arc::new(BuiltinBuilder::new(Arc::new(fetch)));
    let mut named = NamedBuilder::new("this process", builtin, DOWNLOADS_MAX);
    named.network = config.network != Some(NetworkChoice::Refuse);
    named
}

/// A builder with what it says of itself.
fn as_offered(name: &str, builder: Arc<dyn Builder>, config: &Config) -> NamedBuilder {
    let offer = builder.offer();
    let slots = match offer.slots {
        0 => u32::from(config.max_jobs), // it does not say
        slots => slots,
    };
    let mut named = NamedBuilder::new(name, builder, slots);
    named.features = offer.features;
    named.mandatory_features = offer.mandatory_features;
    named.memory_mib = offer.memory_mib;
    named.network = offer.network && config.network != Some(NetworkChoice::Refuse);
    named
}

/// Machines of this host, looked for when the first build comes.
#[derive(Debug)]
struct OwnMachines {
    context: Context,
    config: Config,
    systems: Vec<String>,
    broken: mpsc::Sender<Failure>,
    machines: OnceCell<Arc<dyn Builder>>,
}

impl OwnMachines {
    fn new(context: &Context, config: &Config, broken: mpsc::Sender<Failure>) -> Self {
        let image = GuestImage::open(&machines::image_dir(context, config.image.as_ref()));
        // without an image the first build says what is missing
        let guest = image.map_or_else(
            |_| format!("{}-linux", std::env::consts::ARCH),
            |image| image.system,
        );
        let second = (guest == "x86_64-linux").then(|| "i686-linux".to_string());
        Self {
            context: context.clone(),
            config: config.clone(),
            systems: std::iter::once(guest).chain(second).collect(),
            broken,
            machines: OnceCell::new(),
        }
    }
}

#[async_trait]
impl Builder for OwnMachines {
    async fn build(&self, request: BuildRequest, io: BuildIo) -> Result<BuildReport, BuildError> {
        let open = || machines::builder(&self.context, &self.config, NetworkChoice::Allow);
        match self.machines.get_or_try_init(open).await {
            Ok(builder) => builder.build(request, io).await,
            // a server goes on: others may build, and what is missing may come
            Err(failure) if self.broken.is_closed() => Err(BuildError::Setup {
                what: "something that builds need".into(),
                hint: failure.message().trim().replace('\n', "; "),
            }),
            Err(failure) => {
                let _ = self.broken.try_send(failure); // it has been said already
                std::future::pending().await // the command ends with it: trying again would not help
            }
        }
    }

    fn systems(&self) -> Vec<String> {
        self.systems.clone()
    }
}
