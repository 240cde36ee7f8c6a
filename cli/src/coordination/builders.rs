//! Who builds: machines of this host, or another process.

use std::sync::Arc;

use async_trait::async_trait;
use igloo_build::{BuildError, BuildIo, BuildReport, BuildRequest, Builder};
use igloo_driver::NamedBuilder;
use igloo_vmm::image::GuestImage;
use tokio::sync::{OnceCell, mpsc};

use crate::args::NetworkChoice;
use crate::commands::machines;
use crate::config::Config;
use crate::context::Context;
use crate::failure::Failure;
use crate::stores;

/// The builder that is configured: `--builder`, else this machine.
pub async fn configured(
    context: &Context,
    config: &Config,
    broken: mpsc::Sender<Failure>,
) -> Result<NamedBuilder, Failure> {
    let (name, builder): (String, Arc<dyn Builder>) = match &config.builder {
        Some(builder) => (builder.clone(), stores::remote_builder(context, builder).await?),
        None => (
            "this machine".into(),
            Arc::new(OwnMachines::new(context, config, broken)),
        ),
    };
    let mut named = NamedBuilder::new(name, builder, u32::from(config.max_jobs));
    named.build_memory_mib = config.memory_mib;
    named.network = config.network != Some(NetworkChoice::Refuse);
    Ok(named)
}

/// The system of this machine, as Nix calls it.
pub fn system() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    format!("{}-{os}", std::env::consts::ARCH)
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
