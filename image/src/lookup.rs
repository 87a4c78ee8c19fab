//! What the loader and the tools ask an image for, by name.

use govc_abi::image::rule;

use crate::{Image, Names};

impl Names {
    /// Number of the zone that an interface is in: the first whose patterns match its name.
    #[must_use]
    pub fn zone_of(&self, interface: &str) -> Option<usize> {
        let is_in =
            |zone: &crate::Zone| zone.interfaces.iter().any(|pattern| glob(pattern, interface));
        self.zones.iter().position(is_in).map(|position| position + 1)
    }
}

impl Image {
    /// How many rules it has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules().len()
    }

    /// `permit`, `deny`, `pass`; `observe deny` for rules that decide nothing.
    #[must_use]
    pub fn action_name(&self, number: u32) -> &'static str {
        let record = self.rule(number).unwrap_or(0);
        match (record & rule::ACTION_MASK, record & rule::OBSERVE != 0) {
            (rule::PERMIT, false) => "permit",
            (rule::DENY, false) => "deny",
            (rule::PASS, false) => "pass",
            (rule::PERMIT, true) => "observe permit",
            (rule::DENY, true) => "observe deny",
            (rule::PASS, true) => "observe pass",
            _ => "?",
        }
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, text, matches) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("veth*", "veth7", true),
            ("veth*", "veth", true),
            ("veth*", "eth7", false),
            ("*0", "eth0", true),
            ("*0", "eth1", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }
}
