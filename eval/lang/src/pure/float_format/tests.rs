use proptest::prelude::*;

use super::*;
use crate::pure::oracle;

/// Every recorded literal, in all three forms, errors included.
#[test]
fn prints_as_nix() {
    let cases = oracle::cases(include_str!("../oracle/float.tsv"));
    assert!(cases.len() > 700, "the table is whole");
    for case in cases {
        let literal = String::from_utf8(case[0].clone()).unwrap();
        let parsed = parse_literal(&literal);
        if let [_, error] = case.as_slice() {
            assert_eq!(parsed.unwrap_err().to_string().as_bytes(), error);
            continue;
        }
        let number = parsed.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(print_to_string(number).as_bytes(), case[1], "toString {literal}");
        assert_eq!(print_json(number).as_bytes(), case[2], "toJSON {literal}");
        assert_eq!(print_value(number).as_bytes(), case[3], "toXML {literal}");
    }
}

/// What no literal can say: Nix 2.34.8 printed these for `0.0 * -1`, `1.0e308 * 10` and what follows from them.
#[test]
fn prints_special_numbers_as_nix() {
    let all = |number| (print_to_string(number), print_json(number), print_value(number));
    let texts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(all(-0.0), texts("-0.000000", "-0.0", "-0"));
    assert_eq!(all(f64::INFINITY), texts("inf", "null", "inf"));
    assert_eq!(all(f64::NEG_INFINITY), texts("-inf", "null", "-inf"));
    assert_eq!(all(-f64::NAN.abs()), texts("-nan", "null", "-nan"));
}

proptest! {
    /// JSON digits read back as the very same number, whatever its bits.
    #[test]
    fn json_round_trips(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let text = print_json(number);
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
        prop_assert!(text.contains('.') || text.contains('e'));
    }

    /// A subnormal literal is accepted exactly when it is written out in full.
    #[test]
    fn exact_subnormals_are_accepted(fraction in 1_u64..1 << 52) {
        let number = f64::from_bits(fraction);
        let exact = format!("{number:.1074}");
        prop_assert_eq!(parse_literal(&exact).unwrap().to_bits(), fraction);
        let nearly = format!("{exact}1");
        prop_assert!(parse_literal(&nearly).is_err());
    }
}
