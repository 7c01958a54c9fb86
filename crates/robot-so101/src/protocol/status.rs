use std::fmt;

/// The error bits of a reply: what a servo has to complain about. It answers all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status(pub u8);

const NAMES: [(u8, &str); 6] = [
    (0x01, "supply voltage outside its limits"),
    (0x02, "angle sensor fails"),
    (0x04, "too hot"),
    (0x08, "too much current"),
    (0x10, "angle outside its limits"),
    (0x20, "overload"),
];

impl Status {
    /// Whether there is nothing to complain about.
    pub fn is_ok(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ok() {
            return f.write_str("no fault");
        }
        let mut unnamed = self.0;
        let mut parts = Vec::new();
        for (bit, name) in NAMES {
            if self.0 & bit != 0 {
                unnamed &= !bit;
                parts.push(name.to_owned());
            }
        }
        if unnamed != 0 {
            parts.push(format!("unknown fault {unnamed:#04x}"));
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_named() {
        assert_eq!(Status(0).to_string(), "no fault");
        assert_eq!(Status(0x24).to_string(), "too hot, overload");
        assert_eq!(Status(0xC1).to_string(), "supply voltage outside its limits, unknown fault 0xc0");
    }
}
