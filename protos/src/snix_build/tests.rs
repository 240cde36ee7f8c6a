use super::*;
use crate::error::WireReason;

fn message() -> v1::BuildRequest {
    v1::BuildRequest {
        command_args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
        working_dir: "build".into(),
        scratch_paths: vec!["build".into(), "nix/store".into()],
        inputs_dir: "nix/store".into(),
        outputs: vec!["nix/store/a".into(), "nix/store/b".into()],
        constraints: Some(v1::build_request::BuildConstraints {
            system: "x86_64-linux".into(),
            min_memory: (1 << 20) + 1,
            available_ro_paths: vec!["/dev/kvm".into()],
            network_access: true,
            provide_bin_sh: true,
        }),
        refscan_needles: vec!["xyz".into()],
        ..v1::BuildRequest::default()
    }
}

fn refused(message: v1::BuildRequest) -> WireError {
    BuildRequest::try_from(message).unwrap_err()
}

#[test]
fn a_request_of_a_snix_client_is_understood() {
    let request = BuildRequest::try_from(message()).unwrap();
    assert_eq!(request.program, "/bin/sh");
    assert_eq!(request.arguments, ["/bin/sh", "-c", "true"]);
    assert_eq!(request.constraints.memory_mib, 2);
    assert!(request.constraints.network);
    assert_eq!(
        request.constraints.features,
        BTreeSet::from([FEATURE_BIN_SH.to_owned(), FEATURE_KVM.to_owned()])
    );
}

#[test]
fn requests_that_break_a_rule_are_refused() {
    let with = |change: fn(&mut v1::BuildRequest)| {
        let mut message = message();
        change(&mut message);
        refused(message)
    };
    assert_eq!(with(|message| message.command_args.clear()).field, "command_args");
    assert!(matches!(
        with(|message| message.outputs.reverse()).reason,
        WireReason::Order { .. }
    ));
    assert_eq!(with(|message| message.constraints = None).field, "constraints");
    assert_eq!(
        with(|message| message.working_dir = "/build".into()).field,
        "working_dir"
    );
    let host_path = with(|message| {
        if let Some(constraints) = &mut message.constraints {
            constraints.available_ro_paths.push("/etc".into());
        }
    });
    assert_eq!(host_path.field, "available_ro_paths");
    let memory = with(|message| {
        if let Some(constraints) = &mut message.constraints {
            constraints.min_memory = u64::MAX;
        }
    });
    assert_eq!(memory.field, "min_memory");
    let variable = |key: &str| v1::build_request::EnvVar {
        key: key.into(),
        value: Bytes::new(),
    };
    let mut doubled = message();
    doubled.environment_vars = vec![variable("A"), variable("A")];
    assert_eq!(refused(doubled).field, "environment_vars");
    let mut odd = message();
    odd.environment_vars = vec![variable("A=B")];
    assert!(matches!(refused(odd).reason, WireReason::Request(_)));
}
