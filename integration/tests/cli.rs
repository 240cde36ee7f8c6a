//! What a user reads: whole outputs of commands, and what the keyboard does.
#![allow(clippy::unwrap_used, reason = "the helpers of tests")]

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use igloo_integration::derivations::{Parts, Recipes, busybox};
use igloo_integration::snapshots::Snapshot;
use igloo_integration::{World, start, wait_until};
use igloo_testkit::skip;

/// Derivations, two of them for no machine there is, and something else.
const SET: &str = r#"
rec {
  hello = derivation { name = "hello"; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "out" "doc" ]; };
  alien = derivation { name = "alien"; system = "alien-linux"; builder = "/bin/sh"; needs = hello; };
  far = derivation { name = "far"; system = "alien-linux"; builder = "/bin/sh"; };
  number = 1;
}
"#;

/// Promise: "Every error a user can make names the thing and the way out".
#[test]
fn mistakes_are_named_with_the_way_out() {
    let world = World::new();
    let work = world.path("work");
    std::fs::create_dir(work.join("empty")).unwrap();
    std::fs::write(work.join("one.nix"), "1").unwrap();
    std::fs::write(work.join("set.nix"), SET).unwrap();
    let mut snapshot = Snapshot::new(&world, "mistakes");
    for words in [
        &["build"][..],
        &["build", "nope.nix"],
        &["build", "empty"],
        &["build", "-f", "one.nix", "two.nix"],
        &["build", "one.nix"],
        &["build", "set.nix", "-A", "helo"],
        &["build", "set.nix", "-A", "number"],
        &["build", "set.nix", "-A", "hello", "--arg", "x", "1 +"],
        &["build", "set.nix", "-A", "hello", "--arg", "x"],
        &["build", "set.nix", "-A", "far"],
        &["build", "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x"],
        &["build", "set.nix", "--substituters", "nonsense"],
        &["build", "set.nix", "--option", "trusted-public-keys", "nonsense"],
        &["build", "set.nix", "--option", "secret-key-files", "/no/such/key"],
        &["build", "set.nix", "--builder", "grpc+unix:///no/such.sock"],
        &["build", "set.nix", "--builder", "big"],
        &["build", "x.drv"],
        &["build", "-A", "a", "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x.drv"],
        &["build", "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x.drv"],
        &["build", "--option", "substitutors", "x", "one.nix"],
        &["build", "--option", "keep-going", "maybe", "one.nix"],
        &["build", "-j", "0", "one.nix"],
        &["build", "--memory", "1", "one.nix"],
        &["build", "--frobnicate"],
        &["biuld"],
        &["nix-build", "nope.nix"],
        &["nix-build", "--frobnicate"],
        &["nix-build", "--arg", "x"],
        &["--store", "wrok", "store", "list"],
        &["--store", "ftp://x/y", "store", "list"],
        &["--store", "grpc+unix:///no/such.sock", "store", "list"],
        &["store", "daemon", "--listen", "0.0.0.0:1234"],
        &["store", "daemon", "--listen", "nonsense"],
        &["path-info", "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x"],
        &["path-info", "/etc/passwd"],
        &["why-depends", "/etc/passwd", "x"],
        &["log", "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x.drv"],
    ] {
        let ended = snapshot.run(words);
        assert_ne!(ended.code, Some(0), "{words:?}");
        assert_ne!(ended.code, Some(255), "{words:?} {}", ended.stderr);
    }
    snapshot.check();
}

/// Promise: "A dry run says what would be built and fetched, in nix-build's words, and does nothing".
#[test]
fn dry_runs_say_what_would_be_done() {
    let world = World::new();
    std::fs::write(world.path("work/default.nix"), SET).unwrap();
    let mut snapshot = Snapshot::new(&world, "dry_runs");
    for words in [
        &["build", "--dry-run", "-A", "hello"][..],
        &["build", "--dry-run", "-A", "alien"],
        &["build", "--dry-run", "-A", "alien", "-A", "hello.doc", "--json"],
        &["nix-build", "--dry-run"],
        &["nix-build", "--dry-run", "-E", "(import ./. ).hello"],
    ] {
        assert_eq!(snapshot.run(words).code, Some(0));
    }
    assert_eq!(
        std::fs::read_dir(world.path("work")).unwrap().count(),
        1,
        "no links"
    );
    snapshot.check();
}

