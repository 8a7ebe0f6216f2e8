//! `Dec` against another decimal library: reading, printing, adding, multiplying, comparing.

use std::str::FromStr;

use bigdecimal::BigDecimal;
use countersign::kernel::money::Dec;
use proptest::prelude::*;

const DIGITS: &str = "-?[0-9]{1,20}(\\.[0-9]{1,18})?";

fn both(text: &str) -> (Dec, BigDecimal) {
    (text.parse().expect("it is in the grammar"), BigDecimal::from_str(text).expect("it is in the wider grammar"))
}

fn plain(value: &BigDecimal) -> String {
    value.normalized().to_plain_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_printed_canonically_and_reads_back(text in DIGITS) {
        let (dec, reference) = both(&text);
        prop_assert_eq!(dec.to_string(), plain(&reference));
        prop_assert_eq!(dec.to_string().parse::<Dec>(), Ok(dec));
        prop_assert_eq!(serde_json::from_str::<Dec>(&serde_json::to_string(&dec).unwrap()).unwrap(), dec);
        prop_assert_eq!(dec.is_positive(), reference.sign() == bigdecimal::num_bigint::Sign::Plus);
        prop_assert_eq!(dec.abs().to_string(), plain(&reference.abs()));
    }

    #[test]
    fn sums_products_and_comparisons_agree(left in DIGITS, right in DIGITS) {
        let ((a, x), (b, y)) = (both(&left), both(&right));
        prop_assert_eq!(a.checked_add(b).unwrap().to_string(), plain(&(&x + &y)));
        prop_assert_eq!(a.checked_sub(b).unwrap().to_string(), plain(&(&x - &y)));
        prop_assert_eq!(a.checked_mul(b).unwrap().to_string(), plain(&(&x * &y)));
        prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        prop_assert_eq!(a == b, x == y);
    }

    #[test]
    fn a_sum_of_products_is_exact_or_refused(terms in prop::collection::vec((DIGITS, DIGITS), 1..40)) {
        let mut sum = Some(Dec::ZERO);
        let mut reference = BigDecimal::from(0);
        for (left, right) in terms {
            let ((a, x), (b, y)) = (both(&left), both(&right));
            sum = sum.and_then(|sum| sum.checked_add(a.checked_mul(b)?));
            reference += x * y;
        }
        if let Some(sum) = sum {
            prop_assert_eq!(sum.to_string(), plain(&reference));
            // A snapshot holds such sums.
            prop_assert_eq!(serde_json::from_str::<Dec>(&serde_json::to_string(&sum).unwrap()).unwrap(), sum);
        }
    }

    #[test]
    fn nothing_that_is_not_in_the_grammar_is_read(text in "[-+0-9.eE_ ]{0,45}") {
        let well_formed = matches(&text);
        prop_assert_eq!(text.parse::<Dec>().is_ok(), well_formed, "{:?}", text);
    }
}

/// The grammar, read off by hand.
fn matches(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let mut parts = digits.split('.');
    let (integer, fraction, more) = (parts.next(), parts.next(), parts.next());
    let all = |part: &str, longest: usize| {
        (1..=longest).contains(&part.len()) && part.chars().all(|digit| digit.is_ascii_digit())
    };
    more.is_none() && integer.is_some_and(|part| all(part, 20)) && fraction.is_none_or(|part| all(part, 18))
}
