//! The messages of `proto/tempo.proto`, and how they are JSON (proto3's form, as strict readers want it).
//!
//! Search and tags answer with these, over HTTP and over gRPC.

#![expect(unreachable_pub, clippy::enum_variant_names, clippy::struct_field_names, reason = "generated")]
#![expect(clippy::trivially_copy_pass_by_ref, reason = "serde and prost pass references")]

include!(concat!(env!("OUT_DIR"), "/tempopb.rs"));

/// Zero is what a reader takes a number for that is left out.
fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// 64 bits are more than a number of JSON holds for certain: they are texts.
mod integer {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(number: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no whole number of 64 bits")))
    }
}

/// JSON has no numbers for three of them; proto3 has words.
pub(super) mod double {
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(f64),
        Word(String),
    }

    pub(in crate::api::tempo) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match *number {
            number if number.is_nan() => "NaN".serialize(serializer),
            f64::INFINITY => "Infinity".serialize(serializer),
            f64::NEG_INFINITY => "-Infinity".serialize(serializer),
            number => number.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(number),
            Either::Word(word) => match word.as_str() {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                _ => Err(D::Error::custom(format!("{word:?} is no number"))),
            },
        }
    }
}

/// Values of an enumeration go by their names.
mod status {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::PartialStatus;

    pub(super) fn serialize<S: Serializer>(status: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        PartialStatus::try_from(*status).unwrap_or_default().as_str_name().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        let name = String::deserialize(deserializer)?;
        let status = PartialStatus::from_str_name(&name);
        status.map(i32::from).ok_or_else(|| D::Error::custom(format!("{name:?} is no status")))
    }
}
