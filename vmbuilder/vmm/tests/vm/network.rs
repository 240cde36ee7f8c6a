//! The network: none, unless both the request and the builder's owner say so.

use std::net::TcpListener;

use igloo_build::{BuildError, BuildOutcome};
use igloo_vmm::{MicroVmBuilder, NetworkPolicy};

use crate::support::build::{OUT, request, run};
use crate::support::inputs::Inputs;
use crate::support::rig;

/// That a sealed build reaches nothing is shown in `sealed`.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_has_a_network_only_where_it_is_allowed() {
    let Some(rig) = rig("a_build_has_a_network_only_where_it_is_allowed") else {
        return;
    };
    // the gateway's address stands for the host's loopback
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let inputs = Inputs::new();
    let commands = format!("connect 10.0.2.2:{port} ; cat /etc/resolv.conf ; ls /etc ; write /{OUT} x");
    let mut wanted = request(rig, &inputs, &commands).await;
    wanted.constraints.network = true;
    let refused = run(rig.builder(), &inputs, wanted.clone()).await;
    assert!(matches!(refused.result, Err(BuildError::Unsupported { .. })));

    let root = tempfile::tempdir().unwrap();
    let mut config = rig.config(root.path());
    config.network = NetworkPolicy::Allow;
    let builder = MicroVmBuilder::new(config);
    let built = run(&builder, &inputs, wanted).await;
    assert_eq!(built.report().outcome, BuildOutcome::Success, "{}", built.log);
    built.says(&format!("connected to 10.0.2.2:{port}"));
    built.says("/etc/resolv.conf: nameserver 10.0.2.3");
    built.says("/etc: group hosts nsswitch.conf passwd resolv.conf");
}
