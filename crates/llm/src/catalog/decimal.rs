//! Decimal numbers of price lists, read exactly: money is never a floating point number.

/// Most digits and places that a number may have.
const PLACES_MAX: usize = 40;

/// The number `text` times ten to the power of `shift`, rounded half up. None for what is no decimal
/// number, is negative or too large.
pub(super) fn scaled(text: &str, shift: i32) -> Option<u64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || digits.len() > PLACES_MAX {
        return None;
    }
    let number: u128 = digits.parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let power = exponent.checked_add(shift)?.checked_sub(places)?;
    let by = 10_u128.checked_pow(power.unsigned_abs());
    let scaled = match (by, power < 0) {
        // So much smaller than half that nothing is left of it.
        (None, true) => 0,
        (None, false) if number == 0 => 0,
        (None, false) => return None,
        (Some(by), true) => number.checked_add(by / 2)? / by,
        (Some(by), false) => number.checked_mul(by)?,
    };
    u64::try_from(scaled).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_numbers_are_read_exactly_or_not_at_all() {
        for (text, shift, expected) in [
            ("3", 9, Some(3_000_000_000)),
            ("3.75e-08", 15, Some(37_500_000)),
            ("1.25E-6", 15, Some(1_250_000_000)),
            ("0.0000000009", 9, Some(1)),
            ("0.0000000004", 9, Some(0)),
            ("1e-60", 15, Some(0)),
            ("0e99", 15, Some(0)),
            (".5", 1, Some(5)),
            ("18446744073709551615", 0, Some(u64::MAX)),
            ("18446744073709551616", 0, None),
            ("1e99", 0, None),
            ("1e2147483647", 15, None),
            ("-1", 9, None),
            ("", 9, None),
            (".", 9, None),
            ("1.2.3", 9, None),
            ("NaN", 9, None),
            ("1e", 9, None),
        ] {
            assert_eq!(scaled(text, shift), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_that_is_written_is_read(number in any::<u32>(), places in 0_u32..9) {
            let by = 10_u64.pow(places);
            let number = u64::from(number);
            let width = usize::try_from(places).unwrap();
            let text = format!("{}.{:0width$}", number / by, number % by);
            let text = if places == 0 { number.to_string() } else { text };
            prop_assert_eq!(scaled(&text, i32::try_from(places).unwrap()), Some(number));
        }
    }
}
