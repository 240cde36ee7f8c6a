//! The system call filter of a build.
//!
//! It makes no boundary (the machine is one); it gives the answers programs get in C++ Nix's sandbox and test for:
//! setting a setuid or setgid bit is EPERM, extended attributes are ENOTSUP. Every ABI the kernel offers is covered.
//!
//! Source: Nix 2.36, linux-derivation-builder.cc, setupSeccomp; call numbers: syscall_64.tbl, syscall_32.tbl,
//! asm-generic/unistd.h, arch/arm/tools/syscall.tbl.

use libc::sock_filter;

/// Bit that marks calls of the x32 ABI (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// What one ABI calls the calls.
struct Abi {
    /// AUDIT_ARCH_* (linux/audit.h).
    audit: u32,
    /// Calls and which of their arguments is a mode.
    modes: &'static [(u32, u8)],
    /// First and last of the set, get and list calls for extended attributes.
    attributes: (u32, u32),
    /// Whether a second ABI hides behind [`X32_BIT`].
    has_x32: bool,
}

/// `*xattrat` of Linux 6.13: the same number everywhere (set 463, get 464, list 465).
const ATTRIBUTES_AT: (u32, u32) = (463, 465);

const X86_64: Abi = Abi {
    audit: 0xc000_003e,
    modes: &[(90, 1), (91, 1), (268, 2), (452, 2)],
    attributes: (188, 196),
    has_x32: true,
};
const I386: Abi = Abi {
    audit: 0x4000_0003,
    modes: &[(15, 1), (94, 1), (306, 2), (452, 2)],
    attributes: (226, 234),
    has_x32: false,
};
const AARCH64: Abi = Abi {
    audit: 0xc000_00b7,
    modes: &[(52, 1), (53, 2), (452, 2)],
    attributes: (5, 13),
    has_x32: false,
};
const ARM: Abi = Abi {
    audit: 0x4000_0028,
    modes: &[(15, 1), (94, 1), (333, 2), (452, 2)],
    attributes: (226, 234),
    has_x32: false,
};

const SETUID_SETGID: u32 = 0o6000;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

// offsets in struct seccomp_data (linux/seccomp.h)
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGUMENTS: u32 = 16;

/// The filter for the machine's ABIs, to be put in force once NO_NEW_PRIVS is.
pub fn filter() -> Vec<sock_filter> {
    let abis: &[Abi] = if cfg!(target_arch = "x86_64") {
        &[X86_64, I386]
    } else {
        &[AARCH64, ARM]
    };
    let mut program = Vec::new();
    for abi in abis {
        let body = abi_filter(abi);
        // the accumulator holds the number inside a body, so every ABI starts by loading the architecture
        program.push(load(DATA_ARCH));
        program.push(jump_unless(libc::BPF_JEQ, abi.audit, body.len()));
        program.extend(body);
    }
    program.push(answer(ALLOW));
    program
}

fn abi_filter(abi: &Abi) -> Vec<sock_filter> {
    let mut body = vec![load(DATA_NUMBER)];
    if abi.has_x32 {
        body.push(statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !X32_BIT));
    }
    for (number, argument) in abi.modes {
        body.extend([
            jump_unless(libc::BPF_JEQ, *number, 4),
            // the low half of the argument: a mode has no more bits
            load(DATA_ARGUMENTS + 8 * u32::from(*argument)),
            jump_unless(libc::BPF_JSET, SETUID_SETGID, 1),
            answer(errno(libc::EPERM)),
            answer(ALLOW),
        ]);
    }
    for (first, last) in [abi.attributes, ATTRIBUTES_AT] {
        body.extend([
            jump_unless(libc::BPF_JGE, first, 2),
            jump_if(libc::BPF_JGT, last, 1),
            answer(errno(libc::ENOTSUP)),
        ]);
    }
    body.push(answer(ALLOW));
    body
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(value: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

/// Skips `count` instructions unless the comparison holds.
fn jump_unless(comparison: u32, value: u32, count: usize) -> sock_filter {
    jump(comparison, value, 0, count)
}

/// Skips `count` instructions when the comparison holds.
fn jump_if(comparison: u32, value: u32, count: usize) -> sock_filter {
    jump(comparison, value, count, 0)
}

fn jump(comparison: u32, value: u32, when_true: usize, when_false: usize) -> sock_filter {
    let offset = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
    sock_filter {
        code: code(libc::BPF_JMP | comparison | libc::BPF_K),
        jt: offset(when_true),
        jf: offset(when_false),
        k: value,
    }
}

fn statement(operation: u32, value: u32) -> sock_filter {
    sock_filter {
        code: code(operation),
        jt: 0,
        jf: 0,
        k: value,
    }
}

fn code(operation: u32) -> u16 {
    u16::try_from(operation).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
