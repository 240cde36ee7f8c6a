use super::*;

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    list.iter().map(owned).collect()
}

fn configured(options: &[(&str, &str)]) -> Configuration {
    let machine = Machine {
        system: "x86_64-linux".to_owned(),
        seconds: Some(7),
        cores: 3,
    };
    configure(&machine, &pairs(options), &[])
}

#[test]
fn settings_are_sorted_and_known_once() {
    assert!(SETTINGS.is_sorted_by(|(a, ..), (b, ..)| a < b));
    let mut not_ours = SETTINGS.iter().filter(|(name, ..)| *name != "eval-cores");
    let unknown = not_ours.find(|(name, ..)| !names::is_known(name));
    assert!(
        unknown.is_none(),
        "not a setting of Nix: {:?}",
        unknown.map(|(name, ..)| name)
    );
}

#[test]
fn registries_are_named() {
    assert_eq!(configured(&[]).flake_registry, None);
    let none = configured(&[("flake-registry", ""), ("use-registries", "false")]);
    assert_eq!(none.flake_registry.as_deref(), Some(""));
    assert!(!none.settings.use_registries);
}

#[test]
fn threads_are_counted() {
    let threads = |value| configured(&[("eval-cores", value)]).threads.get();
    assert_eq!(configured(&[]).threads.get(), 1);
    assert_eq!((threads("2"), threads("0"), threads("1")), (2, 3, 1));
    for wrong in ["-1", "257", "x"] {
        assert_eq!(threads(wrong), 1);
        let warning = format!("warning: setting 'eval-cores' has invalid value '{wrong}'");
        assert_eq!(configured(&[("eval-cores", wrong)]).warnings, [warning]);
    }
}

/// The words of Nix 2.34 for `--option NAME VALUE`; the evaluation goes on.
#[test]
fn wrong_settings_are_warned_of_and_ignored() {
    for (name, value, words) in [
        ("foo", "bar", "warning: unknown setting 'foo'"),
        ("extra-foo", "1", "warning: unknown setting 'extra-foo'"),
        (
            "pure-eval",
            "maybe",
            "warning: Boolean setting 'pure-eval' has invalid value 'maybe'",
        ),
        (
            "max-call-depth",
            "x",
            "warning: setting 'max-call-depth' has invalid value 'x'",
        ),
        (
            "lint-url-literals",
            "bogus",
            "warning: option 'lint-url-literals' has invalid value 'bogus' (expected 'ignore', 'warn', or 'fatal')",
        ),
        (
            "experimental-features",
            "bogus flakes",
            "warning: unknown experimental feature 'bogus'",
        ),
    ] {
        let configuration = configured(&[(name, value)]);
        assert_eq!(configuration.warnings, [words]);
        assert_eq!(configuration.settings.purity, Purity::Impure);
        assert_eq!(configuration.settings.max_call_depth, 10_000);
    }
    let silent = configured(&[
        ("substituters", "x"),
        ("extra-substituters", "y"),
        ("sandbox", "no"),
    ]);
    assert!(silent.warnings.is_empty(), "{:?}", silent.warnings);
}

#[test]
fn later_settings_win_but_the_stricter_mode_holds() {
    let purity = |options: &[(&str, &str)]| configured(options).settings.purity;
    assert_eq!(
        purity(&[("pure-eval", "true"), ("pure-eval", "false")]),
        Purity::Impure
    );
    assert_eq!(
        purity(&[("pure-eval", "true"), ("restrict-eval", "true")]),
        Purity::Pure
    );
    assert_eq!(
        purity(&[("restrict-eval", "true"), ("pure-eval", "false")]),
        Purity::Restricted
    );
    let system = |options: &[(&str, &str)]| configured(options).settings.current_system;
    assert_eq!(system(&[]).as_deref(), Some("x86_64-linux"));
    let both = [("eval-system", "foo"), ("system", "bar")];
    assert_eq!(system(&both).as_deref(), Some("foo"), "recorded from Nix 2.34");
}

/// Recorded from Nix 2.34.
#[test]
fn the_search_path_keeps_urls_whole() {
    let entries = search_paths(&["x=/y".to_owned()], &[], "/a:nixpkgs=https://host/path:b=/c");
    let expected = [
        ("x", "/y"),
        ("", "/a"),
        ("nixpkgs", "https://host/path"),
        ("b", "/c"),
    ];
    assert_eq!(entries, pairs(&expected));
    let options = pairs(&[("nix-path", "a=/b:/c"), ("extra-nix-path", "q=/r")]);
    let entries = search_paths(&["x=/y".to_owned()], &options, "/gone");
    assert_eq!(entries, pairs(&[("x", "/y"), ("a", "/b:/c"), ("q", "/r")]));
}

#[test]
fn restricted_modes_read_what_the_search_path_names() {
    let machine = Machine::default();
    let options = pairs(&[("restrict-eval", "true"), ("allowed-uris", "https://a b:")]);
    let configuration = configure(&machine, &options, &pairs(&[("p", "lib/../x"), ("", "/abs")]));
    let configuration = configuration.based_at("/base", None);
    let AccessRules::Below(prefixes, _) = configuration.files else {
        panic!("everything may be read");
    };
    assert_eq!(prefixes, [b"/base/x".to_vec(), b"/abs".to_vec()]);
    let uris = ["https://a", "b:"].map(ToOwned::to_owned).to_vec();
    assert_eq!(configuration.uris, UriRules::Below(uris));
}

#[test]
fn configuration_lines_have_a_name_and_a_value() {
    let lines = parse_config("# none\n\n a = b # c\nd=\n").unwrap();
    assert_eq!(lines, pairs(&[("a", "b"), ("d", "")]));
    let error = parse_config("a = b\nfoo").unwrap_err();
    assert_eq!(error.to_string(), "syntax error in configuration line 'foo'");
}

#[test]
fn paths_are_made_absolute_in_words() {
    assert_eq!(absolute("/base", "/a/./b/../c"), "/a/c");
    assert_eq!(absolute("/base", "/../x"), "/x");
    assert_eq!(absolute("/base/b", "../x"), "/base/x");
    assert_eq!(absolute("/base", "."), "/base");
}
