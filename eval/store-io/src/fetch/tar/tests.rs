use proptest::prelude::*;

use super::*;

/// All entries with the data of files.
fn entries(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next()? {
        let mut data = Vec::new();
        let mut block = [0; 700];
        loop {
            match archive.read_data(&mut block)? {
                0 => break,
                count => data.extend_from_slice(&block[..count]),
            }
        }
        entries.push((entry, data));
    }
    Ok(entries)
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1);
    header
}

#[derive(Clone, Debug)]
enum Model {
    File(Vec<u8>, bool),
    Directory,
    Symlink(String),
}

fn models() -> impl Strategy<Value = Vec<(String, Model)>> {
    let name = prop_oneof![
        "[a-z]{1,20}",
        "[a-z]{1,8}/[a-zé ]{1,8}",
        "[a-z]{90,110}",
        "[a-z]{100}/[a-z]{150}"
    ];
    let model = prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..1500), any::<bool>())
            .prop_map(|(data, x)| Model::File(data, x)),
        Just(Model::Directory),
        prop_oneof!["[a-z]{1,30}", "/[a-z]{1,9}", "[a-z]{60}/[a-z]{41,99}"].prop_map(Model::Symlink),
    ];
    proptest::collection::vec((name, model), 1..8)
}

fn written(models: &[(String, Model)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, model) in models {
        match model {
            Model::File(data, executable) => {
                let mut header = header(tar::EntryType::Regular, data.len() as u64);
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                builder.append_data(&mut header, name, data.as_slice()).unwrap();
            }
            Model::Directory => {
                let mut header = header(tar::EntryType::Directory, 0);
                builder.append_data(&mut header, name, [].as_slice()).unwrap();
            }
            Model::Symlink(target) => {
                let mut header = header(tar::EntryType::Symlink, 0);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn expected(models: &[(String, Model)]) -> Vec<(Vec<u8>, Kind, Vec<u8>)> {
    let one = |(name, model): &(String, Model)| {
        let (kind, data) = match model {
            Model::File(data, executable) => {
                let kind = Kind::File {
                    size: data.len() as u64,
                    executable: *executable,
                };
                (kind, data.clone())
            }
            Model::Directory => (Kind::Directory, Vec::new()),
            Model::Symlink(target) => (Kind::Symlink(target.as_bytes().to_vec()), Vec::new()),
        };
        (name.as_bytes().to_vec(), kind, data)
    };
    models.iter().map(one).collect()
}

proptest! {
    /// What another implementation writes, long names and all, is read as it was meant.
    #[test]
    fn archives_are_read_as_written(models in models()) {
        let found = entries(&written(&models)).unwrap();
        let found: Vec<_> = found.into_iter().map(|(entry, data)| (entry.path, entry.kind, data)).collect();
        prop_assert_eq!(found, expected(&models));
    }

    /// Damage gives an answer, never a panic, and never more data than there is.
    #[test]
    fn damage_is_answered(models in models(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in any::<prop::sample::Index>()) {
        let mut bytes = written(&models);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(entries) = entries(&bytes) {
            prop_assert!(entries.iter().map(|(_, data)| data.len()).sum::<usize>() <= bytes.len());
        }
    }

    #[test]
    fn garbage_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _answer = entries(&bytes);
    }
}

/// An entry whose header is given, with data padded to blocks.
fn raw(mut header: tar::Header, data: &[u8]) -> Vec<u8> {
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    raw(header(tar::EntryType::XHeader, data.len() as u64), &data)
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = header(tar::EntryType::Regular, data.len() as u64);
    header.set_path(name).unwrap();
    raw(header, data)
}

#[test]
fn pax_records_win() {
    let archive = [
        raw(header(tar::EntryType::XGlobalHeader, 6), b"6 a=b\n"),
        pax(&[("path", b"a\nname\xff"), ("mtime", b"77.5"), ("comment", b"x")]),
        file("short", b"data"),
        file("next", b""),
    ]
    .concat();
    let found = entries(&archive).unwrap();
    assert_eq!(found[0].0.path, b"a\nname\xff");
    assert_eq!(found[0].0.mtime, 77);
    assert_eq!(found[0].1, b"data");
    assert_eq!((found[1].0.path.as_slice(), found[1].0.mtime), (&b"next"[..], 1));
}

#[test]
fn a_pax_size_is_the_size() {
    let archive = [
        pax(&[("size", b"600")]),
        file("f", b""),
        vec![7; 1024],
        file("g", b"g"),
    ]
    .concat();
    let found = entries(&archive).unwrap();
    assert_eq!(found[0].1, vec![7; 600]);
    assert_eq!(found[1].1, b"g");
}

#[test]
fn what_is_refused() {
    let error = |bytes: &[u8]| entries(bytes).unwrap_err();
    assert!(matches!(error(b""), TarError::NoArchive));
    assert!(matches!(error(&[b'x'; 512]), TarError::NoArchive));
    assert!(matches!(error(&file("f", b"data")[..700]), TarError::Truncated));
    let damaged = [file("f", b""), vec![b'x'; 512]].concat();
    assert!(matches!(error(&damaged), TarError::Checksum));
    let sparse = [pax(&[("GNU.sparse.major", b"1")]), file("f", b"")].concat();
    assert!(matches!(error(&sparse), TarError::Sparse { .. }));
    assert!(matches!(
        error(&raw(header(tar::EntryType::GNUSparse, 0), b"")),
        TarError::Sparse { .. }
    ));
    let long = raw(header(tar::EntryType::GNULongName, 1 << 40), b"");
    assert!(matches!(error(&long), TarError::Names { .. }));
    for records in [
        &b"9 a=b\n"[..],
        b"x a=b\n",
        b"6 a b\n",
        b"99999999999999999999999 a=b\n",
        b"6",
    ] {
        let broken = raw(header(tar::EntryType::XHeader, records.len() as u64), records);
        assert!(
            matches!(error(&broken), TarError::Pax),
            "{}",
            records.escape_ascii()
        );
    }
    let huge = [pax(&[("size", b"18446744073709551615")]), file("f", b"")].concat();
    assert!(matches!(error(&huge), TarError::Number { .. }));
}

#[test]
fn base_256_sizes() {
    let mut large = header(tar::EntryType::Regular, 0);
    large.set_size(8 << 30); // too large for eleven octal digits
    large.set_path("large").unwrap();
    let mut archive = Archive::new(io::Cursor::new(raw(large, b"")));
    let entry = archive.next().unwrap().unwrap();
    assert_eq!(
        entry.kind,
        Kind::File {
            size: 8 << 30,
            executable: false
        }
    );
}

/// The tar of this machine, in each of its formats.
#[test]
fn archives_of_gnu_tar() {
    let Ok(version) = std::process::Command::new("tar").arg("--version").output() else {
        return igloo_testkit::skip("there is no tar to compare with");
    };
    if !version.stdout.starts_with(b"tar (GNU tar)") {
        return igloo_testkit::skip("the tar of this machine is not GNU's");
    }
    let tmp = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "m".repeat(60), "n".repeat(60));
    std::fs::create_dir_all(tmp.path().join("t/d")).unwrap();
    std::fs::write(tmp.path().join("t/d/file"), [9; 3000]).unwrap();
    std::fs::create_dir(tmp.path().join("t").join("m".repeat(60))).unwrap();
    std::fs::write(tmp.path().join("t").join(&long), b"long").unwrap();
    std::os::unix::fs::symlink("d/file", tmp.path().join("t/link")).unwrap();
    std::fs::hard_link(tmp.path().join("t/d/file"), tmp.path().join("t/twin")).unwrap();
    for format in ["gnu", "oldgnu", "pax", "ustar"] {
        let output = std::process::Command::new("tar")
            .args(["--create", "--sort=name", "--format", format, "t"])
            .current_dir(tmp.path())
            .output()
            .unwrap();
        let found = entries(&output.stdout).unwrap();
        let paths: Vec<_> = found
            .iter()
            .map(|(entry, _)| String::from_utf8(entry.path.clone()).unwrap())
            .collect();
        let (parent, long) = (format!("t/{}/", "m".repeat(60)), format!("t/{long}"));
        let expected = ["t/", "t/d/", "t/d/file", "t/link", &parent, &long, "t/twin"];
        assert_eq!(paths, expected, "{format}");
        assert_eq!(found[2].1, [9; 3000]);
        assert_eq!(found[3].0.kind, Kind::Symlink(b"d/file".to_vec()));
        assert_eq!(found[6].0.kind, Kind::HardLink(b"t/d/file".to_vec()));
    }
}
