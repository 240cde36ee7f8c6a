use super::*;
use crate::host::Qemu;

fn host(boards: &[Board], tsc_khz: Option<u32>) -> HostAbilities {
    HostAbilities {
        qemus: vec![Qemu {
            system: "x86_64-linux".into(),
            path: "/usr/bin/qemu-system-x86_64".into(),
            version: "7.2.22".into(),
            boards: boards.to_vec(),
            accelerators: vec![Accelerator::Kvm, Accelerator::Tcg],
            has_virtiofs: true,
        }],
        tsc_khz,
    }
}

fn spec() -> MachineSpec {
    MachineSpec {
        system: "x86_64-linux".into(),
        kernel: "/images/vmlinuz".into(),
        initramfs: "/images/initramfs.img".into(),
        command_line: "quiet loglevel=3".into(),
        bus: Bus::Pci,
        memory_mib: 512,
        cores: 2,
        share: None,
        scratch: None,
        network: Network::None,
    }
}

const BOTH: [Board; 2] = [Board::Q35, Board::Microvm];

#[test]
fn microvm_is_taken_only_with_a_known_clock() {
    let board = |khz, accelerator| {
        Plan::resolve(&spec(), &host(&BOTH, khz), accelerator)
            .unwrap()
            .board
    };
    assert_eq!(board(Some(2_600_000), Accelerator::Tcg), Board::Microvm);
    assert_eq!(board(None, Accelerator::Tcg), Board::Q35);
    assert_eq!(board(None, Accelerator::Kvm), Board::Microvm);
    let plan = Plan::resolve(&spec(), &host(&BOTH, Some(2_600_000)), Accelerator::Tcg).unwrap();
    assert_eq!(
        plan.command_line,
        "console=ttyS0 quiet loglevel=3 panic=-1 reboot=t random.trust_cpu=on tsc_early_khz=2600000 tsc=reliable"
    );
}

#[test]
fn what_cannot_be_run_is_named() {
    let resolve = |spec: &MachineSpec, boards: &[Board]| {
        Plan::resolve(spec, &host(boards, None), Accelerator::Tcg).unwrap_err()
    };
    let refused = |change: fn(&mut MachineSpec)| {
        let mut spec = spec();
        change(&mut spec);
        resolve(&spec, &BOTH)
    };
    assert!(matches!(resolve(&spec(), &[]), PlanError::NoBoard { .. }));
    assert!(matches!(
        refused(|spec| spec.system = "aarch64-linux".into()),
        PlanError::System { .. }
    ));
    assert!(matches!(
        refused(|spec| spec.memory_mib = 10),
        PlanError::Range { .. }
    ));
    assert!(matches!(refused(|spec| spec.cores = 0), PlanError::Range { .. }));
    assert!(matches!(
        refused(|spec| spec.kernel = "/a,b".into()),
        PlanError::Path { .. }
    ));
    assert!(matches!(
        refused(|spec| spec.initramfs = "relative".into()),
        PlanError::Path { .. }
    ));
    assert!(matches!(
        refused(|spec| spec.command_line = "x".repeat(3000)),
        PlanError::CommandLine { .. }
    ));
    let disk = refused(|spec| spec.scratch = Some(ScratchSpec { size_bytes: 1 << 20 }));
    assert_eq!(
        disk.to_string(),
        "a machine cannot have 1 MiB of scratch disk: it must be 16 to 16777216"
    );
    let tagged = |tag: &'static str| {
        let mut spec = spec();
        spec.share = Some(crate::machine::ShareSpec { tag: tag.into() });
        Plan::resolve(&spec, &host(&BOTH, None), Accelerator::Tcg)
    };
    assert!(matches!(tagged("a,b"), Err(PlanError::Tag { .. })));
    assert_eq!(tagged("igloo").unwrap().share.unwrap().queues, 2);
}
