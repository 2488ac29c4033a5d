//! The entries of budget files: rows, numbers, and reasons.

use partita_rows::Row;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// The name of a row that there is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct RowName(pub(super) String);

impl TryFrom<String> for RowName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let names = || Row::ALL.iter().map(|row| row.name()).collect::<Vec<_>>().join(", ");
        match Row::from_name(&name) {
            Some(_) => Ok(Self(name)),
            None => Err(format!("the suite has no row {name:?}; there are {}", names())),
        }
    }
}

/// A number of at most three decimal places, so that nothing is rounded when budgets are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Thousandths(pub(super) u32);

impl Number for Thousandths {
    const EXPECTED: &'static str = "a ratio such as 1.3";

    fn of(number: f64) -> Result<Self, String> {
        let thousandths = (number * 1000.0).round();
        let is_exact = (1.0..=f64::from(u32::MAX)).contains(&thousandths) && thousandths / 1000.0 == number;
        let error = || format!("{number} is no ratio; write a number above 0 with at most three decimal places");
        if is_exact { Ok(Self(thousandths as u32)) } else { Err(error()) }
    }
}

/// A number that limits something.
pub(super) trait Number: Sized {
    /// What is expected.
    const EXPECTED: &'static str;

    /// A whole number of the file, or a number with a decimal point.
    fn of(number: f64) -> Result<Self, String>;

    /// A whole number of the file.
    fn of_whole(number: u64) -> Result<Self, String> {
        Self::of(number as f64)
    }
}

impl Number for u64 {
    const EXPECTED: &'static str = "a number of ticks";

    fn of(number: f64) -> Result<Self, String> {
        Err(format!("{number} is no number of ticks; write a whole number"))
    }

    fn of_whole(number: u64) -> Result<Self, String> {
        Ok(number)
    }
}

/// A number, or `{ max = NUMBER, reason = "..." }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit<N> {
    pub(super) max: N,
    /// Why it is higher than it was once.
    pub(super) reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "N: Number")]
struct Table<N> {
    max: Bare<N>,
    reason: Option<String>,
}

/// A number alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bare<N>(pub(super) N);

impl<'de, N: Number> Deserialize<'de> for Bare<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = deserializer.deserialize_any(LimitVisitor::<N> { takes_table: false, number: PhantomData })?;
        Ok(Self(limit.max))
    }
}

impl<'de, N: Number> Deserialize<'de> for Limit<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor { takes_table: true, number: PhantomData })
    }
}

struct LimitVisitor<N> {
    takes_table: bool,
    number: PhantomData<N>,
}

impl<'de, N: Number> Visitor<'de> for LimitVisitor<N> {
    type Value = Limit<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(N::EXPECTED)?;
        if self.takes_table { f.write_str(", or { max = NUMBER, reason = \"...\" }") } else { Ok(()) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        let number = u64::try_from(number);
        number.map_err(|_| E::custom("it is below 0; write a number from 0 on")).and_then(|n| self.visit_u64(n))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Limit { max: N::of_whole(number).map_err(E::custom)?, reason: None })
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Limit { max: N::of(number).map_err(E::custom)?, reason: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        if !self.takes_table {
            return Err(A::Error::custom(format!("a table is no number; write {}", N::EXPECTED)));
        }
        let Table { max, reason } = Table::deserialize(MapAccessDeserializer::new(map))?;
        if reason.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
            return Err(A::Error::custom("the reason is empty; say why the budget is higher than it was"));
        }
        Ok(Limit { max: max.0, reason })
    }
}

impl Thousandths {
    /// Whether `value` is a larger multiple of `of`.
    pub(super) fn is_exceeded(self, value: u64, of: u64) -> bool {
        u128::from(value) * 1000 > u128::from(of) * u128::from(self.0)
    }
}
