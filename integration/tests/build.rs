//! `igloo build` on real machines, as a user sees it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::collections::BTreeMap;
use std::process::Stdio;

use igloo_integration::derivations::{Parts, Recipe, Recipes, busybox};
use igloo_integration::processes::none_mentions;
use igloo_integration::servers::Server;
use igloo_integration::{Ended, World, finish_measured, start, wait_until};
use igloo_testkit::skip;

/// A world that can build, or `None` after saying why not.
fn workshop() -> Option<(World, Recipes)> {
    let world = World::new();
    let ready = busybox().and_then(|busybox| world.can_build().map(|()| busybox));
    match ready {
        Ok(busybox) => {
            let recipes = Recipes::new(&world, &busybox);
            Some((world, recipes))
        }
        Err(reason) => {
            skip(&reason);
            None
        }
    }
}

fn build(world: &World, recipe: &Recipe) -> Ended {
    world.run(&["build", recipe.argument()])
}

/// What a built file holds.
fn content(world: &World, path: &str) -> String {
    let nar = world.run(&["store", "dump", path]).stdout;
    let mut reader = nix_compat::nar::NarReader::new(&nar[..]);
    let mut content = Vec::new();
    while let Some(event) = reader.next().unwrap() {
        if let nix_compat::nar::NarEvent::Data(bytes) = event {
            content.extend_from_slice(bytes);
        }
    }
    String::from_utf8(content).unwrap()
}

