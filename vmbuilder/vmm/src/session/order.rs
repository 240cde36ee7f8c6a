//! What the agent is told of a build: the request in the machine's terms.
//!
//! The sandbox around the program (user, host name, `/etc`) is that of C++ Nix; the values and their sources are in
//! [`igloo_control::etc`] and the agent.

use bytes::Bytes;
use igloo_build::{BuildRequest, Limits};
use igloo_control::BuildSpec;
use igloo_control::etc::{self, BUILD_GID, BUILD_UID};
use igloo_control::message::FileOwner;
use igloo_control::spec::{GuestLimits, Network, Personality};

/// Mode of a request's additional files.
const ADDITIONAL_MODE: u16 = 0o644;
/// QEMU's user-mode network as a guest has to set it up (qemu-system(1), `-netdev user`, defaults of `net=`, `host=`,
/// `dhcpstart=`).
const USER_NETWORK: Network = Network {
    address: [10, 0, 2, 15],
    prefix_bits: 24,
    gateway: [10, 0, 2, 2],
};
/// Its name server (`dns=`).
const USER_NETWORK_DNS: &str = "10.0.2.3";

/// Everything the agent is told before the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The build.
    pub spec: BuildSpec,
    /// Files to place before the start.
    pub files: Vec<PlacedFile>,
}

/// A file placed before the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedFile {
    /// Where, relative to the root.
    pub path: Bytes,
    /// Whose.
    pub owner: FileOwner,
    /// Permission bits.
    pub mode: u16,
    /// Contents.
    pub contents: Bytes,
}

impl Order {
    /// The order for a request that has been checked, with these limits in force.
    pub fn of(request: &BuildRequest, limits: &Limits) -> Self {
        let spec = spec(request, limits);
        let mut files = system_files(request);
        files.extend(request.additional_files.iter().map(|(path, contents)| {
            let path = Bytes::copy_from_slice(path.as_bytes());
            let owner = match spec.is_in_scratch(&path) {
                true => FileOwner::Build,
                false => FileOwner::System,
            };
            PlacedFile {
                path,
                owner,
                mode: ADDITIONAL_MODE,
                contents: contents.clone(),
            }
        }));
        Self { spec, files }
    }

    /// Outputs asked for. A checked request has few.
    pub(super) fn outputs_count(&self) -> u32 {
        u32::try_from(self.spec.outputs.len()).unwrap_or(u32::MAX)
    }
}

fn spec(request: &BuildRequest, limits: &Limits) -> BuildSpec {
    let bytes = |path: &igloo_build::RelativePath| Bytes::copy_from_slice(path.as_bytes());
    BuildSpec {
        program: request.program.clone(),
        arguments: request.arguments.clone(),
        environment: request
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        working_dir: bytes(&request.working_dir),
        inputs_dir: bytes(&request.inputs_dir),
        scratch_paths: request.scratch_paths.iter().map(bytes).collect(),
        outputs: request.outputs.iter().map(bytes).collect(),
        uid: BUILD_UID,
        gid: BUILD_GID,
        hostname: Bytes::from_static(b"localhost"),
        domainname: Bytes::from_static(b"(none)"),
        personality: personality(&request.constraints.system),
        network: request.constraints.network.then_some(USER_NETWORK),
        kvm: false,
        limits: GuestLimits {
            processes: limits.processes,
            scratch_bytes: limits.scratch_bytes,
            scratch_files: None,
            shm_bytes: None,
            output_bytes: limits.output_bytes,
        },
    }
}

/// 32-bit programs see a 32-bit machine, as Nix has it (linux/personality.cc).
fn personality(system: &str) -> Personality {
    match system {
        "i686-linux" | "armv7l-linux" | "armv6l-linux" => Personality::Linux32,
        _ => Personality::Native,
    }
}

/// The view's own files; one that the request brings itself is the request's.
fn system_files(request: &BuildRequest) -> Vec<PlacedFile> {
    let build_dir = format!("/{}", request.working_dir);
    let mut files = etc::sealed_files(&build_dir);
    if request.constraints.network {
        files.push(("etc/nsswitch.conf", "hosts: files dns\nservices: files\n".into()));
        files.push(("etc/resolv.conf", format!("nameserver {USER_NETWORK_DNS}\n")));
    }
    let brought = |path: &str| {
        request
            .additional_files
            .keys()
            .any(|own| own.as_bytes() == path.as_bytes())
    };
    files
        .into_iter()
        .filter(|(path, _)| !brought(path))
        .map(|(path, contents)| PlacedFile {
            path: Bytes::from_static(path.as_bytes()),
            owner: FileOwner::System,
            mode: etc::FILE_MODE,
            contents: contents.into(),
        })
        .collect()
}
