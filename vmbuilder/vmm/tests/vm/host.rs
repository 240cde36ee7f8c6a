//! What this very host can do.

use std::time::{Duration, Instant};

use igloo_build::BuildOutcome;
use igloo_vmm::doctor::{DoctorConfig, State, examine};
use igloo_vmm::host::default_search;
use igloo_vmm::probe::KVM_PATIENCE;
use igloo_vmm::qemu::Qemu;
use igloo_vmm::{Accelerator, MicroVmBuilder, Probe, ProbeConfig};

use crate::support::build::{OUT, request, run};
use crate::support::inputs::Inputs;
use crate::support::{Rig, image_dir, rig};

/// The answer comes in time even where KVM hangs, is remembered, leaves nothing behind, and is true: a build runs on it.
#[tokio::test(flavor = "multi_thread")]
async fn this_host_is_asked_once_and_answers_truly() {
    let Some(rig) = rig("this_host_is_asked_once_and_answers_truly") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = DoctorConfig {
        image_dir: image_dir(),
        probe: ProbeConfig {
            search: default_search(),
            state_dir: dir.path().join("state"),
            runtime_root: dir.path().join("run"),
            kvm_patience: KVM_PATIENCE,
        },
    };
    let began = Instant::now();
    let findings = examine(&config, &Qemu).await;
    assert!(
        began.elapsed() < KVM_PATIENCE + Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    for subject in ["QEMU", "guest image", "runtime directory"] {
        let finding = findings
            .iter()
            .find(|finding| finding.subject == subject)
            .unwrap();
        assert_eq!(finding.state, State::Good, "{finding:?}");
    }
    let began = Instant::now();
    let probe = Probe::run(&config.probe, &rig.image, &Qemu).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "not remembered: {:?}",
        began.elapsed()
    );
    println!("{}: {}", probe.choice.accelerator, probe.choice.reason);
    assert_eq!(Rig::machine_dirs(&config.probe.runtime_root).len(), 0);
    if probe.choice.accelerator != Accelerator::Tcg {
        let mut config = rig.config(&config.probe.runtime_root);
        config.accelerator = probe.choice.accelerator;
        let inputs = Inputs::new();
        let request = request(rig, &inputs, &format!("write /{OUT} x")).await;
        let built = run(&MicroVmBuilder::new(config), &inputs, request).await;
        assert_eq!(built.report().outcome, BuildOutcome::Success);
    }
}