/// Promise: "A second run of a finished build does nothing"; references are found, outputs are printed and registered.
#[test]
fn a_graph_is_built_once() {
    let Some((world, mut recipes)) = workshop() else {
        return;
    };
    let base = recipes.script(
        "base",
        "mkdir $out; echo base > $out/file; chmod +x $out/file; ln -s file $out/link",
    );
    let parts = Parts {
        script:
            "mkdir $out $doc; cat $base/link > $out/copy; echo $base > $out/refers; echo none > $doc/text"
                .into(),
        env: BTreeMap::from([("base".into(), base.out_path())]),
        built: vec![base.clone()],
        more_outputs: vec!["doc".into()],
        ..Parts::default()
    };
    let top = recipes.write("top", parts);
    let first = world.run(&["build", "--json", top.argument()]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let json: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    let outputs = json[0]["outputs"].as_object().unwrap();
    assert_eq!(outputs["out"], top.out_path());
    assert_eq!(json[0]["drvPath"], format!("/nix/store/{}", top.drv_path));
    let info = world.answer(&[
        "store",
        "info",
        "--json",
        &top.out_path(),
        outputs["doc"].as_str().unwrap(),
    ]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info[0]["references"], serde_json::json!([base.out_path()]));
    assert_eq!(info[1]["references"], serde_json::json!([]));
    assert_eq!(info[0]["deriver"], format!("/nix/store/{}", top.drv_path));
    let second = build(&world, &top);
    assert_eq!(second.code, Some(0));
    assert!(!second.stderr.contains("building"), "{}", second.stderr);
    let mut printed: Vec<_> = String::from_utf8(second.stdout)
        .unwrap()
        .lines()
        .map(String::from)
        .collect();
    printed.sort();
    let mut expected: Vec<_> = outputs
        .values()
        .map(|path| path.as_str().unwrap().to_string())
        .collect();
    expected.sort();
    assert_eq!(printed, expected);
}

/// Promise: "The root shows `build dev etc nix proc tmp` and nothing else; the store shows the input closure and nothing
/// else", and what Nix's sandbox shows of users, limits and devices (recorded from Nix 2.8).
#[test]
fn a_build_sees_what_nix_shows() {
    let Some((world, mut recipes)) = workshop() else {
        return;
    };
    let unrelated = world.path("unrelated");
    std::fs::write(&unrelated, "no input of anything").unwrap();
    world.answer(&["store", "add", unrelated.to_str().unwrap()]);
    let script = "{ echo root: $(ls /); echo store: $(ls /nix/store | wc -l); id; umask; pwd; echo dev: $(ls /dev); \
                  echo etc: $(ls /etc); cat /etc/passwd /etc/group /etc/hosts; stat -c '%a %u %g' /build /tmp /nix/store; \
                  ls /build | wc -l; echo tty: $(test -t 1 && echo yes || echo no) $(test -t 0 && echo yes || echo no); \
                  echo $$; } > $out";
    let recipe = recipes.script("view", script);
    let ended = build(&world, &recipe);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // in the store: the shell, and the output that is being written
    let expected = "root: build dev etc nix proc tmp\n\
                    store: 2\n\
                    uid=1000(nixbld) gid=100(nixbld)\n\
                    0022\n\
                    /build\n\
                    dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n\
                    etc: group hosts passwd\n\
                    root:x:0:0:Nix build user:/build:/noshell\n\
                    nixbld:x:1000:100:Nix build user:/build:/noshell\n\
                    nobody:x:65534:65534:Nobody:/:/noshell\n\
                    root:x:0:\n\
                    nixbld:!:100:\n\
                    nogroup:x:65534:\n\
                    127.0.0.1 localhost\n\
                    ::1 localhost\n\
                    700 1000 100\n\
                    1777 0 0\n\
                    1775 0 100\n\
                    0\n\
                    tty: no no\n\
                    1\n";
    assert_eq!(content(&world, &recipe.out_path()), expected);
}

/// Promise: "A build that fails changes nothing in the store; exit codes are Nix's".
#[test]
fn failures_are_told_and_leave_nothing() {
    let Some((world, mut recipes)) = workshop() else {
        return;
    };
    let before = world.answer(&["store", "list"]);
    let cases = [
        (
            "echo first; echo last words; exit 3",
            100,
            "failed with exit code 3",
        ),
        ("kill -9 $$; sleep 1; exit 7", 100, "exit code 7"), // the first process of a pid namespace cannot kill itself
        ("true", 1, "failed to produce output path"),
        ("mkfifo $out", 1, "named pipe"),
        ("mkdir $out; mkfifo $out/inner", 1, "/inner"),
        ("echo x > $out; chmod 666 $out", 1, "may write to it"),
    ];
    for (index, (script, code, words)) in cases.into_iter().enumerate() {
        let recipe = recipes.script(&format!("fails-{index}"), script);
        let ended = build(&world, &recipe);
        assert_eq!(ended.code, Some(code), "{script}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{script}: {}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
    let tail = build(&world, &recipes.script("tail", "seq 100; exit 1"));
    assert!(
        tail.stderr.contains("> 100\n") && tail.stderr.contains("> 76\n"),
        "{}",
        tail.stderr
    );
    assert!(!tail.stderr.contains("> 75\n"), "{}", tail.stderr);
    let absent = recipes.write(
        "absent",
        Parts {
            builder: Some("/no/such/builder".into()),
            ..Parts::default()
        },
    );
    let ended = build(&world, &absent);
    assert_eq!(ended.code, Some(100), "{}", ended.stderr);
    assert!(ended.stderr.contains("/no/such/builder"), "{}", ended.stderr);
    assert_eq!(world.answer(&["store", "list"]), before);
}

/// Time limits and promised hashes have exit codes of their own.
#[test]
fn limits_and_fixed_outputs_are_held() {
    let Some((world, mut recipes)) = workshop() else {
        return;
    };
    let slow = recipes.script("slow", "while true; do echo tick; sleep 0.2; done");
    let ended = world.run(&["build", "--timeout", "2", slow.argument()]);
    assert_eq!(ended.code, Some(101), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("timed out after 2 seconds"),
        "{}",
        ended.stderr
    );
    let silent = recipes.script("silent", "sleep 600");
    let ended = world.run(&["build", "--max-silent-time", "2", silent.argument()]);
    assert_eq!(ended.code, Some(101), "{}", ended.stderr);
    assert!(ended.stderr.contains("silence"), "{}", ended.stderr);
    let promised = nix_compat::hash::sha256(b"right\n");
    for (content, code) in [("wrong", 102), ("right", 0)] {
        let parts = Parts {
            script: format!("echo {content} > $out"),
            fixed_sha256: Some(promised),
            ..Parts::default()
        };
        let recipe = recipes.write("fixed", parts);
        let ended = build(&world, &recipe);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        if code != 0 {
            assert!(
                ended.stderr.contains("specified: sha256-") && ended.stderr.contains("got:    sha256-"),
                "{}",
                ended.stderr
            );
        }
    }
}

/// Bad files are told apart, by name, before any machine is started.
#[test]
fn bad_derivations_are_refused() {
    let world = World::new();
    let Ok(busybox) = busybox() else {
        return skip("there is no busybox");
    };
    let mut recipes = Recipes::new(&world, &busybox);
    let good = recipes.script("good", "true");
    let folder = good.file.parent().unwrap();
    let name = good.drv_path.to_string();
    let text = std::fs::read(&good.file).unwrap();
    let write = |folder: &str, bytes: &[u8]| {
        let dir = world.path(folder);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(&name), bytes).unwrap();
        dir.join(&name).to_str().unwrap().to_string()
    };
    let refused = |argument: &str, words: &str| {
        let ended = world.run(&["build", argument]);
        assert_eq!(ended.code, Some(1), "{argument}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{argument}: {}", ended.stderr);
    };
    refused(&write("truncated", &text[..text.len() / 2]), "is no derivation");
    refused(&write("noise", &[0xff; 64]), "is no derivation");
    refused(&write("empty", b""), "is no derivation");
    let changed = String::from_utf8(text)
        .unwrap()
        .replace("true", "evil")
        .into_bytes();
    refused(&write("changed", &changed), "the file was changed or renamed");
    refused("/no/such/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x.drv", "is missing");
    refused("plain-name.drv", "is not named like a derivation");
    let orphan = recipes.write(
        "orphan",
        Parts {
            built: vec![good.clone()],
            ..Parts::default()
        },
    );
    std::fs::remove_file(folder.join(&name)).unwrap();
    refused(orphan.argument(), &name);
    let missing = nix_compat::StorePath::parse("59209gx1b93k17d049isa072bka4iv8w-missing").unwrap();
    let lacks = recipes.write(
        "lacks",
        Parts {
            sources: vec![missing],
            ..Parts::default()
        },
    );
    refused(lacks.argument(), "59209gx1b93k17d049isa072bka4iv8w-missing");
}

/// Promise: "Ctrl-C ... leaves no machine, mount or file behind".
#[test]
fn interrupting_a_build_ends_everything() {
    let Some((world, mut recipes)) = workshop() else {
        return;
    };
    let recipe = recipes.script("long", "echo running; sleep 600");
    let log = world.path("log");
    let mut command = world.igloo();
    command
        .args(["build", "-L", recipe.argument()])
        .stderr(std::fs::File::create(&log).unwrap())
        .stdout(Stdio::null());
    let mut child = start(&mut command);
    wait_until("the build runs", || {
        std::fs::read_to_string(&log).unwrap().contains("long> running")
    });
    let told = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(std::fs::read_to_string(&log).unwrap().contains("interrupted"));
    none_mentions(&world.path(""), "a machine outlived the interrupt");
    assert_eq!(
        std::fs::read_dir(world.path("run/igloo/machines"))
            .unwrap()
            .count(),
        0
    );
}

/// A builder in another process does the same work, and both can share a store that is served.
#[test]
fn builders_and_stores_in_other_processes() {
    let Some((world, mut recipes)) = workshop() else {
        return;
    };
    let recipe = recipes.script("far", "echo made far away > $out");
    let failing = recipes.script("far-fails", "echo far words; exit 4");
    let builder_socket = world.path("builder.sock");
    let builder = Server::start(&world, &["builder", "--listen"], &builder_socket);
    let url = format!("grpc+unix://{}", builder_socket.display());
    let built = world.run(&["build", "--builder", &url, recipe.argument()]);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    assert_eq!(content(&world, &recipe.out_path()), "made far away\n");
    let failed = world.run(&["build", "--builder", &url, failing.argument()]);
    assert_eq!(failed.code, Some(100), "{}", failed.stderr);
    assert!(failed.stderr.contains("> far words"), "{}", failed.stderr);
    let store_socket = world.path("store.sock");
    let daemon = Server::start(&world, &["store", "daemon", "--listen"], &store_socket);
    let store_url = format!("grpc+unix://{}", store_socket.display());
    let again = recipes.script("shared", "echo through two sockets > $out");
    let built = world.run(&[
        "--store",
        &store_url,
        "build",
        "--builder",
        &url,
        again.argument(),
    ]);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    let verified = world.run(&["--store", &store_url, "store", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    daemon.stop();
    builder.stop();
    assert_eq!(content(&world, &again.out_path()), "through two sockets\n");
    let nobody = world.run(&["--store", &store_url, "store", "list"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("store.sock"), "{}", nobody.stderr);
}

/// Promise: a build's host side, without the machine's own memory, stays under 150 MiB; only what is read is fetched.
#[test]
fn a_build_is_light_on_its_host() {
    const MIB: u64 = 1 << 20;
    let Some((world, mut recipes)) = workshop() else {
        return;
    };
    let input = world.path("input");
    std::fs::create_dir(&input).unwrap();
    for index in 0..64 {
        std::fs::write(
            input.join(format!("file-{index}")),
            igloo_testkit::tree::noise(2 << 20, index),
        )
        .unwrap();
    }
    let stored = world.answer(&["store", "add", input.to_str().unwrap()]);
    let parts = Parts {
        script:
            "mkdir $out; cat $input/file-7 > $out/one; head -c 60000000 /dev/urandom > $out/noise; seq 200000"
                .into(),
        env: BTreeMap::from([("input".into(), stored.clone())]),
        sources: vec![
            nix_compat::store_path::StoreDir::default()
                .parse(&stored)
                .unwrap(),
        ],
        ..Parts::default()
    };
    let recipe = recipes.write("light", parts);
    let (ended, used) = finish_measured(world.igloo().args(["build", "--json", recipe.argument()]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        used.peak_bytes < 150 * MIB,
        "the host side took {} MiB",
        used.peak_bytes / MIB
    );
    let json: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let read = json[0]["build"]["inputBytesRead"].as_u64().unwrap();
    // one file of 2 MiB, the shell, and what the kernel reads ahead of it
    assert!(
        (2 * MIB..12 * MIB).contains(&read),
        "read {read} bytes of 128 MiB"
    );
}