/// Promise: "Configuration comes from a file, the environment and flags, later ones win; a name nobody knows is an error".
#[test]
fn configuration_is_merged_and_checked() {
    let world = World::new();
    let folder = world.path("home/.config/igloo");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |text: &str| std::fs::write(folder.join("config.toml"), text).unwrap();
    let mut snapshot = Snapshot::new(&world, "configuration");
    write("timout = 3\n");
    snapshot.run(&["store", "list"]);
    write("timeout = \"soon\"\n");
    snapshot.run(&["store", "list"]);
    write("keep-going = [\n");
    snapshot.run(&["store", "list"]);
    write("[stores]\nwork = \"memory:\"\n");
    snapshot.run(&["--store", "work", "store", "list"]);
    snapshot.run(&["--store", "wrok", "store", "list"]);
    snapshot.run(&["--config", "nothing.toml", "store", "list"]);
    snapshot.run_with(
        &["store", "list"],
        &[("NIX_CONFIG", "timout = 3\nsandbox = false")],
    );
    snapshot.run_with(&["-v", "store", "list"], &[("NIX_CONFIG", "sandbox = false")]);
    snapshot.check();
}

/// Promise: "A substituter that cannot be asked or believed is passed over with a word".
#[test]
fn substituters_are_passed_over_with_a_word() {
    let world = World::new();
    let work = world.path("work");
    std::fs::write(work.join("set.nix"), SET).unwrap();
    let set = work.join("set.nix");
    let wanted = world.answer(&["eval", "-f", set.to_str().unwrap(), "-A", "far.outPath"]);
    let wanted = wanted.trim_matches('"');
    let cache = |name: &str, info: &str, path: &str| {
        let folder = work.join(name);
        let digest = &path["/nix/store/".len()..][..32];
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("nix-cache-info"), info).unwrap();
        let digests = format!("sha256:{}", "0".repeat(52));
        let record = format!(
            "StorePath: {path}\nURL: nar/x.nar\nCompression: none\nNarHash: {digests}\nNarSize: 112\nReferences: \n"
        );
        std::fs::write(folder.join(format!("{digest}.narinfo")), record).unwrap();
        format!("file://{}", folder.display())
    };
    let unsigned = cache("unsigned", "StoreDir: /nix/store\n", wanted);
    let other = cache("other", "StoreDir: /gnu/store\n", wanted);
    let mut snapshot = Snapshot::new(&world, "substituters");
    for substituters in [
        unsigned.as_str(),
        other.as_str(),
        "http://127.0.0.1:1",
        "file:///no/such/cache",
    ] {
        let words = [
            "build",
            "-f",
            "set.nix",
            "-A",
            "far",
            "--substituters",
            substituters,
        ];
        let ended = snapshot.run(&words);
        assert_ne!(ended.code, Some(0));
    }
    snapshot.check();
}

/// Promise: "`path-info` and `why-depends` print what Nix prints".
#[test]
fn store_paths_are_asked_about() {
    let world = World::new();
    let work = world.path("work");
    let write = |name: &str, text: &str| std::fs::write(work.join(name), text).unwrap();
    write("plain", "no references\n");
    let mut snapshot = Snapshot::new(&world, "paths");
    let plain = world.answer(&["store", "add", work.join("plain").to_str().unwrap()]);
    snapshot.run(&["path-info", &plain]);
    snapshot.run(&["path-info", "-s", "-S", "-h", &plain]);
    snapshot.run(&["path-info", "-S", "--sigs", &plain]);
    snapshot.run(&[
        "path-info",
        "--json",
        &plain,
        "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x",
    ]);
    snapshot.run(&["path-info", "--json", "--json-format", "2", "-S", &plain]);
    snapshot.run(&["why-depends", &plain, &plain]);
    snapshot.run(&[
        "why-depends",
        &plain,
        "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x",
    ]);
    snapshot.check();
}

