use std::fmt;
use std::str::FromStr;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $bits:literal;)+) => {
        /// Element type of a stored tensor: every type that the safetensors format names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Dtype {
            $($(#[$doc])* $variant,)+
        }

        impl Dtype {
            /// Every dtype, in the order of this enum.
            pub const ALL: &'static [Dtype] = &[$(Dtype::$variant,)+];

            /// The name in safetensors headers, such as `BF16`.
            pub const fn name(self) -> &'static str {
                match self { $(Dtype::$variant => $name,)+ }
            }

            /// Bits an element takes: below 8 for packed types.
            pub const fn bits(self) -> usize {
                match self { $(Dtype::$variant => $bits,)+ }
            }
        }
    };
}

dtypes! {
    /// One byte, 0 or 1.
    Bool = "BOOL", 8;
    /// Four-bit float (e2m1), two an byte.
    F4 = "F4", 4;
    /// Six-bit float with 2 exponent bits.
    F6E2M3 = "F6_E2M3", 6;
    /// Six-bit float with 3 exponent bits.
    F6E3M2 = "F6_E3M2", 6;
    /// Unsigned 8-bit integer.
    U8 = "U8", 8;
    /// Signed 8-bit integer.
    I8 = "I8", 8;
    /// fp8 with 5 exponent bits, infinities and NaNs as in IEEE 754.
    F8E5M2 = "F8_E5M2", 8;
    /// fp8 with 4 exponent bits, no infinity, one NaN pattern a sign (the "FN" form).
    F8E4M3 = "F8_E4M3", 8;
    /// Exponent-only 8-bit scale.
    F8E8M0 = "F8_E8M0", 8;
    /// fp8 e4m3 without negative zero (AMD form).
    F8E4M3Fnuz = "F8_E4M3FNUZ", 8;
    /// fp8 e5m2 without negative zero (AMD form).
    F8E5M2Fnuz = "F8_E5M2FNUZ", 8;
    /// Signed 16-bit integer.
    I16 = "I16", 16;
    /// Unsigned 16-bit integer.
    U16 = "U16", 16;
    /// IEEE half precision.
    F16 = "F16", 16;
    /// bfloat16: the upper half of an f32.
    BF16 = "BF16", 16;
    /// Signed 32-bit integer.
    I32 = "I32", 32;
    /// Unsigned 32-bit integer.
    U32 = "U32", 32;
    /// IEEE single precision.
    F32 = "F32", 32;
    /// Two f32: real and imaginary part.
    C64 = "C64", 64;
    /// IEEE double precision.
    F64 = "F64", 64;
    /// Signed 64-bit integer.
    I64 = "I64", 64;
    /// Unsigned 64-bit integer.
    U64 = "U64", 64;
}

impl Dtype {
    /// True for the types that decode to f32 and back: what a merge computes with. Everything else is copied only.
    pub const fn is_computable(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F8E4M3 | Dtype::F8E5M2)
    }

    /// Bytes that `numel` elements take, rounded up for packed types; `None` on overflow.
    pub const fn byte_len(self, numel: usize) -> Option<usize> {
        match numel.checked_mul(self.bits()) {
            Some(bits) => Some(bits.div_ceil(8)),
            None => None,
        }
    }

    /// Reads a recipe's spelling: safetensors names, PyTorch names and the short forms, in any case
    /// (`BF16`, `bfloat16`, `torch.bfloat16`, `float32`, `half`).
    pub fn parse_lenient(name: &str) -> Option<Dtype> {
        let lower = name.trim().to_ascii_lowercase();
        let short = lower.strip_prefix("torch.").unwrap_or(&lower);
        Some(match short {
            "bfloat16" => Dtype::BF16,
            "float16" | "half" | "fp16" => Dtype::F16,
            "float32" | "float" | "fp32" => Dtype::F32,
            "float64" | "double" | "fp64" => Dtype::F64,
            "float8_e4m3fn" | "float8_e4m3" => Dtype::F8E4M3,
            "float8_e5m2" => Dtype::F8E5M2,
            _ => return short.to_ascii_uppercase().parse().ok(),
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ();

    /// Reads the exact safetensors name.
    fn from_str(name: &str) -> Result<Self, ()> {
        Dtype::ALL.iter().copied().find(|d| d.name() == name).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for &dtype in Dtype::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(Dtype::parse_lenient(&dtype.name().to_lowercase()), Some(dtype));
        }
        assert_eq!(Dtype::parse_lenient("torch.bfloat16"), Some(Dtype::BF16));
        assert_eq!(Dtype::parse_lenient("bflaot16"), None);
    }

    #[test]
    fn packed_types_round_up_to_bytes() {
        assert_eq!(Dtype::F4.byte_len(3), Some(2));
        assert_eq!(Dtype::F6E2M3.byte_len(4), Some(3));
        assert_eq!(Dtype::BF16.byte_len(usize::MAX), None);
    }
}
