//! A weight that the operator sets at run time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The greatest weight.
const GREATEST: u16 = 1_000;

/// What a backend is to weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Weight {
    /// This much, 0 to 1000.
    Absolute(u16),
    /// This part of what the configuration says, 0 to 1000 percent; it follows when that changes.
    Percent(u16),
}

/// What is no weight.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no weight; write 0 to 1000, a part of the configured one such as 50%, or reset")]
pub struct NoWeight {
    /// What was written.
    pub text: String,
}

impl Weight {
    /// The weight, 0 to 1000. A part of a weight that is not 0 is not 0 either, but for 0 %.
    pub fn of(self, configured: u16) -> u16 {
        match self {
            Self::Absolute(weight) => weight,
            Self::Percent(0) => 0,
            Self::Percent(percent) => {
                let part = (u32::from(configured) * u32::from(percent)).div_ceil(100);
                part.min(GREATEST.into()) as u16
            }
        }
    }
}

impl FromStr for Weight {
    type Err = NoWeight;

    fn from_str(text: &str) -> Result<Self, NoWeight> {
        let (digits, kind): (_, fn(u16) -> Self) = match text.strip_suffix('%') {
            Some(digits) => (digits, Self::Percent),
            None => (text, Self::Absolute),
        };
        let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok()).filter(|number| *number <= GREATEST);
        number.map(kind).ok_or_else(|| NoWeight { text: text.escape_debug().to_string() })
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(weight) => write!(f, "{weight}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl TryFrom<String> for Weight {
    type Error = NoWeight;

    fn try_from(text: String) -> Result<Self, NoWeight> {
        text.parse()
    }
}

impl From<Weight> for String {
    fn from(weight: Weight) -> Self {
        weight.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_numbers_or_parts_of_the_configured_one() {
        for (text, configured, weight) in [
            ("0", 100, Some(0)),
            ("1000", 100, Some(1_000)),
            ("1001", 100, None),
            ("50%", 100, Some(50)),
            ("50%", 7, Some(4)),
            ("1%", 1, Some(1)),
            ("0%", 100, Some(0)),
            ("300%", 500, Some(1_000)),
            ("50%", 0, Some(0)),
            ("1001%", 1, None),
            ("", 100, None),
            ("%", 100, None),
            ("-1", 100, None),
            ("+1", 100, None),
            ("1.5", 100, None),
            ("fifty", 100, None),
        ] {
            let parsed = text.parse::<Weight>();
            assert_eq!(parsed.as_ref().ok().map(|weight| weight.of(configured)), weight, "{text}");
            if let Ok(weight) = parsed {
                assert_eq!(weight.to_string(), text);
            }
        }
    }
}