/// Promise: "`igloo build` prints what was built, links to it, and says what failed and why".
#[test]
fn builds_are_told_and_linked() {
    let world = World::new();
    let ready = busybox().and_then(|busybox| world.can_build().map(|()| busybox));
    let busybox = match ready {
        Ok(busybox) => busybox,
        Err(reason) => return skip(&reason),
    };
    let mut recipes = Recipes::new(&world, &busybox);
    let base = recipes.script("base", "echo compiling; mkdir $out; echo base > $out/file");
    let parts = Parts {
        script: "mkdir $out $doc; echo $base > $out/refers; echo none > $doc/text".into(),
        env: [("base".to_string(), base.out_path())].into(),
        built: vec![base.clone()],
        more_outputs: vec!["doc".into()],
        ..Parts::default()
    };
    let top = recipes.write("top", parts);
    let bad = recipes.script("bad", "echo first; echo last words; exit 3");
    let mut snapshot = Snapshot::new(&world, "builds");
    snapshot.run(&["build", "--dry-run", top.argument()]);
    snapshot.run(&["build", "-L", "-j1", top.argument()]);
    let links = |names: &[&str]| {
        for name in names {
            let link = world.path("work").join(name);
            let target = std::fs::read_link(&link).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(target.starts_with("/nix/store"), "{}", target.display());
            std::fs::remove_file(link).unwrap();
        }
        let left = std::fs::read_dir(world.path("work")).unwrap().count();
        assert_eq!(left, 0, "no other links");
    };
    links(&["result", "result-doc"]);
    let roots = std::fs::read_dir(world.store_dir().join("roots"))
        .unwrap()
        .count();
    assert_eq!(roots, 2);
    snapshot.run(&[
        "build",
        &format!("{}!doc", top.argument()),
        base.argument(),
        "-o",
        "x",
    ]);
    links(&["x-doc", "x-2"]);
    snapshot.run(&["nix-build", top.argument(), "--no-out-link"]);
    links(&[]);
    snapshot.run(&["why-depends", &top.out_path(), &base.out_path()]);
    snapshot.run(&["build", bad.argument()]);
    snapshot.run(&["nix-build", bad.argument()]);
    snapshot.run(&["-q", "build", "-k", bad.argument(), base.argument()]);
    links(&[]);
    std::fs::write(world.path("work/result"), "mine").unwrap();
    snapshot.run(&["build", base.argument()]);
    snapshot.check();
}

fn interrupt(child: &Child) {
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// Promise: "Ctrl-C stops a command cleanly, a second one ends it at once".
#[test]
fn one_interrupt_stops() {
    let world = World::new();
    let socket = world.path("mute.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = world.igloo();
    command.args([
        "--store",
        &format!("grpc+unix://{}", socket.display()),
        "store",
        "list",
    ]);
    let mut child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let _never_answered = listener.accept().unwrap();
    interrupt(&child);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{stderr}");
    assert_eq!(stderr, "error: interrupted\n");
}

/// The same promise, for a command that cannot stop: it reads from a pipe that never ends.
#[test]
fn two_interrupts_end_at_once() {
    const O_NONBLOCK: i32 = 0o4000; // Linux, all architectures we run on
    let world = World::new();
    let pipe = world.path("work/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x.drv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = world.igloo();
    command.args(["build", pipe.to_str().unwrap()]);
    let mut child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut writer = None;
    // opening for writing works once somebody reads (fifo(7))
    wait_until("the pipe is read", || {
        writer = OpenOptions::new()
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(&pipe)
            .ok();
        writer.is_some()
    });
    interrupt(&child);
    let mut stderr = child.stderr.take().unwrap();
    let mut told = String::new();
    let mut byte = [0];
    while !told.contains("Ctrl-C again") && stderr.read(&mut byte).unwrap() == 1 {
        told.push(char::from(byte[0]));
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}");
}
