//! A machine's devices, one function each. What is not in [`DEVICES`] does not exist in a guest.

use std::os::fd::RawFd;

use super::arguments::{Arguments, Wiring};
use crate::accelerator::Accelerator;
use crate::image::Bus;
use crate::machine::{Board, Network, Plan};

pub(super) type Device = fn(&Plan, &Wiring, &mut Arguments);

/// In the order of the command line.
pub(super) const DEVICES: &[Device] = &[
    bare, sandbox, board, processor, memory, kernel, console, entropy, control, share, scratch, network,
];

/// Most memory for translated code, MiB.
const TRANSLATED_CODE_MIB: u32 = 128;

/// No configuration files, no default devices, no screen; a guest that reboots has ended.
fn bare(_: &Plan, _: &Wiring, arguments: &mut Arguments) {
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        arguments.flag(flag);
    }
    arguments.option("-display", "none");
    arguments.option("-monitor", "none");
}

/// QEMU's own seccomp filter: it may start no process, gain no right, and use no obsolete system call.
fn sandbox(_: &Plan, _: &Wiring, arguments: &mut Arguments) {
    if cfg!(target_os = "linux") {
        arguments.option(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
    }
}

fn board(plan: &Plan, _: &Wiring, arguments: &mut Arguments) {
    let options = match (plan.board, plan.bus) {
        // no legacy timer or interrupt controller: the kernel is told the clock's rate, see `Plan`
        (Board::Microvm, Bus::Pci) => ",acpi=on,pcie=on,pit=off,pic=off,rtc=on,isa-serial=on",
        // without ACPI, devices are named on the kernel's command line, and the timer is found by the old way
        (Board::Microvm, Bus::Mmio) => ",acpi=off,pcie=off,pit=on,pic=on,rtc=on,isa-serial=on",
        (Board::Q35, _) => ",smm=off,vmport=off,sata=off,smbus=off",
        (Board::Virt, _) => ",gic-version=max",
    };
    arguments.option(
        "-machine",
        format!("{}{options},memory-backend=memory", plan.board.name()),
    );
    let accelerator = match plan.accelerator {
        // without a bound translated code takes up to 1 GiB of the host
        Accelerator::Tcg => format!("tcg,tb-size={TRANSLATED_CODE_MIB}"),
        other => other.name().to_owned(),
    };
    arguments.option("-accel", accelerator);
}

/// `cx16` is off in software: QEMU 7.2 was seen to double-fault a guest with two processors after cmpxchg16b.
fn processor(plan: &Plan, _: &Wiring, arguments: &mut Arguments) {
    let model = match (plan.accelerator, plan.board) {
        (Accelerator::Kvm | Accelerator::Hvf, _) => "host",
        (Accelerator::Tcg, Board::Virt) => "max,pauth-impdef=on",
        (Accelerator::Tcg, Board::Microvm | Board::Q35) => "max,-cx16",
    };
    arguments.option("-cpu", model);
    arguments.option("-smp", plan.cores.to_string());
}

/// The file server reads and writes the guest's memory, so it is shared.
fn memory(plan: &Plan, _: &Wiring, arguments: &mut Arguments) {
    let size = plan.memory_mib;
    arguments.option("-m", format!("{size}M"));
    let share = if plan.share.is_some() { "on" } else { "off" };
    let backend = if cfg!(target_os = "linux") {
        "memory-backend-memfd"
    } else {
        "memory-backend-ram"
    };
    arguments.option(
        "-object",
        format!("{backend},id=memory,size={size}M,share={share}"),
    );
}

fn kernel(plan: &Plan, wiring: &Wiring, arguments: &mut Arguments) {
    arguments.option("-kernel", descriptor(wiring.kernel_fd));
    arguments.option("-initrd", descriptor(wiring.initramfs_fd));
    arguments.option("-append", plan.command_line.clone());
}

/// The serial console comes out of QEMU's standard output; nothing can be typed.
fn console(_: &Plan, _: &Wiring, arguments: &mut Arguments) {
    arguments.option("-chardev", "stdio,id=console,mux=off,signal=off");
    arguments.option("-serial", "chardev:console");
}

fn entropy(plan: &Plan, _: &Wiring, arguments: &mut Arguments) {
    arguments.option("-object", "rng-random,id=entropy,filename=/dev/urandom");
    device(plan, arguments, "virtio-rng", "rng=entropy");
}

/// A virtio-serial port on a socket that QEMU inherits.
fn control(plan: &Plan, wiring: &Wiring, arguments: &mut Arguments) {
    arguments.option("-chardev", format!("socket,id=control,fd={}", wiring.control_fd));
    device(plan, arguments, "virtio-serial", "max_ports=2");
    arguments.option(
        "-device",
        format!("virtserialport,chardev=control,name={}", igloo_control::PORT_NAME),
    );
}

fn share(plan: &Plan, wiring: &Wiring, arguments: &mut Arguments) {
    let (Some(share), Some(fd)) = (&plan.share, wiring.share_fd) else {
        return;
    };
    arguments.option("-chardev", format!("socket,id=share,fd={fd}"));
    let options = format!(
        "chardev=share,tag={},num-request-queues={},queue-size=1024",
        share.tag, share.queues
    );
    device(plan, arguments, "vhost-user-fs", &options);
}

fn scratch(plan: &Plan, wiring: &Wiring, arguments: &mut Arguments) {
    let (Some(_), Some(fd)) = (&plan.scratch, wiring.scratch_fd) else {
        return;
    };
    arguments.option("-add-fd", format!("fd={fd},set=1"));
    arguments.option(
        "-blockdev",
        "raw,node-name=scratch,discard=unmap,file.driver=file,file.filename=/dev/fdset/1,file.locking=off",
    );
    let options = format!("drive=scratch,serial={}", igloo_control::SCRATCH_SERIAL);
    device(plan, arguments, "virtio-blk", &options);
}

/// See [`Network::User`]. Without it there is no network device, not even a disconnected one.
fn network(plan: &Plan, _: &Wiring, arguments: &mut Arguments) {
    match plan.network {
        Network::None => arguments.option("-nic", "none"),
        Network::User => {
            // no host share, no boot server, no names of the host
            arguments.option("-netdev", "user,id=network,ipv6=off,hostname=localhost");
            // no boot ROM: it would be a file to read and code to trust
            device(plan, arguments, "virtio-net", "netdev=network,romfile=");
        }
    }
}

/// A file QEMU inherits, as a path: it need not be able to reach the file by its own.
fn descriptor(fd: RawFd) -> String {
    match cfg!(target_os = "linux") {
        true => format!("/proc/self/fd/{fd}"),
        false => format!("/dev/fd/{fd}"),
    }
}

fn device(plan: &Plan, arguments: &mut Arguments, name: &str, options: &str) {
    let name = match plan.bus {
        Bus::Pci => format!("{name}-pci"),
        Bus::Mmio => format!("{name}-device"),
    };
    // an option only PCI devices have
    let options = match plan.bus {
        Bus::Pci => options.to_owned(),
        Bus::Mmio => options.replace(",romfile=", ""),
    };
    arguments.option("-device", format!("{name},{options}"));
}
