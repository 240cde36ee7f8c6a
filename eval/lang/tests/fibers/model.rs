//! Random programs give the same, whichever build ends first, as when each blocks everything.

use igloo_eval::Format;
use proptest::prelude::*;

use crate::world::{Answers, World};

/// An expression over the variables `v0` to `v7`.
fn term() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => (0..8u8).prop_map(|n| format!("v{n}")),
        2 => (0..9u8).prop_map(|n| n.to_string()),
        4 => (0..9u8).prop_map(|n| format!("(ifd \"d{n}\" \"{n}\")")),
        1 => (0..3u8).prop_map(|n| format!("(ifd \"f{n}\" \"fail\")")),
        1 => (0..3u8).prop_map(|n| format!("(throw \"t{n}\")")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let many = prop::collection::vec(inner.clone(), 1..4);
        let list = many.clone().prop_map(|items| format!("[ {} ]", items.join(" ")));
        let set = many.clone().prop_map(|items| {
            let attrs = items.iter().enumerate().map(|(i, item)| format!("a{i} = {item}; "));
            format!("{{ {}}}", attrs.collect::<String>())
        });
        let made = many.prop_map(|items| {
            let attrs = items.iter().enumerate().map(|(i, item)| format!("a{i} = [ {item} ]; "));
            format!("(drv {{ name = \"n\"; {}}}).drvPath", attrs.collect::<String>())
        });
        prop_oneof![
            3 => list.clone(),
            3 => set.clone(),
            1 => made.prop_map(|drv| format!("({drv})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(builtins.seq {a} {b})")),
            2 => (list, inner.clone()).prop_map(|(a, b)| format!("(builtins.deepSeq {a} {b})")),
            1 => set.prop_map(|set| format!("(builtins.toJSON {set})")),
            1 => inner.clone().prop_map(|a| format!("(builtins.tryEval {a})")),
            1 => inner.prop_map(|a| format!("(builtins.addErrorContext \"of {a}\" {a})").replace("of (ifd \"", "of (ifd ").replace("\" \"", " ")),
        ]
    })
}

/// An error without the values it quotes: those show how much of them is evaluated, which depends on what ran early.
fn without_values(error: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix("error: ") {
        Some(message) => message.split(": ").next().unwrap_or_default().to_owned(),
        None => line.to_owned(),
    };
    error.lines().map(line).collect::<Vec<_>>().join("\n")
}

proptest! {
    #[test]
    fn any_order_of_answers_gives_the_same(
        terms in prop::collection::vec(term(), 8),
        root in term(),
        seed in any::<u64>(),
    ) {
        let bindings: String = terms.iter().enumerate().map(|(i, t)| format!("v{i} = {t};\n")).collect();
        let text = crate::expr(&format!("let {bindings} in {root}"));
        let blocking = World::new(Answers::Blocking);
        let expected = blocking.eval(&text, Format::Nix).map_err(|e| without_values(&e));
        let shuffled = World::new(Answers::Shuffled(seed));
        let result = shuffled.eval(&text, Format::Nix).map_err(|e| without_values(&e));
        prop_assert_eq!(result, expected);
    }
}
