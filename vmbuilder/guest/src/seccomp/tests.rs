use super::*;

/// What the kernel would answer: an interpreter of the few instructions the filter has.
fn verdict(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    arguments
        .iter()
        .for_each(|argument| data.extend(argument.to_ne_bytes()));
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let instruction = &program[at];
        at += 1;
        let operation = u32::from(instruction.code);
        match operation & 7 {
            libc::BPF_LD => {
                let offset = instruction.k as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            libc::BPF_ALU => accumulator &= instruction.k,
            libc::BPF_RET => return instruction.k,
            libc::BPF_JMP => {
                let holds = match operation & 0xf0 {
                    libc::BPF_JEQ => accumulator == instruction.k,
                    libc::BPF_JGT => accumulator > instruction.k,
                    libc::BPF_JGE => accumulator >= instruction.k,
                    libc::BPF_JSET => accumulator & instruction.k != 0,
                    other => panic!("jump {other}"),
                };
                at += usize::from(if holds { instruction.jt } else { instruction.jf });
            }
            other => panic!("instruction {other}"),
        }
    }
}

fn abis() -> &'static [Abi] {
    if cfg!(target_arch = "x86_64") {
        &[X86_64, I386]
    } else {
        &[AARCH64, ARM]
    }
}

fn with_mode(argument: u8, mode: u64) -> [u64; 6] {
    let mut arguments = [u64::MAX; 6];
    arguments[usize::from(argument)] = mode;
    arguments
}

/// Every call of every ABI: only setuid and setgid modes and extended attributes are refused, whatever else is passed.
#[test]
fn every_call_of_every_abi() {
    let program = filter();
    let (eperm, enotsup) = (errno(libc::EPERM), errno(libc::ENOTSUP));
    for abi in abis() {
        for base in if abi.has_x32 { &[0, X32_BIT][..] } else { &[0] } {
            for number in 0..1000 {
                let attributes = (abi.attributes.0..=abi.attributes.1).contains(&number)
                    || (ATTRIBUTES_AT.0..=ATTRIBUTES_AT.1).contains(&number);
                let ask = |arguments| verdict(&program, abi.audit, number | base, arguments);
                if let Some((_, argument)) = abi.modes.iter().find(|(mode, _)| *mode == number) {
                    for mode in [0o4755, 0o2755, 0o6000, 0o7777] {
                        assert_eq!(ask(with_mode(*argument, mode)), eperm, "{number} {mode:o}");
                    }
                    for mode in [0, 0o755, 0o1777] {
                        assert_eq!(ask(with_mode(*argument, mode)), ALLOW, "{number} {mode:o}");
                    }
                } else {
                    let expected = if attributes { enotsup } else { ALLOW };
                    assert_eq!(ask([u64::MAX; 6]), expected, "{number}");
                }
            }
        }
    }
    assert_eq!(verdict(&program, 0xdead, 90, [u64::MAX; 6]), ALLOW);
}

/// The numbers are those of the C library this is compiled with.
#[test]
fn numbers_are_the_kernels() {
    let number = |number: libc::c_long| u32::try_from(number).unwrap();
    let native = &abis()[0];
    #[cfg(target_arch = "x86_64")]
    assert_eq!(native.modes[0], (number(libc::SYS_chmod), 1));
    for call in [(number(libc::SYS_fchmod), 1), (number(libc::SYS_fchmodat), 2)] {
        assert!(native.modes.contains(&call));
    }
    assert_eq!(
        native.attributes,
        (number(libc::SYS_setxattr), number(libc::SYS_flistxattr))
    );
    assert_eq!(native.attributes.1 + 1, number(libc::SYS_removexattr));
}
