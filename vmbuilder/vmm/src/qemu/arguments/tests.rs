use super::*;
use crate::accelerator::Accelerator;
use crate::image::Bus;
use crate::machine::{Board, Network, ScratchSpec, SharePlan};

fn plan() -> Plan {
    Plan {
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::Tcg,
        board: Board::Microvm,
        bus: Bus::Pci,
        kernel: "/images/vmlinuz".into(),
        initramfs: "/images/initramfs.img".into(),
        command_line: "console=ttyS0 quiet".into(),
        memory_mib: 512,
        cores: 2,
        share: Some(SharePlan {
            tag: "igloo".into(),
            queues: 2,
        }),
        scratch: None,
        network: Network::None,
    }
}

fn lines(plan: &Plan) -> String {
    let wiring = Wiring {
        control_fd: 7,
        kernel_fd: 5,
        initramfs_fd: 6,
        share_fd: Some(8),
        scratch_fd: Some(9),
    };
    Arguments::of(plan, &wiring).to_string()
}

/// A sealed build's machine, whole: a device more or less is a change of the seal, to be seen in review.
#[test]
fn a_sealed_machine() {
    assert_eq!(
        lines(&plan()),
        "-nodefaults
-no-user-config
-no-reboot
-display none
-monitor none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine microvm,acpi=on,pcie=on,pit=off,pic=off,rtc=on,isa-serial=on,memory-backend=memory
-accel tcg,tb-size=128
-cpu max,-cx16
-smp 2
-m 512M
-object memory-backend-memfd,id=memory,size=512M,share=on
-kernel /proc/self/fd/5
-initrd /proc/self/fd/6
-append console=ttyS0 quiet
-chardev stdio,id=console,mux=off,signal=off
-serial chardev:console
-object rng-random,id=entropy,filename=/dev/urandom
-device virtio-rng-pci,rng=entropy
-chardev socket,id=control,fd=7
-device virtio-serial-pci,max_ports=2
-device virtserialport,chardev=control,name=igloo.control
-chardev socket,id=share,fd=8
-device vhost-user-fs-pci,chardev=share,tag=igloo,num-request-queues=2,queue-size=1024
-nic none
"
    );
}

/// What a machine with everything has more, and what other boards and accelerators change.
#[test]
fn what_other_plans_change() {
    let sealed = lines(&plan());
    let changed = |change: fn(&mut Plan)| {
        let mut plan = plan();
        change(&mut plan);
        let text = lines(&plan);
        let new: Vec<String> = text
            .lines()
            .filter(|line| !sealed.lines().any(|old| old == *line))
            .map(str::to_owned)
            .collect();
        new
    };
    assert_eq!(
        changed(|plan| {
            plan.network = Network::User;
            plan.scratch = Some(ScratchSpec { size_bytes: 1 });
        }),
        [
            "-add-fd fd=9,set=1",
            "-blockdev raw,node-name=scratch,discard=unmap,file.driver=file,file.filename=/dev/fdset/1,file.locking=off",
            "-device virtio-blk-pci,drive=scratch,serial=igloo-scratch",
            "-netdev user,id=network,ipv6=off,hostname=localhost",
            "-device virtio-net-pci,netdev=network,romfile=",
        ]
    );
    assert_eq!(
        changed(|plan| plan.accelerator = Accelerator::Kvm),
        ["-accel kvm", "-cpu host"]
    );
    assert_eq!(
        changed(|plan| plan.share = None),
        ["-object memory-backend-memfd,id=memory,size=512M,share=off"]
    );
    assert_eq!(
        changed(|plan| plan.bus = Bus::Mmio)[1..],
        [
            "-device virtio-rng-device,rng=entropy",
            "-device virtio-serial-device,max_ports=2",
            "-device vhost-user-fs-device,chardev=share,tag=igloo,num-request-queues=2,queue-size=1024",
        ]
    );
}
