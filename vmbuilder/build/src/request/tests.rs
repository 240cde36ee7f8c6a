use super::*;

fn path(text: &str) -> RelativePath {
    RelativePath::try_from(text).unwrap()
}

fn request() -> BuildRequest {
    BuildRequest {
        inputs: BTreeMap::new(),
        inputs_dir: path("nix/store"),
        program: Bytes::from_static(b"/bin/sh"),
        arguments: vec![Bytes::from_static(b"sh"), Bytes::new()],
        environment: BTreeMap::from([(Bytes::from_static(b"PATH"), Bytes::from_static(b"/none"))]),
        working_dir: path("build"),
        scratch_paths: BTreeSet::from([path("build")]),
        outputs: vec![path("nix/store/b"), path("nix/store/a")],
        additional_files: BTreeMap::new(),
        constraints: Constraints {
            system: "x86_64-linux".into(),
            memory_mib: 0,
            cores: 0,
            network: false,
            features: BTreeSet::new(),
        },
        limits: Limits::default(),
        needles: Vec::new(),
    }
}

#[test]
fn a_plain_request_passes() {
    assert_eq!(request().check(), Ok(()));
}

#[test]
fn nested_and_repeated_outputs_are_refused() {
    let mut nested = request();
    nested.outputs.push(path("nix/store/a/lib"));
    assert!(matches!(nested.check(), Err(CheckRequestError::Nested { .. })));
    let mut repeated = request();
    repeated.outputs.push(path("nix/store/a"));
    assert!(matches!(repeated.check(), Err(CheckRequestError::Nested { .. })));
    let mut beside = request();
    beside.outputs.push(path("nix/store/a-lib"));
    assert_eq!(beside.check(), Ok(()));
    beside.outputs.push(path("nix/store/a/lib"));
    assert!(matches!(beside.check(), Err(CheckRequestError::Nested { .. })));
}

#[test]
fn impossible_programs_and_variables_are_refused() {
    let mut relative = request();
    relative.program = Bytes::from_static(b"bin/sh");
    assert!(matches!(relative.check(), Err(CheckRequestError::Program { .. })));
    for name in [&b""[..], b"A=B", b"A\0"] {
        let mut odd = request();
        odd.environment.insert(Bytes::from_static(name), Bytes::new());
        assert!(matches!(odd.check(), Err(CheckRequestError::Environment { .. })));
    }
    let mut nul = request();
    nul.arguments.push(Bytes::from_static(b"a\0b"));
    assert!(matches!(nul.check(), Err(CheckRequestError::Nul { .. })));
}

#[test]
fn a_request_has_bounds() {
    let mut long = request();
    long.arguments.push(Bytes::from(vec![b'a'; ARGUMENT_SIZE_MAX]));
    assert!(matches!(long.check(), Err(CheckRequestError::TooLarge { .. })));
    let mut many = request();
    many.arguments = vec![Bytes::from(vec![b'a'; 100 << 10]); 30];
    assert!(matches!(many.check(), Err(CheckRequestError::TooLarge { .. })));
    let mut none = request();
    none.outputs.clear();
    assert_eq!(none.check(), Err(CheckRequestError::NoOutputs));
}
